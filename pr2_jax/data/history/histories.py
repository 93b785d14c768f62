"""What a user had done strictly before a moment. Vectorised over N requests; nothing at or after it is ever seen.

Two questions, two orders: what had been begun (`window`, by when each view began) and what had come of it by then
(`engaged_window`, `seen`, `known`, by when each outcome was known).
"""

from __future__ import annotations

import numpy as np

from pr2_jax.data.store.log_store import EventIndex, LogStore


def history_end(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """int64 [N]: where, in the global order of events, each user's events strictly before the time end.

    The history is `[store.users.first_event[user], end)`. The unknown user (row 0) has none.
    """
    return _ends(store.events.time_ms, np.asarray(store.users.first_event), user_N, before_ms_N)


def known_end(index: EventIndex, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """int64 [N]: where, in the index, what was known of each user strictly before the time ends.

    It is `[index.first[user], end)`. Of the unknown user (row 0) nothing is known.
    """
    return _ends(index.known_ms, index.first, user_N, before_ms_N)


def _ends(times_E: np.ndarray, first_U1: np.ndarray, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    user_N, before_ms_N = np.asarray(user_N, np.int64), np.asarray(before_ms_N, np.int64)
    low_N, high_N = first_U1[user_N].copy(), first_U1[user_N + 1].copy()
    while (open_N := low_N < high_N).any():  # bisection of all requests at once: log2(longest history) rounds
        middle_N = (low_N + high_N) // 2
        earlier_N = np.zeros(len(low_N), bool)
        earlier_N[open_N] = times_E[middle_N[open_N]] < before_ms_N[open_N]
        low_N = np.where(open_N & earlier_N, middle_N + 1, low_N)
        high_N = np.where(open_N & ~earlier_N, middle_N, high_N)
    return low_N


def past_events(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> np.ndarray:
    """int64 [N]: how many events each user had begun strictly before the time, in both surfaces."""
    return history_end(store, user_N, before_ms_N) - np.asarray(store.users.first_event)[np.asarray(user_N, np.int64)]


def latest(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the last n events of each user strictly before the time begin and end, in the global order of events."""
    end_N = history_end(store, user_N, before_ms_N)
    return np.maximum(np.asarray(store.users.first_event)[np.asarray(user_N, np.int64)], end_N - n), end_N


def known(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the last n events of each user whose outcome was known strictly before the time begin and end, in the order
    of `store.outcome_index`."""
    index = store.outcome_index
    end_N = known_end(index, user_N, before_ms_N)
    return np.maximum(index.first[np.asarray(user_N, np.int64)], end_N - n), end_N


def laid_out(first_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """int64 [E]: the places of N ranges end to end."""
    return np.arange(length_N.sum()) + np.repeat(first_N - (np.cumsum(length_N) - length_N), length_N)


def window(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> np.ndarray:
    """int64 [N, n]: the last n event rows, oldest first, padded in front with -1. What came of the latest may not have
    been known."""
    end_N = history_end(store, user_N, before_ms_N)
    first_N = np.asarray(store.users.first_event)[np.asarray(user_N, np.int64)]
    return _last(first_N, end_N, n)


def engaged_window(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray, n: int) -> np.ndarray:
    """As `window`, of events known by then to be engaged, the latest known last: a click, like, follow or forward."""
    index = store.engaged_index
    places_NxH = _last(*_bounds(index, user_N, before_ms_N), n)
    if not len(index.rows):
        return places_NxH
    return np.where(places_NxH < 0, -1, index.rows[places_NxH])


def seen(store: LogStore, user_N: np.ndarray, before_ms_N: np.ndarray) -> tuple[np.ndarray, ...]:
    """N sorted int32 arrays: the distinct videos that each user had clicked, in the feed or in a search."""
    index = store.clicked_index
    first_N, end_N = _bounds(index, user_N, before_ms_N)
    length_N = end_N - first_N
    request = np.repeat(np.arange(len(length_N)), length_N)
    videos = np.asarray(store.events.video)[index.rows[laid_out(first_N, length_N)]]
    pairs = np.unique(request * np.int64(store.counts.videos) + videos)
    cut = np.searchsorted(pairs, np.arange(1, len(length_N)) * np.int64(store.counts.videos))
    return tuple(np.split((pairs % store.counts.videos).astype(np.int32), cut)) if len(length_N) else ()


def _bounds(index: EventIndex, user_N: np.ndarray, before_ms_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where what was known of each user begins and ends, in the index."""
    return index.first[np.asarray(user_N, np.int64)], known_end(index, user_N, before_ms_N)


def _last(first_N: np.ndarray, end_N: np.ndarray, n: int) -> np.ndarray:
    places_NxH = end_N[:, None] - np.arange(n, 0, -1)[None, :]
    return np.where(places_NxH < first_N[:, None], -1, places_NxH)
