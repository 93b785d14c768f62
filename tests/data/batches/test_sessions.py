"""Which sessions are for training, in which fold, and what each showed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.data.batches.sessions import (
    FOLDS,
    PARTS,
    drawn_evenly,
    fold_of,
    impressions_of,
    latest_days,
    part_of,
    training_parts,
    training_sessions,
)
from pr2_jax.data.periods import Periods


def test_impressions_of(store):
    sessions = np.array([5, 0, 79, 5])
    rows, owner = impressions_of(store, sessions)
    first = store.sessions.first_impression
    want = [(row, n) for n, session in enumerate(sessions) for row in range(first[session], first[session + 1])]
    assert list(zip(rows.tolist(), owner.tolist(), strict=True)) == want
    assert len(impressions_of(store, sessions[:0])[0]) == 0


DAY_MS = 86_400_000


END_MS = 1_684_737_000_000
HOUR_MS = 3_600_000


def _log_of(days: float, *, without: tuple[int, ...] = ()) -> SimpleNamespace:
    """A log with so many training days, -1 = the last, of which some hold nothing."""
    start = int(END_MS - days * DAY_MS)
    times = np.arange(start, END_MS + DAY_MS, HOUR_MS // 8)
    times = times[~np.isin((times - END_MS) // DAY_MS, without)]
    cuts = SimpleNamespace(start_ms=start, validation_ms=END_MS)
    periods = Periods.of(cuts, times[::2], times[1::2])
    return SimpleNamespace(cuts=cuts, periods=periods, sessions=SimpleNamespace(time_ms=times))


@pytest.mark.parametrize("days", [2, 2.5, 7, 17.8])
def test_folds_are_days_dealt_out_in_turn(days):
    store = _log_of(days)
    hours = np.arange(-24 * int(days), 0)
    fold = fold_of(store, store.cuts.validation_ms + 3_600_000 * hours)
    assert fold.reshape(-1, 24).min(1).tolist() == fold.reshape(-1, 24).max(1).tolist()
    assert fold[::24].tolist() == [day % FOLDS for day in range(-int(days), 0)]


@pytest.mark.parametrize("days", [0.2, 0.9, 1, 1.02, 1.25, 1.9])
def test_fewer_training_days_than_folds_are_cut_into_equal_parts(days):
    """Every fold has something to learn from: the towers without it would otherwise know nothing."""
    store = _log_of(days)
    times = np.linspace(store.cuts.start_ms, store.cuts.validation_ms, 1_000, endpoint=False).astype(np.int64)
    fold = fold_of(store, times)
    assert np.bincount(fold, minlength=FOLDS).tolist() == [500, 500]
    assert (np.diff(fold) != 0).sum() == 1


def _folds_by_day(store: SimpleNamespace) -> dict[int, list[int]]:
    times = store.sessions.time_ms[store.sessions.time_ms < END_MS]
    day, fold = (times - END_MS) // DAY_MS, fold_of(store, times)
    return {int(one): np.unique(fold[day == one]).tolist() for one in np.unique(day)}


@pytest.mark.parametrize(
    ("days", "without", "want"),
    [
        (5, (-2, -4), {-5: [1], -3: [0], -1: [1]}),  # every second day
        (5, (-1, -3), {-5: [1], -4: [0], -2: [1]}),  # the last day with data is no longer -1
        (40, tuple(range(-39, -1)), {-40: [0], -1: [1]}),  # weeks between
        (9, (-5, -6), {-9: [1], -8: [0], -7: [1], -4: [0], -3: [1], -2: [0], -1: [1]}),
        (30, tuple(range(-29, 0)), {-30: [0, 1]}),  # one day, long ago: cut in two
    ],
)
def test_folds_are_dealt_over_days_that_hold_data(days, without, want):
    store = _log_of(days, without=without)
    assert _folds_by_day(store) == want
    times = store.sessions.time_ms[store.sessions.time_ms < END_MS]
    assert np.unique(part_of(store, times)).tolist() == training_parts(store).tolist()
    assert np.array_equal(part_of(store, times) % FOLDS, fold_of(store, times))


def test_a_hole_counts_where_neither_events_nor_searches_fill_it():
    cuts = SimpleNamespace(start_ms=END_MS - 4 * DAY_MS, validation_ms=END_MS)
    searches, views = END_MS - np.array([4, 2]) * DAY_MS, END_MS - np.array([3, 1]) * DAY_MS
    assert Periods.of(cuts, views, searches).number_P.tolist() == [-4, -3, -2, -1]
    assert Periods.of(cuts, views[:0], searches).number_P.tolist() == [-2, -1, -1]
    assert Periods.of(cuts, views[:0], searches).end_ms == END_MS - DAY_MS


def test_latest_days_skip_holes():
    store = _log_of(6, without=(-1, -3, -4))
    assert [(day - END_MS) // DAY_MS for day in latest_days(store, 3)] == [-6, -5, -2]
    assert [(day - END_MS) // DAY_MS for day in latest_days(store, 9)] == [-6, -5, -2]


def test_a_log_without_training_days_has_folds_all_the_same():
    store = _log_of(0)
    assert set(fold_of(store, store.cuts.start_ms + np.arange(9))) <= set(range(FOLDS))


@pytest.mark.parametrize(
    ("days", "parts"), [(0.5, [4, 5]), (1, [4, 5]), (2, [4, 5]), (3.5, [2, 3, 4, 5]), (17.8, [0, 1, 2, 3, 4, 5])]
)
def test_parts_refine_folds(days, parts):
    """And those that the training days have are named, no others."""
    store = _log_of(days)
    times = np.linspace(store.cuts.start_ms, store.cuts.validation_ms, 2_000, endpoint=False).astype(np.int64)
    part = part_of(store, times)
    assert np.unique(part).tolist() == parts == training_parts(store).tolist()
    assert PARTS % FOLDS == 0
    assert np.array_equal(part % FOLDS, fold_of(store, times))


def test_training_ends_just_before_the_validation_day():
    sessions = SimpleNamespace(time_ms=np.array([5, 9, 10, 10, 11]))
    store = SimpleNamespace(sessions=sessions, cuts=SimpleNamespace(validation_ms=10))
    assert training_sessions(store).tolist() == [0, 1]


def test_drawn_evenly():
    """All rows where they are few; else an even step apart, each row as likely as any other."""
    assert drawn_evenly(5, 5, 0).tolist() == [0, 1, 2, 3, 4]
    assert drawn_evenly(0, 5, 0).tolist() == []
    draws = np.stack([drawn_evenly(103, 10, seed) for seed in range(3_000)])
    steps = np.diff(draws, axis=1)
    assert set(np.unique(steps)) == {10, 11}
    assert draws.min() == 0
    assert draws.max() == 102
    share = np.bincount(draws.ravel(), minlength=103) / len(draws)
    np.testing.assert_allclose(share, 10 / 103, atol=0.03)
    assert np.array_equal(drawn_evenly(103, 10, 7), drawn_evenly(103, 10, 7))
