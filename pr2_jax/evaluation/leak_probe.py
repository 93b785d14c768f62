"""Leak probe: everything that a search reads is computed again without the future, and must not change a bit.

Searches of the judged day are probed as they are served, searches of a training day as the ranker is trained on them. A
leak into the latter does not spoil the judged day by itself, but the ranker would learn to trust what serving lacks.
"""

from __future__ import annotations

import zlib

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import day_start_ms, impressions_of, part_of, training_sessions
from pr2_jax.data.history.histories import seen
from pr2_jax.data.history.labels import popularity
from pr2_jax.data.history.probe import FeatureFn, Features, LeakFound, Past, Searches, probe, sample_sessions
from pr2_jax.data.history.video_attributes import query_words
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.ranking.query_map import QueryNumbers
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.system import System
from pr2_jax.types import Requests

CANDIDATES = 20
"""Random videos whose ranking features are compared, beside those that the sampled searches were shown."""


def probe_day(system: System, config: Config, day_ms: int, past: Past | None = None) -> int:
    """Probes sampled searches of the day that begins at `day_ms`; returns how many. Raises LeakFound.

    `past`: where the log without its future comes from, if not from the store itself.
    """
    return _probe(system, config, day_ms, system.fitted.snapshot(day_ms), past, training=False)


def probe_training(system: System, config: Config, past: Past | None = None) -> int:
    """As `probe_day`, of the middle training day with searches and of what the ranker is trained on."""
    store = system.store
    time_ms_N = np.asarray(store.sessions.time_ms)[training_sessions(store)]
    if not len(time_ms_N):
        return 0
    day_ms = int(day_start_ms(store, time_ms_N[len(time_ms_N) // 2]))
    snapshot = Snapshot(system.similarity_as_of(day_ms), popularity(store, day_ms))
    return _probe(system, config, day_ms, snapshot, past, training=True)


def _probe(system: System, config: Config, day_ms: int, snapshot: Snapshot, past: Past | None, training: bool) -> int:
    past = past or Past(system.store.truncated)
    if day_ms > past.first_ms:
        _probe_fitted(system, day_ms, snapshot, past.at(day_ms))
    evaluation, start_ms = config.evaluation, max(day_ms, past.first_ms + 1)
    sessions = sample_sessions(system.store, evaluation.probe_sessions, evaluation.seed, start_ms, day_ms + DAY_MS)
    if len(sessions):
        videos = _candidates(system, sessions, evaluation.seed)
        probe(system.store, sessions, _told(system, config, videos, snapshot.similarity, training), past)
    return len(sessions)


def _told(system: System, config: Config, videos: np.ndarray, similarity: ItemSimilarity, training: bool) -> FeatureFn:
    """Everything that retrieval and ranking read about some searches."""

    def told(store: LogStore, searches: Searches) -> Features:
        view = system.over(store)
        gone_N = [zlib.crc32(row.tobytes()) for row in seen(store, searches.user_N, searches.time_ms_N)]
        reader = view.log.reader  # the ranker's and PDR's histories are the latest of these
        engaged = reader.engaged(searches.user_N, searches.time_ms_N, config.retrieval.qrcf.history)
        recent = reader.recent(searches.user_N, searches.time_ms_N, config.qin.realtime)
        # Search by search: the last bit of a matrix product depends on how many rows are multiplied at once.
        rows: dict[str, list[np.ndarray]] = {"seeds": [], "preference": [], "ranking": [], "calibration": []}
        for place in range(len(searches)):
            one = searches.only(place)
            words = query_words(store, one.query_N, config.data)
            requests = Requests(one.user_N, one.time_ms_N, words, query_B=one.query_N)
            encoded = view.encode(requests)
            rows["seeds"].append(encoded.seeds.strength_BxK)
            rows["preference"].append(encoded.people.preference_NxD)
            if training:
                encoded = view.encode(requests, int(part_of(system.store, one.time_ms_N)[0]))
            rows["ranking"].append(view.features(encoded, videos[None], similarity))
            rows["calibration"].append(QueryNumbers(view.log.counters)(requests))
        joined = {name: np.concatenate(parts) for name, parts in rows.items()}
        return {**engaged, **recent, "seen": np.array(gone_N, np.int64), **joined}

    return told


def _candidates(system: System, sessions: np.ndarray, seed: int) -> np.ndarray:
    """Video rows: shown ones, on which a leak of the search's own clicks shows, and random ones."""
    shown, _ = impressions_of(system.store, sessions)
    drawn = np.random.default_rng(seed).integers(1, system.store.counts.videos, CANDIDATES)
    return np.unique(np.concatenate([np.asarray(system.store.impressions.video)[shown], drawn])).astype(np.int32)


def _probe_fitted(system: System, day_ms: int, snapshot: Snapshot, before: LogStore) -> None:
    """The artifacts in use on a day must be those that a log which ends before it gives."""
    refitted, similarity = system.over(before).similarity_as_of(day_ms), snapshot.similarity
    pairs = {
        "item-to-item neighbours": (refitted.neighbour_VxM, similarity.neighbour_VxM),
        "item-to-item weights": (refitted.weight_VxM, similarity.weight_VxM),
        "popularity": (popularity(before, day_ms), snapshot.popularity_V),
    }
    for name, (then, now) in pairs.items():
        if not np.array_equal(then, now):
            raise LeakFound(f"{name} of the snapshot of {day_ms} differ from those of a log that ends before that time")
