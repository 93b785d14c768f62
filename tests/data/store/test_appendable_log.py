"""A log that grew day by day is the log that was read at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import FEED_SURFACE, Queries
from pr2_jax.data.history.counters import Counters
from pr2_jax.data.history.histories import seen
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.store.appendable_log import AppendableLog, NewSearches, NewViews
from pr2_jax.data.store.log_store import LogStore


@pytest.fixture
def whole(tiny_dir) -> LogStore:
    return LogStore.from_tables(read_log(tiny_dir, DataConfig()))


def first_days(whole: LogStore, before_ms: int) -> LogStore:
    """As if the log had ended then: also without queries that were asked later only."""
    past, q = whole.truncated(before_ms), whole.queries
    asked = int(past.sessions.query.max(initial=0)) + 1
    queries = Queries(q.first_word[: asked + 1], q.words[: q.first_word[asked]])
    return dataclasses.replace(past, queries=queries, counts=dataclasses.replace(past.counts, queries=asked))


def day_of(whole: LogStore, start_ms: int, stop_ms: int) -> tuple[NewViews, NewSearches]:
    """What the log holds of some time, as a platform would hand it over."""
    e, s, i, q = whole.events, whole.sessions, whole.impressions, whole.queries
    rows = np.flatnonzero((e.time_ms >= start_ms) & (e.time_ms < stop_ms) & (e.surface == FEED_SURFACE))
    rows = rows[np.argsort(e.time_ms[rows], kind="stable")]
    names = ("user", "video", "time_ms", "click", "like", "follow", "forward", "play_ms", "duration_ms")
    views = NewViews(*(getattr(e, name)[rows] for name in names))
    sessions = np.flatnonzero((s.time_ms >= start_ms) & (s.time_ms < stop_ms))
    slate = int(i.position.max()) + 1
    shown, clicks = np.zeros((len(sessions), slate), np.int32), np.zeros((len(sessions), slate), np.int32)
    for row, session in enumerate(sessions):
        cut = slice(s.first_impression[session], s.first_impression[session + 1])
        shown[row, i.position[cut]], clicks[row, i.position[cut]] = i.video[cut], i.clicks[cut]
    words = [q.words[q.first_word[n] : q.first_word[n + 1]] for n in s.query[sessions]]
    known = (s.raw_id[sessions], s.user[sessions], words, s.time_ms[sessions], s.source[sessions])
    return views, NewSearches(*known, shown, clicks)


def columns(store: LogStore) -> dict[str, np.ndarray]:
    groups = ("users", "queries", "events", "sessions", "impressions")
    return {
        f"{group}.{name}": np.asarray(value)
        for group in groups
        for name, value in vars(getattr(store, group)).items()
        if isinstance(value, np.ndarray)
    }


def test_grown_by_days_is_read_at_once(whole):
    cuts = whole.cuts
    log = AppendableLog(first_days(whole, cuts.validation_ms))
    for start_ms, stop_ms in ((cuts.validation_ms, cuts.test_ms), (cuts.test_ms, 2 * cuts.end_ms)):
        log.add(*day_of(whole, start_ms, stop_ms))  # the feed may go on after the last search day
    grown = log.store()
    got, want = columns(grown), columns(whole)
    assert len(want["sessions.user"]) > len(first_days(whole, cuts.validation_ms).sessions.user)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        assert got[name].dtype == want[name].dtype, name
    assert grown.counts == whole.counts
    assert grown.cuts == whole.cuts


def test_nothing_added_changes_nothing(whole):
    same = AppendableLog(whole).store()
    for name, column in columns(whole).items():
        np.testing.assert_array_equal(columns(same)[name], column)


def test_today_s_views_are_known_before_today_s_searches(whole):
    """Views so far are seen by histories and counters, and are not kept for tomorrow."""
    cuts = whole.cuts
    log = AppendableLog(first_days(whole, cuts.test_ms))
    views, searches = day_of(whole, cuts.test_ms, cuts.end_ms)
    today = log.store(views, end_ms=cuts.end_ms)
    assert today.counts.events == whole.truncated(cuts.test_ms).counts.events + len(views.user_N)
    assert today.counts.sessions == whole.truncated(cuts.test_ms).counts.sessions
    users = np.arange(1, whole.counts.users)
    ends = np.full(len(users), cuts.end_ms)
    clicked = {(u, v) for u, v, c in zip(views.user_N, views.video_N, views.click_N, strict=True) if c}
    had = seen(first_days(whole, cuts.test_ms), users, ends)
    for user, videos, before in zip(users, seen(today, users, ends), had, strict=True):
        assert set(videos.tolist()) == set(before.tolist()) | {int(v) for u, v in clicked if u == user}
    assert log.store().counts.events == whole.truncated(cuts.test_ms).counts.events
    log.add(views, searches)
    later = Counters(log.store()).video_shown.before(np.arange(whole.counts.videos), np.int64(cuts.end_ms))
    want = Counters(whole).video_shown.before(np.arange(whole.counts.videos), np.int64(cuts.end_ms))
    np.testing.assert_array_equal(later, want)


def test_views_handed_out_at_once_are_watched_in_turn(whole):
    """As ingest dates them (data/outcomes.py)."""
    log, end_ms = AppendableLog(whole), int(whole.events.known_ms.max()) + 1
    user, batch = np.array([1, 1, 2, 1, 1]), np.array([0, 0, 0, 0, 500]) + end_ms
    play, duration = np.array([100, 0, 30, 50, 10]), np.array([200, 90, 0, 10, 10])
    flags = [np.array([True, False, True, True, False])] * 4
    today = log.store(NewViews(user, np.arange(1, 6), batch, *flags, play, duration)).events
    late = np.flatnonzero(today.time_ms >= end_ms)
    assert today.video[late].tolist() == [1, 2, 4, 5, 3]
    assert (today.time_ms[late] - end_ms).tolist() == [0, 100, 100, 500, 0]
    assert (today.known_ms[late] - end_ms).tolist() == [100, 100, 150, 510, 30]
    assert today.told[late].tolist() == [31, 31, 31, 31, 30]


@pytest.mark.parametrize("given", [True, False])
def test_outcomes_of_results_grow_where_the_log_has_them(whole, given):
    shown = len(whole.impressions.video)
    columns = {"play_ms": 7, "duration_ms": 9, "like": True, "follow": False, "forward": False, "told": 31}
    kinds = {"play_ms": np.int64, "duration_ms": np.int64, "told": np.uint8}
    told = {name: np.full(shown, value, kinds.get(name, bool)) for name, value in columns.items()}
    base = dataclasses.replace(whole, impressions=dataclasses.replace(whole.impressions, **told))
    _, searches = day_of(whole, whole.cuts.test_ms, whole.cuts.end_ms)
    if given:
        outcomes = {name: np.full(searches.shown_BxS.shape, value) for name, value in columns.items()}
        searches = dataclasses.replace(searches, outcomes=outcomes)
    log = AppendableLog(base)
    none = NewViews(*(np.zeros(0, kind) for kind in (*[np.int64] * 3, *[bool] * 4, *[np.int64] * 2)))
    log.add(none, searches)
    grown = log.store()
    assert len(grown.impressions.told) == len(grown.impressions.video) > shown
    assert set(grown.impressions.told[shown:]) == {31 if given else 2}
    new = np.flatnonzero((grown.events.surface == 1) & np.isin(grown.events.time_ms, searches.time_ms_B))
    waits = grown.events.known_ms[new] - grown.events.time_ms[new]
    assert set(waits) == ({0, 7} if given else {0})  # 0: of the store that was read, without outcomes


def test_a_question_nobody_asked_before_gets_a_row_of_its_own(whole):
    """Once, however often it is asked; unknown words are part of it."""
    log, slate = AppendableLog(whole), np.zeros((3, 2), np.int32)
    words = [np.array([1, 0], np.int32), np.array([1, 0], np.int32), np.zeros(0, np.int32)]
    times = np.arange(3) + whole.cuts.end_ms
    none = NewViews(*(np.zeros(0, kind) for kind in (*[np.int64] * 3, *[bool] * 4, *[np.int64] * 2)))
    slate[0, 1] = 1
    log.add(
        none, NewSearches(np.arange(3) + 10**9, np.ones(3, np.int32), words, times, np.ones(3, np.int32), slate, slate)
    )
    grown = log.store()
    row = whole.counts.queries
    assert grown.sessions.query[-3:].tolist() == [row, row, 0]
    assert grown.queries.words[grown.queries.first_word[row] : grown.queries.first_word[row + 1]].tolist() == [1, 0]
    assert grown.counts.queries == row + 1
    assert grown.impressions.position[-1] == 1
    assert grown.counts.events == whole.counts.events + 1
