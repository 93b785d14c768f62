"""Estimators: coverage of intervals, variance reduction by CUPED, validity under daily looks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pr2_jax.abtest.estimators import Lift, Ratio, compare, covariates, required_sample_size

U, RUNS = 600, 400
CONTROL, TREATED = np.arange(0, U, 2), np.arange(1, U, 2)


def people(rng: np.random.Generator, lift: float = 0.0) -> tuple[Ratio, Ratio]:
    """Before and during: people differ in how much they search and how readily they click."""
    preference, rate = 0.9 * rng.beta(2, 4, U), rng.gamma(2, 4, U)
    before, during = rng.poisson(rate), rng.poisson(2 * rate)
    share = np.where(np.arange(U) % 2, 1 + lift, 1.0)
    return Ratio(rng.binomial(before, preference), before), Ratio(rng.binomial(during, preference * share), during)


def test_by_hand():
    """Two people an arm; the influence and the error by plain arithmetic."""
    metric = Ratio(np.array([1.0, 3.0, 2.0, 4.0]), np.array([2.0, 2.0, 2.0, 2.0]))
    found = compare(metric, np.array([0, 1]), np.array([2, 3]))
    assert (found.control, found.treated) == (1.0, 1.5)
    assert found.lift == pytest.approx(0.5)
    np.testing.assert_allclose(metric.influence(np.array([0, 1])), [-0.5, 0.5])
    want = np.sqrt(0.5 / 2 + (2 * (1 / 3) ** 2) / 2)
    assert found.error == pytest.approx(want)
    assert found.interval() == pytest.approx(tuple(np.exp(np.log(1.5) + s * 1.959964 * want) - 1 for s in (-1, 1)))


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("lift", [0.0, 0.06])
def test_intervals_cover_the_truth(lift, adjusted):
    inside, p = 0, []
    for run in range(RUNS):
        before, during = people(np.random.default_rng(run), lift)
        told = covariates(before, (np.log1p(before.denominator_U),)) if adjusted else None
        found = compare(during, CONTROL, TREATED, told)
        low, high = found.interval()
        inside += low <= lift <= high
        p.append(found.p)
    assert abs(inside / RUNS - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / RUNS)
    if not lift:
        assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_searches_are_not_people():
    """As if every search were a unit of its own the error comes out too small: people differ."""
    _, during = people(np.random.default_rng(0))
    found = compare(during, CONTROL, TREATED)
    alone = [np.sqrt((1 - during.value(rows)) / during.numerator_U[rows].sum()) for rows in (CONTROL, TREATED)]
    assert found.error > 1.3 * np.hypot(*alone)


def test_the_past_takes_variance():
    before, during = people(np.random.default_rng(1))
    plain = compare(during, CONTROL, TREATED)
    adjusted = compare(during, CONTROL, TREATED, covariates(before))
    assert adjusted.error < 0.9 * plain.error
    noise = covariates(Ratio(np.random.default_rng(2).random(U), np.ones(U)))
    assert compare(during, CONTROL, TREATED, noise).error == pytest.approx(plain.error, rel=0.02)
    flat = covariates(Ratio(np.ones(U), np.ones(U)))  # tells nothing
    assert flat.shape == (U, 0)
    assert compare(during, CONTROL, TREATED, flat) == plain


def test_who_looks_every_day_is_not_fooled():
    """Looking after each of thirty days and stopping at the first good one: the planned interval then errs far too
    often, the one for any time does not."""
    rng, fooled = np.random.default_rng(3), {"planned": 0, "any time": 0}
    for _ in range(300):
        rate = rng.gamma(20, 0.05, 200)
        shown, clicked = rng.poisson(np.tile(4 * rate, (30, 1))), None
        clicked = rng.binomial(shown, 0.3)
        total = np.cumsum(clicked, 0), np.cumsum(shown, 0)
        looks = [
            compare(Ratio(c.astype(float), d.astype(float)), np.arange(0, 200, 2), np.arange(1, 200, 2))
            for c, d in zip(*total, strict=True)
        ]
        fooled["planned"] += any(not low <= 0 <= high for low, high in (look.interval() for look in looks))
        fooled["any time"] += any(
            not low <= 0 <= high for low, high in (look.always_valid_interval(0.05) for look in looks)
        )
    assert fooled["planned"] > 0.15 * 300
    assert fooled["any time"] < 0.05 * 300 + 3 * np.sqrt(300 * 0.05)


def test_an_interval_for_any_time_is_wider_and_contains_the_planned_one():
    found = Lift(1.0, 1.1, 0.1, 0.04, 100)
    (low, high), (lower, higher) = found.interval(), found.always_valid_interval(0.05)
    assert lower < low < found.lift < high < higher


def test_enough_people_find_the_lift_as_often_as_promised():
    """The number for 80 % power, put to the test at that number."""
    rng = np.random.default_rng(5)
    many = 40_000
    preference, rate = rng.beta(2, 4, many), rng.gamma(2, 4, many)
    during = rng.poisson(2 * rate)
    all_of_them = Ratio(rng.binomial(during, preference).astype(float), during.astype(float))
    needed = required_sample_size(all_of_them, 0.1)
    assert 200 < needed < 4_000
    found = 0
    for run in range(300):
        rng = np.random.default_rng(run)
        some = rng.choice(many, needed, replace=False)
        treated = np.arange(needed) % 2 == 1
        shown = rng.poisson(2 * rate[some])
        clicked = rng.binomial(shown, np.minimum(preference[some] * np.where(treated, 1.1, 1.0), 1))
        metric = Ratio(clicked.astype(float), shown.astype(float))
        found += compare(metric, np.flatnonzero(~treated), np.flatnonzero(treated)).p < 0.05
    assert abs(found / 300 - 0.8) < 0.08


def test_nothing_to_count_is_no_number():
    nothing = compare(Ratio(np.zeros(4), np.ones(4)), np.array([0, 1]), np.array([2, 3]))
    assert np.isnan(nothing.log_lift)
    assert np.isnan(Ratio(np.zeros(4), np.zeros(4)).value(np.array([0])))
