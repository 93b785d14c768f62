"""Sessions as rows: which are for training, in which part of it, and what each showed."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.periods import FOLDS
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore


def session_names(store: LogStore) -> np.ndarray:
    """str [S], one name a session: its raw id, or `ID-2`, `ID-3`, ... where sessions before it have the same one."""
    raw_S = np.asarray(store.sessions.raw_id)
    order_S = np.argsort(raw_S, kind="stable")
    opens_S = np.r_[True, raw_S[order_S][1:] != raw_S[order_S][:-1]][: len(raw_S)]
    first = np.flatnonzero(opens_S)
    times_S = np.empty(len(raw_S), np.int64)
    times_S[order_S] = np.arange(len(raw_S)) - np.repeat(first, np.diff(np.r_[first, len(raw_S)])) + 1
    names = raw_S.astype(str).astype(object)
    again_S = times_S > 1
    names[again_S] = [f"{raw}-{n}" for raw, n in zip(raw_S[again_S], times_S[again_S], strict=True)]
    return names.astype(str)


def training_sessions(store: LogStore) -> np.ndarray:
    """Sessions before the validation cut, as rows."""
    return np.arange(np.searchsorted(store.sessions.time_ms, store.cuts.validation_ms))


PARTS = 3 * FOLDS
"""Shares of the training days for cross-fitting of what is quickly fitted: folds cut finer. A log with fewer training
days than that has fewer."""


def day_start_ms(store: LogStore, time_ms_x: np.ndarray) -> np.ndarray:
    """When the day of each time began. Days are counted from the cuts, not by the calendar."""
    cut_ms = store.cuts.validation_ms
    return cut_ms + (time_ms_x - cut_ms) // DAY_MS * DAY_MS


def period_of(store: LogStore, time_ms_N: np.ndarray) -> np.ndarray:
    """Number of the training period of each time, -1 = the last that holds data (data/periods.py)."""
    return store.periods(time_ms_N)


def fold_of(store: LogStore, time_ms_N: np.ndarray) -> np.ndarray:
    """Which of `FOLDS` folds each time belongs to: periods that hold data are dealt out in turn."""
    return period_of(store, time_ms_N) % FOLDS


def part_of(store: LogStore, time_ms_N: np.ndarray) -> np.ndarray:
    """Which of at most `PARTS` parts each time belongs to; part p lies in fold `p % FOLDS`."""
    return period_of(store, time_ms_N) % PARTS


def training_parts(store: LogStore) -> np.ndarray:
    """The parts that the training days have, ascending."""
    return np.unique(store.periods.number_P % PARTS)


def latest_days(store: LogStore, most: int) -> list[int]:
    """When the last training days that hold searches began, at most that many, the earliest first."""
    time_ms_N = np.asarray(store.sessions.time_ms)[training_sessions(store)]
    return np.unique(day_start_ms(store, time_ms_N))[-most:].tolist()


def evenly_spread(count: int, most: int) -> np.ndarray:
    """At most that many of `count` rows, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def impressions_of(store: LogStore, sessions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Impression rows of some sessions, and for each the index into `sessions_N`."""
    first = np.asarray(store.sessions.first_impression)
    length_N = first[sessions_N + 1] - first[sessions_N]
    owner = np.repeat(np.arange(len(sessions_N)), length_N)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(length_N) - length_N, length_N)
    return first[sessions_N][owner] + offset, owner
