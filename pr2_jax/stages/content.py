"""Trains the content towers and freezes a vector for every video and every query of the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches import ContentBatches
from pr2_jax.data.catalogue import catalogue_arrays, log_unigram, query_words
from pr2_jax.data.store import LogStore
from pr2_jax.models.build import content_task
from pr2_jax.retrieval.encoders import ContentSpace, content_videos
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/`, `video_vectors.npy [V, D]` and `query_vectors.npy [Nq, D]` into `out`."""
    store = LogStore.open(workdir / "store")
    catalogue = catalogue_arrays(store, store.cuts.validation_ms, config.data)
    batches = ContentBatches(store, catalogue["caption"], config.content, config.data)
    task = content_task(store, config, catalogue, log_unigram(batches.positives_N, store.counts.videos))
    state = fit(task, batches, config.content.optim, steps=batches.steps, directory=out)
    save_params(out, (state.params, state.tables))
    np.save(out / "video_vectors.npy", content_videos(task, state.params, state.tables))
    words = query_words(store, np.arange(store.counts.queries), config.data)
    np.save(out / "query_vectors.npy", ContentSpace(task, out).queries(words))
    console.log(f"{store.counts.videos - 1:,} videos and {store.counts.queries - 1:,} queries embedded")
