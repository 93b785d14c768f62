"""The clustered standard error against resampling and its two extremes."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.metrics.bootstrap import standard_error


def test_as_resampling_users_finds(rng):
    user = rng.integers(0, 300, 3_000)
    values = rng.normal(0, 1, 300)[user] + rng.normal(0, 1, 3_000) + 5
    sums, counts = np.bincount(user, values), np.bincount(user)
    draws = rng.integers(0, 300, (4_000, 300))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    assert standard_error(values, user) == pytest.approx(means.std(), rel=0.05)


def test_extremes(rng):
    """A user each: the usual one. A row many times over by one user says no more than once."""
    values = rng.normal(size=400)
    assert standard_error(values, np.arange(400)) == pytest.approx(values.std() / 20)
    assert standard_error(np.repeat(values, 5), np.repeat(np.arange(400), 5)) == pytest.approx(values.std() / 20)
    assert standard_error(np.full(10, 3.0), np.arange(10)) == 0
    assert standard_error(np.zeros(0), np.zeros(0)) == 0
