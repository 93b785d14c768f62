"""Trains the content towers and freezes a vector for every video and every query of the log.

Cross-fitting: the towers are trained on all training days, and on each half of them (`fold_0/`, `fold_1/`). On its own
training clicks a tower gives higher cosines than when serving, and a ranker would trust them too much. Training slates
therefore read the towers that were not trained on their day; everything else reads the first.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import FOLDS, fold_of, training_sessions
from pr2_jax.data.batches.training_batches import ContentBatches
from pr2_jax.data.history.video_attributes import catalogue_arrays, described, log_unigram, query_words
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders.batching import all_videos
from pr2_jax.encoders.space_encoders import ContentEncoder
from pr2_jax.models.model_functions import content_functions, content_task
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.training.training_curve import announce
from pr2_jax.workdir import fold_directory


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/`, `video_vectors.npy [V, D]` and `query_vectors.npy [Nq, D]` into `out` and each of its folds.

    A video without attributes in the log has a vector of zeros.
    """
    store = LogStore.open(workdir / "store")
    catalogue = catalogue_arrays(store, store.cuts.validation_ms, config.data)
    sessions_N = training_sessions(store)
    fold_N = fold_of(store, store.sessions.time_ms[sessions_N])
    everything = ContentBatches(store, sessions_N, catalogue["caption"], config.content, config.data)
    parts: dict[Path, tuple] = {out: (sessions_N, 1.0, None)}
    for fold in range(FOLDS):
        kept = fold_N != fold
        if not kept.any() and not catalogue["caption"].any():
            kept[:] = True  # searches of one period alone, and nothing else to learn words from: none can be held out
        # Captions teach a fold too, so that one with few sessions, or none, still gets its share of steps.
        share = max(kept.mean(), 1 / FOLDS)
        parts[fold_directory(out, fold)] = sessions_N[kept], share, fold
    for directory, (part_N, share, held_out) in parts.items():
        if not distributed.first((directory / "query_vectors.npy").exists):
            distributed.first(functools.partial(directory.mkdir, exist_ok=True))
            batches = ContentBatches(store, part_N, catalogue["caption"], config.content, config.data)
            length = batches.length.as_long_as(everything.length, share)
            announce(length, "content", directory, held_out)
            _train_towers(store, config, catalogue, batches, length.steps, directory)
    console.log(f"{store.counts.videos - 1:,} videos and {store.counts.queries - 1:,} queries embedded")


def _train_towers(
    store: LogStore, config: Config, catalogue: dict[str, np.ndarray], batches: ContentBatches, steps: int, out: Path
) -> None:
    """The query vectors are written last, by a rename: they mark the directory complete."""
    task = content_task(store, config, catalogue, log_unigram(batches.positives_N, store.counts.videos))
    state = fit(task, batches, config.content.optim, steps=steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))

    def freeze() -> None:
        functions = content_functions(task, state.params, state.tables)
        vectors_VxD = all_videos(functions["content_video"], store.counts.videos)
        np.save(out / "video_vectors.npy", np.where(described(catalogue)[:, None], vectors_VxD, 0))
        words = query_words(store, np.arange(store.counts.queries), config.data)
        artifacts.save_array(out / "query_vectors.npy", ContentEncoder(functions, out).queries(words))

    distributed.first(freeze)
