"""A draw is a function of its coordinates; draws are uniform and independent of each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pr2_jax.simulation.counter_rng import CounterRng, choose


@pytest.fixture
def rng() -> CounterRng:
    return CounterRng.of(3, 1, 2)


def test_a_draw_depends_on_its_coordinates_alone(rng):
    """Each person alone draws what they draw among others."""
    user, number = np.array([5, 9, 5, 2]), np.array([0, 3, 1, 0])
    together = rng.draw(4, user, number)
    for place in (3, 1, 0, 2):
        alone = rng.draw(4, user[place : place + 1], number[place : place + 1])
        np.testing.assert_array_equal(alone[0], together[place])
    np.testing.assert_array_equal(rng.draw(2, user, number), together[:, :2])  # asking for more moves nothing
    assert len(np.unique(together)) == together.size


def test_streams_seeds_and_coordinates_are_apart(rng):
    one = np.arange(1_000)
    streams = [rng, CounterRng.of(4, 1, 2), CounterRng.of(3, 2, 1)]
    streams += [rng.child(0), rng.child(1), rng.child(0).child(0)]
    columns = [stream.draw(1, one)[:, 0] for stream in streams]
    columns += [rng.draw(1, one, np.zeros(1_000, int))[:, 0], rng.draw(1, np.zeros(1_000, int), one)[:, 0]]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4 / np.sqrt(1_000)


def test_draws_are_uniform_across_people_days_and_places(rng):
    grid = np.stack(np.meshgrid(np.arange(200), np.arange(30), indexing="ij"), -1).reshape(-1, 2)
    draws = rng.draw(6, grid[:, 0], grid[:, 1])
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    assert draws.min() >= 0
    assert draws.max() < 1
    by_place = np.abs(np.corrcoef(draws.T) - np.eye(6)).max()
    next_person = np.corrcoef(draws[:-30, 0], draws[30:, 0])[0, 1]
    next_day = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert max(by_place, abs(next_person), abs(next_day)) < 4 / np.sqrt(len(draws))


def test_choice_is_by_weight_and_never_of_no_weight(rng):
    weight = np.array([0.0, 1.0, 3.0, 0.0])
    chosen = choose(weight, rng.draw(2, np.arange(8_000)))
    assert chosen.shape == (8_000, 2)
    counts = np.bincount(chosen.ravel(), minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.1)
    assert choose(weight, np.array([0.0, np.nextafter(1.0, 0.0)])).tolist() == [1, 2]
