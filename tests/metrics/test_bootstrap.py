"""Intervals over users: the method, pairing, weights, determinism."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from pr2_jax.metrics import bootstrap


def plain_interval(values, users, rng):
    """Ratio of sums over users drawn with replacement, one draw at a time."""
    by_user = collections.defaultdict(list)
    for value, user in zip(values, users, strict=True):
        by_user[user].append(value)
    groups, means = list(by_user.values()), []
    for _ in range(1000):
        drawn = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
        means.append(sum(sum(g) for g in drawn) / sum(len(g) for g in drawn))
    return np.percentile(means, [2.5, 97.5])


def test_same_method_as_the_plain_twin(rng: np.random.Generator) -> None:
    users = rng.integers(0, 60, 400)
    values = rng.random(400) + 0.3 * (users % 5)
    got = bootstrap.interval(values, users)
    low, high = plain_interval(values, users, rng)
    assert got.mean == pytest.approx(values.mean())
    assert got.low == pytest.approx(low, abs=0.02)
    assert got.high == pytest.approx(high, abs=0.02)
    assert got == bootstrap.interval(values, users)
    assert got.count == 400


def test_sessions_of_one_user_stay_together() -> None:
    # Two users with 50 equal sessions each: the truth is as uncertain as two observations are.
    values, users = np.repeat([0.0, 1.0], 50), np.repeat([7, 9], 50)
    got = bootstrap.interval(values, users)
    assert (got.low, got.high) == (0.0, 1.0)


def test_pairing_narrows(rng: np.random.Generator) -> None:
    users, base = np.arange(300), rng.random(300)
    got = bootstrap.interval((base + 0.01) - base, users)
    assert got.low == pytest.approx(0.01)
    assert got.high == pytest.approx(0.01)


def test_weights_and_unknown_values() -> None:
    got = bootstrap.interval(np.array([1.0, 0.0, np.nan]), np.array([1, 2, 3]), np.array([3.0, 1.0, 9.0]))
    assert got.mean == pytest.approx(0.75)
    assert got.count == 2
    assert np.isnan(bootstrap.interval(np.array([np.nan]), np.array([1])).mean)


def test_blocks_of_draws_do_not_change_the_method(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = rng.random(100), np.arange(100)
    whole = bootstrap.interval(values, users)
    monkeypatch.setattr(bootstrap, "CELLS", 700)
    assert bootstrap.interval(values, users) == whole
