"""Trains QIN and the base ranker on slates with features of serving-time freshness."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import Config, QinConfig
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import QinBatches, SlateReader
from pr2_jax.models.model_functions import qin_task
from pr2_jax.ranking.features import Scaler
from pr2_jax.search.system import System
from pr2_jax.stages.fit_scores import fit_scores
from pr2_jax.stages.mine_negatives import joined, sampled
from pr2_jax.stages.slate_features import SlateFeatures, fit_scaler, open_features, write_features
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.training.training_curve import announce


def train(workdir: Path, config: Config, out: Path, features: Path | None = None) -> None:
    """Writes `qin/`, `base/`, `scaler.npz` and what was fitted on the validation day into `out`.

    `features`: a directory that keeps the slates' features for other runs; without it they lie in `out` until the stage
    is done. A ranker whose parameters are in `out` is not trained again.
    """
    system = System.open(workdir, config)
    place = features or out
    negatives, path = place / "negatives.npy", place / "slate_features.f32"
    kinds = _slates(system, config, negatives)
    distributed.first(lambda: write_features(system, kinds, path))
    rows = open_features(system, kinds, path)
    distributed.first(lambda: fit_scaler(rows[0], kinds[0]).save(out / "scaler.npz"))
    scaler = Scaler.load(out / "scaler.npz")
    for name, part in (("qin", config.qin), ("base", config.base)):
        if not distributed.first((out / name / "params").exists):
            use = system.columns(part)
            scaled = [each.scaled(scaler, use) for each in rows]
            _train_one(system, config, name, list(zip(kinds, scaled, strict=True)), out / name)
    distributed.first(lambda: fit_scores(system, config, out, out))
    if features is None:
        for made in (negatives, path):
            distributed.first(functools.partial(made.unlink, missing_ok=True))  # a log without slates has none


def _slates(system: System, config: Config, negatives: Path) -> list[Slates]:
    """Search slates with sampled negatives, which process 0 draws and keeps in a file, and feed slates as wide."""
    cuts, reader = system.store.cuts, system.log.reader
    sessions_N = training_sessions(system.store)
    search = search_slates(system.store, sessions_N, config.qin.slate, reader.long_play, cuts.validation_ms)

    def draw() -> None:
        if not negatives.exists():
            artifacts.save_array(negatives, sampled(system, search, config.qin))

    distributed.first(draw)
    search = joined(search, np.load(negatives))
    return [search, feed_slates(reader, 0, cuts.validation_ms, search.video_NxS.shape[1])]


def _train_one(system: System, config: Config, name: str, parts: list[tuple[Slates, SlateFeatures]], out: Path) -> None:
    ranker: QinConfig = getattr(config, name)
    distributed.first(lambda: out.mkdir(exist_ok=True))
    requests = SlateReader(system.log.reader, system.fitted.query_vectors_NqxD, ranker, config.data)
    batches = QinBatches(requests, *parts[0], *parts[1], ranker)
    columns = len(system.columns(ranker))
    task = qin_task(system.store, ranker, system.log.catalogue, np.asarray(system.fitted.vectors("content")), columns)
    announce(batches.length, name, out)
    state = fit(task, batches, ranker.optim, steps=batches.length.steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))
