"""Which sessions are for training, in which fold, and what each showed."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.sessions import FOLDS, fold_of, impressions_of, training_sessions
from pr2_jax.data.store import LogStore
from pr2_jax.data.tables import read_log


@pytest.fixture
def store(tiny_dir) -> LogStore:
    return LogStore.from_tables(read_log(tiny_dir, DataConfig()))


def test_impressions_of(store):
    sessions = np.array([5, 0, 79, 5])
    rows, owner = impressions_of(store, sessions)
    first = store.sessions.first_impression
    want = [(row, n) for n, session in enumerate(sessions) for row in range(first[session], first[session + 1])]
    assert list(zip(rows.tolist(), owner.tolist(), strict=True)) == want
    assert len(impressions_of(store, sessions[:0])[0]) == 0


def test_folds_part_the_training_days(store):
    time_ms = np.asarray(store.sessions.time_ms)[training_sessions(store)]
    day = (time_ms - store.cuts.validation_ms) // 86_400_000
    fold = fold_of(store, time_ms)
    assert set(fold) == {0, 1}
    assert all(len(np.unique(fold[day == d])) == 1 for d in np.unique(day))
    assert all(fold[day == d][0] != fold[day == d + 1][0] for d in np.unique(day)[:-1])


def test_a_single_training_day_is_halved(store):
    """Every fold has something to learn from: the towers without it would otherwise know nothing."""
    cuts = dataclasses.replace(store.cuts, start_ms=store.cuts.validation_ms - 86_400_000)
    hours = np.arange(24)
    fold = fold_of(SimpleNamespace(cuts=cuts), cuts.start_ms + 3_600_000 * hours)
    assert set(fold) == set(range(FOLDS))
    assert fold.tolist() == [fold[0]] * 12 + [fold[12]] * 12


def test_a_log_without_training_days_has_folds_all_the_same(store):
    cuts = dataclasses.replace(store.cuts, start_ms=store.cuts.validation_ms)
    assert set(fold_of(SimpleNamespace(cuts=cuts), cuts.start_ms + np.arange(9))) <= set(range(FOLDS))
