"""The leak probe over everything that a search is told: repeated with the future removed, it must not change a bit."""

from __future__ import annotations

import zlib

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.catalogue import query_words
from pr2_jax.data.histories import seen
from pr2_jax.data.labels import popularity
from pr2_jax.data.probe import Features, LeakFound, Searches, probe, sample_sessions
from pr2_jax.data.store import LogStore
from pr2_jax.retrieval import item_similarity
from pr2_jax.search.system import System
from pr2_jax.types import Requests

CANDIDATES = 20
"""Videos, drawn once, whose ranking features are compared."""


def probe_day(system: System, config: Config, day_ms: int) -> int:
    """Probes sampled searches of the day that begins at `day_ms`; returns how many. Raises LeakFound."""
    _probe_snapshot(system, config, day_ms)
    rng = np.random.default_rng(config.evaluation.seed)
    videos = rng.integers(1, system.store.counts.videos, CANDIDATES, dtype=np.int32)
    sessions = sample_sessions(system.store, config.evaluation.probe_sessions, config.evaluation.seed, day_ms)
    similarity = system.snapshot(day_ms).similarity

    def told(store: LogStore, searches: Searches) -> Features:
        """All that retrieval and ranking read about some searches."""
        view = system.over(store)
        words = query_words(store, searches.query_N, config.data)
        requests = Requests(searches.user_N, searches.time_ms_N, words)
        video_NxS = np.tile(videos, (len(searches), 1))
        engaged = view.reader.engaged(searches.user_N, searches.time_ms_N, config.retrieval.qrcf.history)
        recent = view.reader.recent(searches.user_N, searches.time_ms_N, config.qin.realtime)
        gone_N = [zlib.crc32(row.tobytes()) for row in seen(store, searches.user_N, searches.time_ms_N)]
        return {
            **engaged,
            **recent,
            "seen": np.array(gone_N, np.int64),
            "seeds": view.seeds(requests).strength_BxK,
            "ranking": view.features()(requests, searches.query_N, video_NxS, similarity),
        }

    probe(system.store, sessions, told)
    return len(sessions)


def _probe_snapshot(system: System, config: Config, day_ms: int) -> None:
    """The snapshot on disk must be what a log that ends before the day would have given."""
    past = system.store.truncated(day_ms)
    snapshot = system.snapshot(day_ms)
    refitted = item_similarity.fit(past, day_ms, config.retrieval.qrcf, np.asarray(system.space.videos_VxD))
    pairs = {
        "item-to-item neighbours": (refitted.neighbour_VxM, snapshot.similarity.neighbour_VxM),
        "item-to-item weights": (refitted.weight_VxM, snapshot.similarity.weight_VxM),
        "popularity": (popularity(past, day_ms), snapshot.popularity_V),
    }
    for name, (then, now) in pairs.items():
        if not np.array_equal(then, now):
            raise LeakFound(f"{name} of the snapshot of {day_ms} differ from those of a log that ends before that time")
