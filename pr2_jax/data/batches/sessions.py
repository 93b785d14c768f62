"""Sessions as rows of the store: their names, training folds and impressions."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.histories import laid_out, place_in_run
from pr2_jax.data.periods import FOLDS
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore


def session_names(store: LogStore) -> np.ndarray:
    """str [S]: the raw id of each session, or `ID-2`, `ID-3`, ... if earlier sessions have the same."""
    raw_S = np.asarray(store.sessions.raw_id)
    order_S = np.argsort(raw_S, kind="stable")
    times_S = np.empty(len(raw_S), np.int64)
    times_S[order_S] = place_in_run(raw_S[order_S]) + 1
    names = raw_S.astype(str).astype(object)
    again_S = times_S > 1
    names[again_S] = [f"{raw}-{n}" for raw, n in zip(raw_S[again_S], times_S[again_S], strict=True)]
    return names.astype(str)


def training_sessions(store: LogStore) -> np.ndarray:
    """Sessions before the validation cut, as rows."""
    return np.arange(np.searchsorted(store.sessions.time_ms, store.cuts.validation_ms))


PARTS = 3 * FOLDS
"""Parts of the training days for cross-fitting of quickly fitted models: finer folds. A short log has fewer."""


def day_start_ms(store: LogStore, time_ms_x: np.ndarray) -> np.ndarray:
    """The start of the day of each time. Days are counted from the validation cut, not by the calendar."""
    cut_ms = store.cuts.validation_ms
    return cut_ms + (time_ms_x - cut_ms) // DAY_MS * DAY_MS


def fold_of(store: LogStore, time_ms_N: np.ndarray) -> np.ndarray:
    """The fold, of `FOLDS`, of each time: periods that hold data are assigned in turn."""
    return store.periods(time_ms_N) % FOLDS


def part_of(store: LogStore, time_ms_N: np.ndarray) -> np.ndarray:
    """The part, of at most `PARTS`, of each time; part p lies in fold `p % FOLDS`."""
    return store.periods(time_ms_N) % PARTS


def training_parts(store: LogStore) -> np.ndarray:
    """The parts of the training days, ascending."""
    return np.unique(store.periods.number_P % PARTS)


def latest_days(store: LogStore, most: int) -> list[int]:
    """The starts of the last training days that hold searches, at most that many, ascending."""
    time_ms_N = np.asarray(store.sessions.time_ms)[training_sessions(store)]
    return np.unique(day_start_ms(store, time_ms_N))[-most:].tolist()


def evenly_spread(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def drawn_evenly(count: int, most: int, seed: int) -> np.ndarray:
    """A systematic sample: `most` of `count` rows, ascending, an even step apart; all where there are no more.

    The seed draws where the first lies, so that every row is as likely as any other.
    """
    if count <= most:
        return np.arange(count)
    first = np.random.default_rng([seed, 6]).random()
    return np.minimum(((np.arange(most) + first) * (count / most)).astype(np.int64), count - 1)


def impressions_of(store: LogStore, sessions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Impression rows of some sessions, and the index into `sessions_N` of each."""
    first = np.asarray(store.sessions.first_impression)
    length_N = first[sessions_N + 1] - first[sessions_N]
    return laid_out(first[sessions_N], length_N), np.repeat(np.arange(len(sessions_N)), length_N)
