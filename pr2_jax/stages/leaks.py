"""The leak probe over everything that a search is told: repeated with the future removed, it must not change a bit."""

from __future__ import annotations

import zlib

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.batches import impressions_of
from pr2_jax.data.catalogue import query_words
from pr2_jax.data.histories import seen
from pr2_jax.data.labels import popularity
from pr2_jax.data.probe import Features, LeakFound, Searches, probe, sample_sessions
from pr2_jax.data.store import LogStore
from pr2_jax.search.system import System
from pr2_jax.types import Requests

CANDIDATES = 20
"""Random videos whose ranking features are compared, beside those that the sampled searches were shown."""


def probe_day(system: System, config: Config, day_ms: int) -> int:
    """Probes sampled searches of the day that begins at `day_ms`; returns how many. Raises LeakFound."""
    _probe_snapshot(system, day_ms)
    sessions = sample_sessions(system.store, config.evaluation.probe_sessions, config.evaluation.seed, day_ms)
    videos = _candidates(system, sessions, config.evaluation.seed)
    similarity = system.snapshot(day_ms).similarity

    def told(store: LogStore, searches: Searches) -> Features:
        """All that retrieval and ranking read about some searches."""
        view = system.over(store)
        engaged = view.reader.engaged(searches.user_N, searches.time_ms_N, config.retrieval.qrcf.history)
        recent = view.reader.recent(searches.user_N, searches.time_ms_N, config.qin.realtime)
        gone_N = [zlib.crc32(row.tobytes()) for row in seen(store, searches.user_N, searches.time_ms_N)]
        # Search by search: the last bit of a matrix product depends on how many rows are multiplied at once.
        seeds, ranking, compute = [], [], view.features()
        for place in range(len(searches)):
            one = searches.only(place)
            requests = Requests(one.user_N, one.time_ms_N, query_words(store, one.query_N, config.data))
            seeds.append(view.seeds(requests).strength_BxK)
            ranking.append(compute(requests, one.query_N, videos[None], similarity))
        return {
            **engaged,
            **recent,
            "seen": np.array(gone_N, np.int64),
            "seeds": np.concatenate(seeds),
            "ranking": np.concatenate(ranking),
        }

    if len(sessions):
        probe(system.store, sessions, told)
    return len(sessions)


def _candidates(system: System, sessions: np.ndarray, seed: int) -> np.ndarray:
    """Video rows: a count that includes a search's own clicks shows on what it was shown, hardly on random videos."""
    shown, _ = impressions_of(system.store, sessions)
    drawn = np.random.default_rng(seed).integers(1, system.store.counts.videos, CANDIDATES)
    return np.unique(np.concatenate([np.asarray(system.store.impressions.video)[shown], drawn])).astype(np.int32)


def _probe_snapshot(system: System, day_ms: int) -> None:
    """The snapshot on disk must be what a log that ends before the day would have given."""
    past = system.store.truncated(day_ms)
    snapshot = system.snapshot(day_ms)
    refitted = system.over(past).similarity_as_of(day_ms)
    pairs = {
        "item-to-item neighbours": (refitted.neighbour_VxM, snapshot.similarity.neighbour_VxM),
        "item-to-item weights": (refitted.weight_VxM, snapshot.similarity.weight_VxM),
        "popularity": (popularity(past, day_ms), snapshot.popularity_V),
    }
    for name, (then, now) in pairs.items():
        if not np.array_equal(then, now):
            raise LeakFound(f"{name} of the snapshot of {day_ms} differ from those of a log that ends before that time")
