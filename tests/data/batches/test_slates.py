"""Slates hold each shown result once, with the labels that are known, and never mix people or days."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.batches.sessions import fold_of, impressions_of, training_sessions
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.columns import CLICK, EVERYTHING, FOLLOW, FORWARD, LIKE, PLAY
from pr2_jax.data.history.labels import LongPlay

DATA = DataConfig()


@pytest.mark.parametrize("size", [1, 4, 6, 10])
def test_search_slates_hold_each_result_once(size, store):
    sessions = training_sessions(store)
    assert (store.sessions.time_ms[sessions] < store.cuts.validation_ms).all()
    assert len(sessions) == (store.sessions.time_ms < store.cuts.validation_ms).sum()
    slates = search_slates(store, sessions, size)
    rows, owner = impressions_of(store, sessions)
    real = slates.impression_NxS >= 0
    assert np.array_equal(slates.impression_NxS[real], rows)
    first = slates.impression_NxS[:, 0]
    assert np.array_equal(slates.time_ms_N, store.sessions.time_ms[sessions[owner[np.searchsorted(rows, first)]]])
    assert not slates.is_feed_N.any()
    assert np.array_equal(slates.session_N, sessions[owner[np.searchsorted(rows, first)]])
    i = store.impressions
    assert np.array_equal(slates.video_NxS[real], i.video[rows])
    assert np.array_equal(slates.position_NxS[real], i.position[rows])
    assert np.array_equal(slates.label_NxSxY[real], np.stack([i.clicks[rows] > 0, *[rows < 0] * 4], 1))
    assert np.array_equal(slates.told_NxSxY, np.stack([real, *[real & False] * 4], -1))
    assert not slates.video_NxS[~real].any()
    assert not slates.label_NxSxY[~real].any()
    assert (slates.position_NxS[~real] == -1).all()


@pytest.mark.parametrize("size", [1, 4, 7])
def test_feed_slates_hold_each_view_once(size, store, reader, rng):
    e = store.events
    silent = rng.choice(np.array([0, FOLLOW, FORWARD], np.uint8), len(e.told))  # this log always tells both
    e = dataclasses.replace(e, told=e.told & ~silent)
    reader = dataclasses.replace(reader, store=dataclasses.replace(store, events=e))
    times = np.sort(e.time_ms[e.surface == 0])
    start_ms, stop_ms = int(times[20]), int(times[-60])  # a view on either edge
    slates = feed_slates(reader, start_ms, stop_ms, size)
    rows = np.flatnonzero((e.surface == 0) & (e.time_ms >= start_ms) & (e.known_ms < stop_ms))
    real = slates.impression_NxS >= 0
    assert np.array_equal(slates.impression_NxS[real], rows)
    assert (np.where(real, e.user[slates.impression_NxS], slates.user_N[:, None]) == slates.user_N[:, None]).all()
    assert np.array_equal(slates.time_ms_N, e.time_ms[slates.impression_NxS[:, 0]])
    assert (slates.session_N == -1).all()
    day_N = (slates.time_ms_N - store.cuts.validation_ms) // 86_400_000
    day_NxS = (e.time_ms[slates.impression_NxS] - store.cuts.validation_ms) // 86_400_000
    assert (day_NxS == day_N[:, None])[real].all()
    fold_NxS = fold_of(store, e.time_ms[slates.impression_NxS])
    assert (fold_NxS == fold_of(store, slates.time_ms_N)[:, None])[real].all()
    # As few slates as that allows.
    day, part = (e.time_ms[rows] - store.cuts.validation_ms) // 86_400_000, store.periods(e.time_ms[rows])
    views_of = np.unique(np.stack([e.user[rows], day, part]), axis=1, return_counts=True)[1]
    assert len(slates) == (-(-views_of // size)).sum()
    long_play = reader.long_play.label(e.play_ms[rows], e.duration_ms[rows])
    labels = [e.click[rows], long_play, e.like[rows], e.follow[rows], e.forward[rows]]
    assert np.array_equal(slates.label_NxSxY[real], np.stack(labels, 1))
    told = np.stack([(e.told[rows] & bit) > 0 for bit in (CLICK, PLAY, LIKE, FOLLOW, FORWARD)], 1)
    assert np.array_equal(slates.told_NxSxY[real], told)
    assert told.any(0).all()
    assert not told[:, :3].all(0).any()
    assert not slates.told_NxSxY[~real].any()
    assert slates.is_feed_N.all()
    assert not slates.query_N.any()
    assert (slates.position_NxS == -1).all()
    assert not slates.label_NxSxY[~real].any()


def test_no_sessions_and_no_views(store, reader):
    assert len(search_slates(store, np.zeros(0, np.int64), 5)) == 0
    assert len(feed_slates(reader, 0, 0, 5)) == 0


def test_outcomes_of_results_are_labels(store):
    """Long play and like of shown results, where the log tells them and they were known in time."""
    i, count = store.impressions, len(store.impressions.video)
    told = np.resize(np.array([CLICK, CLICK | PLAY, CLICK | LIKE, EVERYTHING], np.uint8), count)
    play = np.where(told & PLAY, 50_000, 0).astype(np.int64)
    like = np.resize(np.array([True, False]), count)
    outcomes = {"play_ms": play, "duration_ms": play // 2, "like": like, "follow": like, "forward": like, "told": told}
    known = dataclasses.replace(store, impressions=dataclasses.replace(i, **outcomes))
    sessions = np.arange(20)
    long_play = LongPlay(np.array([20_000]), np.array([np.inf, 40_000.0]))
    plain, slates = search_slates(known, sessions, 6), search_slates(known, sessions, 6, long_play)
    at, real = slates.impression_NxS, slates.impression_NxS >= 0
    bits = {"click": CLICK, "long_play": PLAY, "like": LIKE, "follow": FOLLOW, "forward": FORWARD}
    for label, bit in bits.items():
        np.testing.assert_array_equal(slates.told(label)[real], told[at[real]] & bit > 0)
    np.testing.assert_array_equal(slates.label("long_play")[real], play[at[real]] > 40_000)
    for label in ("like", "follow", "forward"):
        np.testing.assert_array_equal(slates.label(label)[real], like[at[real]])
    assert not plain.told("long_play").any()  # nobody says what a long play is
    cut = int(slates.time_ms_N[-1]) + 50_000
    late = search_slates(known, sessions, 6, long_play, cut)
    played = (told[at] & PLAY > 0) & real
    np.testing.assert_array_equal(late.told("long_play"), played & (slates.time_ms_N[:, None] + 50_000 < cut))
