"""Trains QIN and the base ranker on slates with features of serving-time freshness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config, QinConfig
from pr2_jax.data.batches.sessions import day_start_ms, part_of, training_sessions
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import QinBatches, SlateReader
from pr2_jax.models.model_functions import qin_task
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.system import System
from pr2_jax.stages.fit_scores import fit_scores
from pr2_jax.stages.mine_negatives import joined, sampled
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.training.training_curve import announce

FEATURE_BLOCK = 512
"""Slates whose features are computed at a time."""


def train(workdir: Path, config: Config, out: Path, features: Path | None = None) -> None:
    """Writes `qin/`, `base/`, `scaler.npz` and what was fitted on the validation day into `out`.

    `features`: a directory that keeps the slates' features for other runs; without it they lie in `out` until the stage
    is done. A ranker whose parameters are in `out` is not trained again.
    """
    system = System.open(workdir, config)
    cuts, size = system.store.cuts, config.qin.slate
    sessions_N, long_play = training_sessions(system.store), system.log.reader.long_play
    search = search_slates(system.store, sessions_N, size, long_play, cuts.validation_ms)
    paths = [(features or out) / f"{name}.npy" for name in ("negatives", "search_features", "feed_features")]
    search = joined(search, *_cached(paths[:1], lambda: [sampled(system, search, config.qin)]))
    feed = feed_slates(system.log.reader, 0, cuts.validation_ms, search.video_NxS.shape[1])
    search_features, feed_features = _cached(paths[1:], lambda: features_by_day(system, [search, feed]))
    scaler = Scaler.fit(search_features[search.video_NxS > 0])
    distributed.first(lambda: scaler.save(out / "scaler.npz"))
    scaled = (search, scaler(search_features)), (feed, scaler(feed_features))
    for name in ("qin", "base"):
        if not distributed.first((out / name / "params").exists):
            _train_one(system, config, name, scaled, out / name)
    distributed.first(lambda: fit_scores(system, config, out, out))
    if features is None:
        for path in paths:
            distributed.first(path.unlink)


def _train_one(system: System, config: Config, name: str, scaled: tuple, out: Path) -> None:
    ranker: QinConfig = getattr(config, name)
    distributed.first(lambda: out.mkdir(exist_ok=True))
    use = system.columns(ranker)
    (search, search_features), (feed, feed_features) = scaled
    requests = SlateReader(system.log.reader, system.fitted.query_vectors_NqxD, ranker, config.data)
    batches = QinBatches(requests, search, search_features[..., use], feed, feed_features[..., use], ranker)
    task = qin_task(system.store, ranker, system.log.catalogue, np.asarray(system.fitted.vectors("content")), len(use))
    announce(batches.length, name, out)
    state = fit(task, batches, ranker.optim, steps=batches.length.steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))


def _cached(paths: list[Path], compute: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """Arrays that process 0 computes; the other processes and a resumed run read them."""

    def make() -> None:
        if not all(path.exists() for path in paths):
            for path, array in zip(paths, compute(), strict=True):
                artifacts.save_array(path, array)

    distributed.first(make)
    return [np.load(path, mmap_mode="r") for path in paths]


def features_by_day(system: System, parts: list[Slates]) -> list[np.ndarray]:
    """Raw features `[N, S, F]`.

    Item-to-item scores come from a snapshot that ends before the slate's day, content cosines and preference logits
    from encoders that were not trained on that day (stages/train_content.py, stages/train_preference.py).
    """
    store = system.store
    days = [day_start_ms(store, slates.time_ms_N) for slates in parts]
    held_out = [part_of(store, slates.time_ms_N) for slates in parts]
    out = [np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32) for slates in parts]
    for day_ms in console.progress(np.unique(np.concatenate(days)), "features by day", unit=" days"):
        similarity = system.similarity_as_of(int(day_ms))
        for slates, day_N, part_N, features in zip(parts, days, held_out, out, strict=True):
            for part in np.unique(part_N[day_N == day_ms]):
                rows = np.flatnonzero((day_N == day_ms) & (part_N == part))
                for start in range(0, len(rows), FEATURE_BLOCK):
                    block = rows[start : start + FEATURE_BLOCK]
                    features[block] = slate_features(system, slates, block, similarity, int(part))
    return out


def slate_features(
    system: System, slates: Slates, rows: np.ndarray, similarity: ItemSimilarity, held_out: int | None = None
) -> np.ndarray:
    """Raw features of some slates against one snapshot; `held_out` as in `System.encode`."""
    encoded = system.encode(system.log.requests_of(slates, rows), held_out)
    return system.features(encoded, slates.video_NxS[rows], similarity)
