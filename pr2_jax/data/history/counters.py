"""Point-in-time counters: how often was a video clicked before a request?

A nightly table of counts would be stale for some rows and leak into others. A counter here sorts its events by (key,
time) and answers for any time by binary search, in O(log E).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pr2_jax.data.outcomes import clicked_ms
from pr2_jax.data.store.log_store import LogStore

STAMPS = 1 << 62
"""Greatest number of distinct (key, time) stamps."""


class TimedCounter:
    """Number of events with a key strictly before a time."""

    def __init__(self, keys_E: np.ndarray, times_E: np.ndarray) -> None:
        """Keys are non-negative int64, times ms, in any order."""
        keys_E, times_E = np.asarray(keys_E, np.int64), np.asarray(times_E, np.int64)
        self._keys, slot_E = np.unique(keys_E, return_inverse=True)
        self._origin = int(times_E.min()) if len(times_E) else 0
        self._span = int(times_E.max()) - self._origin + 2 if len(times_E) else 2
        self._moments: np.ndarray | None = None
        if self._span > STAMPS // max(len(self._keys), 1):  # a stray time decades away: number the moments instead
            self._moments = np.unique(times_E)
            self._span = len(self._moments) + 1
        self._stamp = np.sort(slot_E * self._span + self._since(times_E))
        self._first = np.searchsorted(self._stamp, np.arange(len(self._keys)) * self._span)

    def before(self, keys_x: np.ndarray, times_x: np.ndarray) -> np.ndarray:
        """Counts, of the shape that keys and times broadcast to, as int64."""
        keys_x, times_x = np.asarray(keys_x, np.int64), np.asarray(times_x, np.int64)
        if not len(self._keys):
            return np.zeros(np.broadcast_shapes(keys_x.shape, times_x.shape), np.int64)
        slot_x = np.minimum(np.searchsorted(self._keys, keys_x), len(self._keys) - 1)
        found_x = self._keys[slot_x] == keys_x
        last_x = np.searchsorted(self._stamp, slot_x * self._span + self._since(times_x))
        return np.where(found_x, last_x - self._first[slot_x], 0)

    def _since(self, times_x: np.ndarray) -> np.ndarray:
        """Times as numbers in [0, span), in the same order; equal only if no event lies between."""
        if self._moments is not None:
            return np.searchsorted(self._moments, times_x)
        return np.clip(times_x - self._origin, 0, self._span - 1)


def pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One int64 key of two int32 rows."""
    return np.asarray(first, np.int64) << 32 | np.asarray(second, np.int64)


class Counters:
    """Counters for ranking features, each built on first use. A key of two rows is `pair(first, second)`.

    Clicks are of both surfaces unless the name says search, and count from when they were known; views and results
    count from when they began.
    """

    def __init__(self, store: LogStore) -> None:
        self.store = store
        events = store.events
        self._clicked = np.flatnonzero(np.asarray(events.click))
        self._user = np.asarray(events.user)[self._clicked]
        self._video = np.asarray(events.video)[self._clicked]
        self._time = clicked_ms(events, self._clicked)
        impressions_S = np.diff(np.asarray(store.sessions.first_impression))
        self._session = np.repeat(np.arange(len(impressions_S)), impressions_S)

    def clicked_before(self, user_N: np.ndarray, video_N: np.ndarray, times_N: np.ndarray) -> np.ndarray:
        """bool [N]: had the user clicked the video strictly before the time?

        As `user_video_clicks.before(...) > 0`, but sorts only the pairs in question."""
        pairs, at_N = np.unique(pair(user_N, video_N), return_inverse=True)
        if not len(pairs):
            return np.zeros(0, bool)
        keys_E = pair(self._user, self._video)
        slot_E = np.minimum(np.searchsorted(pairs, keys_E), len(pairs) - 1)
        mine_E = pairs[slot_E] == keys_E
        first_A = np.full(len(pairs), np.iinfo(np.int64).max)
        np.minimum.at(first_A, slot_E[mine_E], self._time[mine_E])
        return first_A[at_N] < times_N

    video_clicks = cached_property(lambda self: TimedCounter(self._video, self._time))
    video_search_clicks = cached_property(lambda self: self._of_results("video", clicked=True))
    video_shown = cached_property(lambda self: self._of_results("video"))  # as a search result
    query_video_clicks = cached_property(lambda self: self._of_results("both", clicked=True))
    query_shown = cached_property(lambda self: self._of_results("query"))
    query_clicks = cached_property(lambda self: self._of_results("query", clicked=True))
    user_clicks = cached_property(lambda self: TimedCounter(self._user, self._time))
    user_video_clicks = cached_property(lambda self: TimedCounter(pair(self._user, self._video), self._time))

    def _of_results(self, key: str, clicked: bool = False) -> TimedCounter:
        sessions, shown = self.store.sessions, self.store.impressions
        rows = np.asarray(shown.clicks) > 0 if clicked else slice(None)
        session, video = self._session[rows], np.asarray(shown.video)[rows]
        query = np.asarray(sessions.query)[session]
        keys = {"query": query, "video": video, "both": pair(query, video)}[key]
        return TimedCounter(keys, np.asarray(sessions.time_ms)[session])

    @cached_property
    def query_searches(self) -> TimedCounter:
        sessions = self.store.sessions
        return TimedCounter(sessions.query, sessions.time_ms)

    @cached_property
    def user_video_views(self) -> TimedCounter:
        """Events, clicked or not."""
        events = self.store.events
        return TimedCounter(pair(events.user, events.video), events.time_ms)

    @cached_property
    def user_author_clicks(self) -> TimedCounter:
        return TimedCounter(pair(self._user, np.asarray(self.store.videos.author)[self._video]), self._time)

    @cached_property
    def user_category_clicks(self) -> TimedCounter:
        """Categories of all levels."""
        category_ExL = np.asarray(self.store.videos.category)[self._video]
        event_N, level_N = np.nonzero(category_ExL > 0)
        return TimedCounter(pair(self._user[event_N], category_ExL[event_N, level_N]), self._time[event_N])
