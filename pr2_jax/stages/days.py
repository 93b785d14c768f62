"""The sessions of one day with what was clicked in them: the rows on which things are chosen or judged."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.sessions import evenly_spread, impressions_of
from pr2_jax.search.system import System
from pr2_jax.types import Requests


@dataclasses.dataclass(frozen=True)
class Day:
    """Sessions of [start_ms, stop_ms). Retrieval is judged on those with a click, ranking on all shown results."""

    start_ms: int
    stop_ms: int
    all_sessions: np.ndarray  # session rows
    sessions: np.ndarray  # those with a click
    clicked: list[np.ndarray]  # their clicked video rows, ascending
    query_N: np.ndarray  # their query rows
    requests: Requests  # them as searches; videos clicked before are withheld

    def sample(self, most: int) -> Day:
        """The day with at most that many of the sessions with a click, evenly spread."""
        kept = evenly_spread(len(self.sessions), most)
        return dataclasses.replace(
            self,
            sessions=self.sessions[kept],
            clicked=[self.clicked[at] for at in kept],
            query_N=self.query_N[kept],
            requests=self.requests.take(kept),
        )


def day_of(system: System, start_ms: int, stop_ms: int) -> Day:
    """Reads one day."""
    store = system.store
    first, last = np.searchsorted(store.sessions.time_ms, [start_ms, stop_ms])
    rows = np.arange(first, last)
    shown, owner = impressions_of(store, rows)
    hit = np.asarray(store.impressions.clicks)[shown] > 0
    pairs = np.unique(owner[hit] * np.int64(store.counts.videos) + np.asarray(store.impressions.video)[shown[hit]])
    session, video = np.divmod(pairs, store.counts.videos)
    with_click, start = np.unique(session, return_index=True)
    clicked = np.split(video.astype(np.int32), start[1:]) if len(with_click) else []
    kept = rows[with_click]
    query_N = np.asarray(store.sessions.query)[kept]
    return Day(start_ms, stop_ms, rows, kept, clicked, query_N, system.requests(kept))
