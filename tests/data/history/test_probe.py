"""The leak probe finds planted leaks and lets honest features pass."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.history.histories import history_end, seen, window
from pr2_jax.data.history.labels import popularity
from pr2_jax.data.history.probe import LeakFound, Searches, probe, sample_sessions
from pr2_jax.data.store.log_store import LogStore


@pytest.fixture
def sessions(store) -> np.ndarray:
    return sample_sessions(store, 12, 0, store.cuts.test_ms, store.cuts.end_ms)


def honest(store: LogStore, searches: Searches) -> dict[str, np.ndarray]:
    rows = window(store, searches.user_N, searches.time_ms_N, 8)
    return {
        "history": np.where(rows >= 0, store.events.video[rows], -1),
        "seen": np.array([len(videos) for videos in seen(store, searches.user_N, searches.time_ms_N)]),
        "popularity": np.stack([popularity(store, int(time_ms)) for time_ms in searches.time_ms_N]),
        "query": searches.query_N,
    }


def leak_of_one_event(store: LogStore, searches: Searches) -> np.ndarray:
    """`<=` where `<` is right: sees the click of the very session."""
    return history_end(store, searches.user_N, searches.time_ms_N + 1) - store.users.first_event[searches.user_N]


def leak_of_the_end(store: LogStore, searches: Searches) -> np.ndarray:
    """Popularity counted over the whole log."""
    return np.tile(popularity(store, store.cuts.end_ms), (len(searches), 1))


def leak_of_the_batch(store: LogStore, searches: Searches) -> np.ndarray:
    """Standardised over the requests that happen to be asked together."""
    return searches.time_ms_N - searches.time_ms_N.mean()


def leak_of_own_session(store: LogStore, searches: Searches) -> np.ndarray:
    """How many sessions have this query, itself included."""
    return np.bincount(store.sessions.query, minlength=store.counts.queries)[searches.query_N]


def test_sample(store, sessions):
    assert len(sessions) == 12
    assert (store.sessions.time_ms[sessions] >= store.cuts.test_ms).all()
    assert (np.diff(sessions) > 0).all()
    np.testing.assert_array_equal(sessions, sample_sessions(store, 12, 0, store.cuts.test_ms, store.cuts.end_ms))
    everything = sample_sessions(store, 10**6, 0, store.cuts.test_ms, store.cuts.end_ms)
    assert len(everything) == (store.sessions.time_ms >= store.cuts.test_ms).sum()


def test_honest_features_pass(store, sessions):
    assert probe(store, sessions, honest) is None


@pytest.mark.parametrize("leak", [leak_of_one_event, leak_of_the_end, leak_of_the_batch, leak_of_own_session])
def test_planted_leak_is_caught(leak, store, sessions):
    with pytest.raises(LeakFound, match=r"^session \d+ at \d+ ms: feature 'planted' changes when the future is"):
        probe(store, sessions, lambda *request: honest(*request) | {"planted": leak(*request)})


def test_a_feature_that_comes_and_goes_is_caught(store, sessions):
    def moody(store: LogStore, searches: Searches) -> dict[str, np.ndarray]:
        return honest(store, searches) | ({"extra": searches.user_N} if len(searches) > 1 else {})

    with pytest.raises(LeakFound, match="feature extra exists only"):
        probe(store, sessions, moody)


def test_equal_nans_are_equal_bits(store, sessions):
    assert probe(store, sessions, lambda _, searches: {"unknown": np.full((len(searches), 2), np.nan)}) is None
