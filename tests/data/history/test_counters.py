"""Counts at any moment against counting by hand, and blind to the future."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from pr2_jax.data.history.counters import Counters, TimedCounter, pair
from pr2_jax.data.store.log_store import LogStore

COUNTERS = [name for name, kind in vars(Counters).items() if isinstance(kind, functools.cached_property)]


@pytest.mark.parametrize("first_ms", [0, 1_684_737_000_000])
def test_strictly_before_by_brute_force(first_ms, rng):
    """Few keys and few times, so that most questions fall on an event's own moment; half the keys are unknown."""
    keys_E, times_E = rng.integers(0, 8, 60) * 3, first_ms + rng.integers(0, 10, 60)
    keys_N, times_M = np.arange(-1, 30)[:, None], first_ms + np.arange(-3, 14)[None, :]
    got = TimedCounter(keys_E, times_E).before(keys_N, times_M)
    want = ((keys_E == keys_N[..., None]) & (times_E < times_M[..., None])).sum(-1)
    assert got.dtype == np.int64
    assert np.array_equal(got, want)


@pytest.mark.parametrize("far_ms", [-(2**62), 0, 2**62])
def test_both_ends_of_time(far_ms):
    counter = TimedCounter(np.array([5, 5, 7]), np.array([1_684_737_000_000, 1_684_737_000_001, 1_684_737_000_002]))
    want = [2, 1, 0] if far_ms > 0 else [0, 0, 0]
    assert counter.before(np.array([5, 7, 6]), far_ms).tolist() == want


@pytest.mark.parametrize("stray_ms", [-(2**60), 2**60])
def test_a_stray_time_takes_nothing_from_the_others(stray_ms, rng):
    """Keys times span would not fit 64 bits."""
    keys_E, times_E = rng.integers(0, 40, 200), np.r_[stray_ms, rng.integers(100, 120, 199)]
    keys_N, times_M = np.arange(-1, 42)[:, None], np.r_[np.arange(98, 123), stray_ms, stray_ms + 1][None, :]
    want = ((keys_E == keys_N[..., None]) & (times_E < times_M[..., None])).sum(-1)
    assert np.array_equal(TimedCounter(keys_E, times_E).before(keys_N, times_M), want)


def test_no_events_at_all():
    counter = TimedCounter(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert counter.before(np.arange(6).reshape(2, 3), 5).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert TimedCounter([1], [1]).before(np.zeros((0, 2), int), 5).shape == (0, 2)


def test_clicked_before_is_what_the_counter_of_pairs_says(store):
    counters, events = Counters(store), store.events
    at = np.concatenate([np.arange(store.counts.events)] * 2)
    moved_ms = np.repeat([0, 1], store.counts.events)
    asked = np.asarray(events.user)[at], np.asarray(events.video)[at], np.asarray(events.time_ms)[at] + moved_ms
    want = counters.user_video_clicks.before(pair(*asked[:2]), asked[2]) > 0
    assert want.any()
    assert not want.all()
    np.testing.assert_array_equal(counters.clicked_before(*asked), want)
    nobody = np.zeros(0, np.int64)
    assert counters.clicked_before(nobody, nobody, nobody).shape == (0,)


def test_pairs_are_told_apart():
    first, second = np.meshgrid([0, 1, 2, 2**31 - 1], [0, 1, 2, 2**31 - 1])
    assert len(np.unique(pair(first, second))) == 16
    assert pair(np.int32(1), np.int32(0)) == 2**32


def events_by_hand(store: LogStore) -> dict[str, list[tuple[tuple, int]]]:
    """(key, time) of everything that each counter counts, row by row."""
    out: dict[str, list] = {name: [] for name in COUNTERS}
    e, s, i, v = store.events, store.sessions, store.impressions, store.videos
    for row in range(store.counts.events):
        user, video, time_ms = int(e.user[row]), int(e.video[row]), int(e.time_ms[row])
        out["user_video_views"].append(((user, video), time_ms))
        time_ms = int(e.known_ms[row])
        if e.click[row]:
            out["video_clicks"].append(((video,), time_ms))
            out["user_clicks"].append(((user,), time_ms))
            out["user_video_clicks"].append(((user, video), time_ms))
            out["user_author_clicks"].append(((user, int(v.author[video])), time_ms))
            categories = [int(category) for category in v.category[video] if category > 0]
            out["user_category_clicks"] += [((user, category), time_ms) for category in categories]
    for session in range(store.counts.sessions):
        query, time_ms = int(s.query[session]), int(s.time_ms[session])
        out["query_searches"].append(((query,), time_ms))
        shown = range(s.first_impression[session], s.first_impression[session + 1])
        out["query_shown"] += [((query,), time_ms) for _ in shown]
        out["query_clicks"] += [((query,), time_ms) for row in shown if i.clicks[row] > 0]
        for row in range(s.first_impression[session], s.first_impression[session + 1]):
            video = int(i.video[row])
            out["video_shown"].append(((video,), time_ms))
            if i.clicks[row] > 0:
                out["video_search_clicks"].append(((video,), time_ms))
                out["query_video_clicks"].append(((query, video), time_ms))
    return out


@pytest.mark.parametrize("name", COUNTERS)
def test_counter_counts_what_its_name_says(name, store):
    """Asked at each of its events' own moments, one ms later, and at the end of the log."""
    events, counter = events_by_hand(store)[name], getattr(Counters(store), name)
    keys = sorted({key for key, _ in events})
    assert keys
    times = [*sorted({time_ms for _, time_ms in events})[::7], store.cuts.end_ms]
    asked = np.array([pair(*key) if len(key) == 2 else key[0] for key in keys], np.int64)
    for time_ms in (at + late for at in times for late in (0, 1)):
        count = dict.fromkeys(keys, 0)
        for key, event_ms in events:
            count[key] += event_ms < time_ms
        assert counter.before(asked, time_ms).tolist() == list(count.values())


@pytest.mark.parametrize("name", COUNTERS)
def test_removing_the_future_changes_nothing(name, store):
    keys = np.unique([pair(*key) if len(key) == 2 else key[0] for key, _ in events_by_hand(store)[name]])
    for row in (3, 40, 79):
        time_ms = int(store.sessions.time_ms[row])
        whole, cut = (getattr(Counters(of), name) for of in (store, store.truncated(time_ms)))
        assert np.array_equal(whole.before(keys, time_ms), cut.before(keys, time_ms))
