"""Histories of users strictly before a moment, for N requests at once.

`window` and `latest` read events by when they began; `engaged_window`, `seen` and `known` read them by when their
outcome was known. Re-finding: which results a person had clicked before.
"""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.counters import Counters
from pr2_jax.data.store.log_store import EventIndex, LogStore


def history_end(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """int64 [N]: the end of each user's events strictly before the time, in the order of the store.

    The history is `[store.users.first_event[user], end)`, empty for the unknown user (row 0).
    """
    return _ends(store.events.time_ms, np.asarray(store.users.first_event), user_N, before_ms_N)


def known_end(index: EventIndex, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """As `history_end`, of events known strictly before the time, in the order of `index`."""
    return _ends(index.known_ms, index.first, user_N, before_ms_N)


def _ends(times_E: np.ndarray, first_U1: np.ndarray, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    user_N, before_ms_N = np.asarray(user_N, np.int64), np.asarray(before_ms_N, np.int64)
    low_N, high_N = first_U1[user_N].copy(), first_U1[user_N + 1].copy()
    while (open_N := low_N < high_N).any():  # bisection of all requests at once
        middle_N = (low_N + high_N) // 2
        earlier_N = np.zeros(len(low_N), bool)
        earlier_N[open_N] = times_E[middle_N[open_N]] < before_ms_N[open_N]
        low_N = np.where(open_N & earlier_N, middle_N + 1, low_N)
        high_N = np.where(open_N & ~earlier_N, middle_N, high_N)
    return low_N


def past_events(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """int64 [N]: number of events, of both surfaces, that each user had begun strictly before the time."""
    first_N, end_N = _begun(store, user_N, before_ms_N)
    return end_N - first_N


def latest(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(first, end) of each user's last n events strictly before the time, in the order of the store."""
    first_N, end_N = _begun(store, user_N, before_ms_N)
    return np.maximum(first_N, end_N - n), end_N


def known(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """As `latest`, of events whose outcome was known strictly before the time, in `store.outcome_index`."""
    first_N, end_N = _known(store.outcome_index, user_N, before_ms_N)
    return np.maximum(first_N, end_N - n), end_N


def laid_out(first_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """int64 [E]: the members of N ranges, one range after the other."""
    return np.arange(length_N.sum()) + np.repeat(first_N - (np.cumsum(length_N) - length_N), length_N)


def place_in_run(group_N: np.ndarray) -> np.ndarray:
    """int64 [N]: the place of each entry in its run of equal groups, from 0."""
    at_N = np.arange(len(group_N))
    opens_N = np.r_[True, group_N[1:] != group_N[:-1]][: len(group_N)]
    return at_N - np.maximum.accumulate(np.where(opens_N, at_N, 0))


def window(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> np.ndarray:
    """int64 [N, n]: the last n event rows, oldest first, padded in front with -1. Their outcomes may not be known."""
    return _last(*_begun(store, user_N, before_ms_N), n)


def engaged_window(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> np.ndarray:
    """As `window`, of events known by then to have a click, like, follow or forward; the latest known last."""
    index = store.engaged_index
    places_NxH = _last(*_known(index, user_N, before_ms_N), n)
    if not len(index.rows):
        return places_NxH
    return np.where(places_NxH < 0, -1, index.rows[places_NxH])


def seen(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> tuple[np.ndarray, ...]:
    """N sorted int32 arrays: the distinct videos that each user had clicked, in the feed or in a search."""
    index = store.clicked_index
    first_N, end_N = _known(index, user_N, before_ms_N)
    length_N = end_N - first_N
    request = np.repeat(np.arange(len(length_N)), length_N)
    videos = np.asarray(store.events.video)[index.rows[laid_out(first_N, length_N)]]
    pairs = np.unique(request * np.int64(store.counts.videos) + videos)
    cut = np.searchsorted(pairs, np.arange(1, len(length_N)) * np.int64(store.counts.videos))
    return tuple(np.split((pairs % store.counts.videos).astype(np.int32), cut)) if len(length_N) else ()


def _begun(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first_U1 = np.asarray(store.users.first_event)
    return first_U1[np.asarray(user_N, np.int64)], history_end(store, user_N, before_ms_N)


def _known(index: EventIndex, user_N: np.ndarray, before_ms_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return index.first[np.asarray(user_N, np.int64)], known_end(index, user_N, before_ms_N)


def _last(first_N: np.ndarray, end_N: np.ndarray, n: int) -> np.ndarray:
    places_NxH = end_N[:, None] - np.arange(n, 0, -1)[None, :]
    return np.where(places_NxH < first_N[:, None], -1, places_NxH)


def found_before_share(store: LogStore) -> float:
    """Share of re-findings among clicked results; 0 without a click."""
    clicked = np.flatnonzero(np.asarray(store.impressions.clicks) > 0)
    return float(found_before(store, clicked).mean()) if len(clicked) else 0.0


def found_before(store: LogStore, rows: np.ndarray | None = None) -> np.ndarray:
    """bool per impression, or per one of `rows`: had the person clicked the video strictly before the search?"""
    sessions = store.sessions
    rows = np.arange(len(store.impressions.video)) if rows is None else rows
    session = np.searchsorted(np.asarray(sessions.first_impression), rows, side="right") - 1
    user, time_ms = np.asarray(sessions.user)[session], np.asarray(sessions.time_ms)[session]
    return Counters(store).clicked_before(user, np.asarray(store.impressions.video)[rows], time_ms)
