"""Which sessions are for training, in which fold, and what each showed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.data.sessions import (
    FOLDS,
    PARTS,
    fold_of,
    impressions_of,
    part_of,
    training_parts,
    training_sessions,
)


def test_impressions_of(store):
    sessions = np.array([5, 0, 79, 5])
    rows, owner = impressions_of(store, sessions)
    first = store.sessions.first_impression
    want = [(row, n) for n, session in enumerate(sessions) for row in range(first[session], first[session + 1])]
    assert list(zip(rows.tolist(), owner.tolist(), strict=True)) == want
    assert len(impressions_of(store, sessions[:0])[0]) == 0


DAY_MS = 86_400_000


def _log_of(days: float) -> SimpleNamespace:
    """A log with so many training days."""
    end = 1_684_737_000_000
    return SimpleNamespace(cuts=SimpleNamespace(start_ms=int(end - days * DAY_MS), validation_ms=end))


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
