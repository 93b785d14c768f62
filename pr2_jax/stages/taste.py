"""Trains the taste space on the feed views of the training days and freezes a vector for every video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches import feed_slates
from pr2_jax.data.timelines import TimelineBatches
from pr2_jax.evaluation.metrics import auc
from pr2_jax.models.build import taste_task
from pr2_jax.retrieval.taste_space import TasteSpace, taste_videos
from pr2_jax.search.system import System
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.types import TASKS


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/` and `video_vectors.npy [V, D]` into `out`."""
    system = System(workdir, config)
    task = taste_task(system.store, config, system.catalogue, np.asarray(system.space.videos_VxD))
    batches = TimelineBatches(system.reader, config.taste)
    state = fit(task, batches, config.taste.optim, steps=batches.steps, directory=out)
    save_params(out, (state.params, state.tables))
    np.save(out / "video_vectors.npy", taste_videos(task, state.params, state.tables))
    _report(system, TasteSpace(task, out, system.reader))


def _report(system: System, space: TasteSpace) -> None:
    """How well the feed views of the validation day are told apart."""
    cuts = system.store.cuts
    views = feed_slates(system.reader, cuts.validation_ms, cuts.test_ms, 1)
    if not len(views):
        return
    logits = sum(space.logits(space.people(views.user_N, views.time_ms_N), views.video_NxS))
    found = {task: auc(views.label_NxSxT[:, 0, t] > 0, logits[:, 0, t]) for t, task in enumerate(TASKS)}
    shown = ", ".join(f"{task} {value:.3f}" for task, value in found.items())
    console.log(f"AUC on {len(views):,} feed views of the validation day: {shown}")
