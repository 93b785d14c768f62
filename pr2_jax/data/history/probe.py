"""Leak probe: a request's features must be the same bits when the future is removed from the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import Pr2Error


class LeakFound(Pr2Error):
    """A feature of a search depends on its future."""


@dataclasses.dataclass(frozen=True)
class Searches:
    """N searches by what was known when they began. Unlike session rows, they survive the removal of the future."""

    user_N: np.ndarray  # int32
    query_N: np.ndarray  # int32 rows of store.queries
    time_ms_N: np.ndarray  # int64
    source_N: np.ndarray  # int32

    def __len__(self) -> int:
        return len(self.user_N)

    @staticmethod
    def of(store: LogStore, sessions: np.ndarray) -> Searches:
        s, rows = store.sessions, np.asarray(sessions)
        return Searches(s.user[rows], s.query[rows], s.time_ms[rows], s.source[rows])

    def only(self, place: int) -> Searches:
        """One of them, with a leading axis."""
        return Searches(*(column[place : place + 1] for column in vars(self).values()))


Features = Mapping[str, np.ndarray]
FeatureFn = Callable[[LogStore, Searches], Features]
"""Named arrays with a row per search."""


@dataclasses.dataclass(frozen=True)
class Past:
    """A log without its future: `store.truncated`, or a store from cut raw files (evaluation/raw_leak_probe.py)."""

    at: Callable[[int], LogStore]  # the log strictly before a time
    first_ms: int = 0  # the log is empty up to then


def sample_sessions(store: LogStore, count: int, seed: int, start_ms: int, stop_ms: int) -> np.ndarray:
    """At most `count` session rows of [start_ms, stop_ms), ascending, drawn without replacement."""
    first, stop = np.searchsorted(store.sessions.time_ms, [start_ms, stop_ms])
    drawn = np.random.default_rng(seed).permutation(stop - first)[:count]
    return np.sort(first + drawn)


def probe(store: LogStore, sessions: np.ndarray, feature_fn: FeatureFn, past: Past | None = None) -> None:
    """Compares the features of sessions with and without the future, bit for bit.

    On the whole log all sessions are one batch. On the past (default: `store.truncated`) each is alone, which also
    finds features that depend on the rest of a batch. LeakFound names the session and the feature.
    """
    past = past or Past(store.truncated)
    searches = Searches.of(store, sessions)
    whole = feature_fn(store, searches)
    for place, session in enumerate(np.asarray(sessions).tolist()):
        before_ms = int(searches.time_ms_N[place])
        alone = feature_fn(past.at(before_ms), searches.only(place))
        if whole.keys() != alone.keys():
            names = ", ".join(sorted(whole.keys() ^ alone.keys()))
            raise LeakFound(f"{_named(store, session)}: feature {names} exists only with or only without the future")
        for name, value in whole.items():
            _compare(_named(store, session), name, np.asarray(value)[place], np.asarray(alone[name])[0])


def _compare(session: str, name: str, whole: np.ndarray, alone: np.ndarray) -> None:
    if whole.shape != alone.shape or whole.dtype != alone.dtype:
        raise LeakFound(
            f"{session}: feature {name!r} is {whole.dtype}{list(whole.shape)} on the whole log but "
            f"{alone.dtype}{list(alone.shape)} without the future"
        )
    if whole.tobytes() == alone.tobytes():
        return
    bits = np.atleast_1d(whole) != np.atleast_1d(alone)
    place = tuple(int(i) for i in np.argwhere(bits)[0]) if bits.any() else (0,) * max(whole.ndim, 1)
    raise LeakFound(
        f"{session}: feature {name!r} changes when the future is removed, first at {list(place)}: "
        f"{np.atleast_1d(whole)[place]} with it, {np.atleast_1d(alone)[place]} without"
    )


def _named(store: LogStore, session: int) -> str:
    return f"session {store.sessions.raw_id[session]} at {store.sessions.time_ms[session]} ms"
