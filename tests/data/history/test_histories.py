"""Point-in-time reads against a loop over all events."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.history.histories import engaged_window, history_end, known, seen, window
from pr2_jax.data.store.log_store import LogStore


@pytest.fixture
def requests(store) -> tuple[np.ndarray, np.ndarray]:
    """Every session, when each event began and was known, one ms later, both ends of time; the unknown user too."""
    s, e = store.sessions, store.events
    moments = [e.time_ms, e.time_ms + 1, e.known_ms, np.minimum(e.known_ms, 2**62) + 1]
    users = np.concatenate([s.user, *[e.user] * 4, np.arange(13), np.arange(13)])
    far = np.full(13, 2**62)
    return users, np.concatenate([s.time_ms, *moments, np.zeros(13, np.int64), far])


def plain_history(store: LogStore, user: int, before_ms: int) -> list[int]:
    e = store.events
    return [row for row in range(store.counts.events) if user and e.user[row] == user and e.time_ms[row] < before_ms]


def plainly_known(store: LogStore, user: int, before_ms: int) -> list[int]:
    e = store.events
    past = [row for row in plain_history(store, user, before_ms) if e.known_ms[row] < before_ms]
    return sorted(past, key=lambda row: (e.known_ms[row], row))


def test_history_end(store, requests):
    got = history_end(store, *requests)
    assert got.dtype == np.int64
    for user, before_ms, end in zip(*requests, got, strict=True):
        assert list(range(store.users.first_event[user], end)) == plain_history(store, user, before_ms)


def test_an_event_at_the_moment_itself_is_not_seen(store):
    e = store.events
    rows = np.arange(store.counts.events)
    at, after = history_end(store, e.user, e.time_ms), history_end(store, e.user, e.time_ms + 1)
    assert (at <= rows).all()
    assert (after > rows).all()


@pytest.mark.parametrize("n", [1, 5, 64])
def test_windows(n, store, requests):
    e = store.events
    all_of, engaged_of = window(store, *requests, n), engaged_window(store, *requests, n)
    for place, (user, before_ms) in enumerate(zip(*requests, strict=True)):
        past, told = plain_history(store, user, before_ms), plainly_known(store, user, before_ms)
        active = [row for row in told if e.click[row] or e.like[row] or e.follow[row] or e.forward[row]]
        for got, want in ((all_of[place], past[-n:]), (engaged_of[place], active[-n:])):
            assert got.tolist() == [-1] * (n - len(want)) + want


@pytest.mark.parametrize("n", [1, 1_000])
def test_known(n, store, requests):
    """Of some views nothing is ever told: they are no part of it."""
    first, end = known(store, *requests, n)
    for user, before_ms, a, b in zip(*requests, first, end, strict=True):
        assert store.outcome_index.rows[a:b].tolist() == plainly_known(store, user, before_ms)[-n:]
    assert len(store.outcome_index.rows) < store.counts.events


def test_seen(store, requests):
    got = seen(store, *requests)
    assert len(got) == len(requests[0])
    for user, before_ms, videos in zip(*requests, got, strict=True):
        past = [row for row in plainly_known(store, user, before_ms) if store.events.click[row]]
        assert videos.tolist() == sorted({int(store.events.video[row]) for row in past})
        assert videos.dtype == np.int32
    assert seen(store, np.zeros(0, np.int32), np.zeros(0, np.int64)) == ()


def test_no_history_at_all(store):
    empty = store.truncated(0)
    users, times = np.arange(3), np.full(3, 2**62)
    assert (window(empty, users, times, 4) == -1).all()
    assert (engaged_window(empty, users, times, 4) == -1).all()
    assert [len(videos) for videos in seen(empty, users, times)] == [0, 0, 0]


def test_the_same_on_a_store_without_the_future(store):
    s = store.sessions
    for row in (10, 40, 79):
        user, before_ms = s.user[row : row + 1], s.time_ms[row : row + 1]
        cut = store.truncated(int(before_ms[0]))
        here, there = window(store, user, before_ms, 20), window(cut, user, before_ms, 20)
        videos = [np.where(rows >= 0, of.events.video[rows], -1) for rows, of in ((here, store), (there, cut))]
        np.testing.assert_array_equal(*videos)
