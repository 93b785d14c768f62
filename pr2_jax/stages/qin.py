"""Trains QIN and the base ranker on slates whose features are as old as they would have been when serving."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config, QinConfig
from pr2_jax.data.batches import (
    FOLDS,
    QinBatches,
    SlateReader,
    Slates,
    feed_slates,
    search_slates,
    training_sessions,
)
from pr2_jax.data.catalogue import DAY_MS, query_words
from pr2_jax.models.build import qin_task
from pr2_jax.ranking.features import FEATURES, RankingFeatures, Scaler, columns
from pr2_jax.retrieval import item_similarity, merge
from pr2_jax.search.system import SYSTEMS, System
from pr2_jax.stages.fit_scores import fit_scores
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.types import Requests

FEATURE_BLOCK = 512
"""Slates whose features are computed at a time."""


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `qin/`, `base/`, `scaler.npz` and what was fitted on the validation day into `out`."""
    system = System(workdir, config)
    cuts, size = system.store.cuts, config.qin.slate
    search = search_slates(system.store, training_sessions(system.store), size)
    search = with_sampled(system, search, config.qin.sampled_negatives, config.qin.optim.seed)
    feed = feed_slates(system.reader, 0, cuts.validation_ms, search.video_NxS.shape[1])
    paths = [out / "search_features.npy", out / "feed_features.npy"]
    search_features, feed_features = _cached(paths, system, [search, feed])
    real = search.video_NxS > 0
    scaler = Scaler.fit(search_features[real])
    scaler.save(out / "scaler.npz")
    scaled = (search, scaler(search_features)), (feed, scaler(feed_features))
    for name, part in (("qin", config.qin), ("base", config.base)):
        if not (out / name / "params").exists():
            _train_one(system, config, part, scaled, out / name)
    fit_scores(system, config, out, out)
    for path in paths:
        path.unlink()


def with_sampled(system: System, slates: Slates, count: int, seed: int) -> Slates:
    """Adds to each search slate `count` videos that fit the query but were not shown, as not clicked.

    Shown results were picked by another engine; a ranker that has only seen those cannot order what retrieval finds.
    Drawn without replacement from what the base channels retrieve for the query, as deep as the ranker will be asked.
    """
    queries, query_N = np.unique(slates.query_N, return_inverse=True)
    found_QxK = _retrieved(system, queries, system.config.evaluation.pipeline_candidates)
    depth = found_QxK.shape[1]
    rng = np.random.default_rng([seed, 3])
    pick_NxC = np.concatenate(
        [
            np.argsort(rng.random((len(rows), depth), np.float32), axis=1)[:, :count]
            for rows in np.array_split(query_N, max(1, len(query_N) // FEATURE_BLOCK))
        ]
    )
    video_NxC = np.maximum(found_QxK[query_N[:, None], pick_NxC], 0)
    shown = (video_NxC[:, :, None] == slates.video_NxS[:, None, :]).any(2)
    real = ~shown & (video_NxC > 0)
    extra = np.zeros((len(slates), count, 3), np.float32)
    weight = extra.copy()
    weight[..., 0] = real
    return dataclasses.replace(
        slates,
        video_NxS=np.concatenate([slates.video_NxS, np.where(real, video_NxC, 0)], 1).astype(np.int32),
        position_NxS=np.pad(slates.position_NxS, ((0, 0), (0, count)), constant_values=-1),
        label_NxSxT=np.concatenate([slates.label_NxSxT, extra], 1),
        weight_NxSxT=np.concatenate([slates.weight_NxSxT, weight], 1),
        impression_NxS=np.pad(slates.impression_NxS, ((0, 0), (0, count)), constant_values=-1),
    )


def _retrieved(system: System, queries_Q: np.ndarray, depth: int) -> np.ndarray:
    """What `base` retrieves for distinct queries of the log: video rows `[Q, depth]`, -1 = padding."""
    names, weights = SYSTEMS["base"][0], system.fitted["merge_weights"]["base"]
    channels, parts = system.channels(system.snapshot(system.store.cuts.validation_ms), exact=True), []
    starts = range(0, len(queries_Q), FEATURE_BLOCK)
    for start in console.progress(starts, "retrieve negatives", unit=" blocks"):
        words_BxQ = query_words(system.store, queries_Q[start : start + FEATURE_BLOCK], system.config.data)
        nobody_B = np.zeros(len(words_BxQ), np.int32)
        requests = Requests(nobody_B, nobody_B.astype(np.int64), words_BxQ)
        found = {name: channels[name].retrieve(requests, system.config.retrieval.depth) for name in names}
        parts.append(merge.merge(found, weights, depth, system.scorers(requests)).ids_BxK)
    return np.concatenate(parts)


def _train_one(system: System, config: Config, ranker: QinConfig, scaled: tuple, out: Path) -> None:
    out.mkdir(exist_ok=True)
    use = columns(ranker.personal)
    (search, search_features), (feed, feed_features) = scaled
    requests = SlateReader(system.reader, system.query_vectors_NqxD, ranker, config.data)
    batches = QinBatches(requests, search, search_features[..., use], feed, feed_features[..., use], ranker)
    task = qin_task(system.store, ranker, system.catalogue, np.asarray(system.space.videos_VxD), len(use))
    state = fit(task, batches, ranker.optim, steps=batches.steps, directory=out)
    save_params(out, (state.params, state.tables))


def _cached(paths: list[Path], system: System, parts: list[Slates]) -> list[np.ndarray]:
    """Features of all slates, kept beside the checkpoints until the stage is done: a resumed run reads them back."""
    if not all(path.exists() for path in paths):
        for path, features in zip(paths, features_by_day(system, parts), strict=True):
            artifacts.save_array(path, features)
    return [np.load(path, mmap_mode="r") for path in paths]


def features_by_day(system: System, parts: list[Slates]) -> list[np.ndarray]:
    """Raw features `[N, S, F]`.

    Item-to-item scores of a day come from a snapshot that ends before that day, content cosines from towers that have
    not seen that day's clicks (stages/content.py).
    """
    cuts = system.store.cuts
    compute = [system.features(system.held_out_space(fold)) for fold in range(FOLDS)]
    days = [(slates.time_ms_N - cuts.validation_ms) // DAY_MS for slates in parts]
    out = [np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32) for slates in parts]
    for day in console.progress(np.unique(np.concatenate(days)), "features by day", unit=" days"):
        as_of_ms = int(cuts.validation_ms + day * DAY_MS)
        similarity = system.similarity_as_of(as_of_ms)
        for slates, day_N, features in zip(parts, days, out, strict=True):
            rows = np.flatnonzero(day_N == day)
            for start in range(0, len(rows), FEATURE_BLOCK):
                part = rows[start : start + FEATURE_BLOCK]
                features[part] = slate_features(system, compute[day % FOLDS], slates, part, similarity)
    return out


def slate_features(
    system: System,
    compute: RankingFeatures,
    slates: Slates,
    rows: np.ndarray,
    similarity: item_similarity.ItemSimilarity,
) -> np.ndarray:
    """Raw features of some slates against one snapshot."""
    words = query_words(system.store, slates.query_N[rows], system.config.data)
    requests = Requests(slates.user_N[rows], slates.time_ms_N[rows], words)
    return compute(requests, slates.query_N[rows], slates.video_NxS[rows], similarity)
