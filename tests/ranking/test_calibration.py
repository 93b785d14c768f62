"""Calibration: recovers a known distortion, keeps the order, survives few labels, reads back alike."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from pr2_jax.metrics.ranking_metrics import expected_calibration_error, log_losses
from pr2_jax.ranking import calibration
from pr2_jax.ranking.calibration import Isotonic, Platt


@pytest.fixture
def rows(rng: np.random.Generator):
    """6,000 rows whose ranker is over-confident: logit = 2 * true logit + 1."""
    true_logit = rng.normal(-1.5, 1.0, 6_000)
    labels = rng.random(6_000) < expit(true_logit)
    return labels, expit(2 * true_logit + 1), rng.integers(0, 300, 6_000), expit(true_logit)


def test_platt_finds_the_distortion(rows) -> None:
    labels, p, _, _ = rows
    got = calibration.fit_platt(labels, p)
    assert got.slope == pytest.approx(0.5, abs=0.05)
    assert got.bias == pytest.approx(-0.5, abs=0.1)


def plain_pav(x: np.ndarray, y: np.ndarray) -> dict[float, float]:
    """Pool-adjacent-violators by repeated merging of neighbours: block mean of every distinct x."""
    blocks = [[[v], float(y[x == v].sum()), int((x == v).sum())] for v in sorted(set(x.tolist()))]
    at = 0
    while at + 1 < len(blocks):
        if blocks[at][1] / blocks[at][2] >= blocks[at + 1][1] / blocks[at + 1][2]:
            left, right = blocks[at], blocks.pop(at + 1)
            blocks[at] = [left[0] + right[0], left[1] + right[1], left[2] + right[2]]
            at = max(at - 1, 0)
        else:
            at += 1
    return {v: block[1] / block[2] for block in blocks for v in block[0]}


def test_isotonic_is_pav_but_for_smoothing(rng: np.random.Generator) -> None:
    x = rng.integers(1, 40, 4_000) / 40
    y = rng.random(4_000) < x**2
    got, want = calibration.fit_isotonic(y, x), plain_pav(x, y)
    blocks = np.unique(list(want.values()))
    np.testing.assert_allclose(got.y_K[1:-1], blocks, atol=0.01)
    assert (np.diff(got.x_K) > 0).all()
    assert (np.diff(got.y_K) >= 0).all()


@pytest.mark.parametrize("fit", [calibration.fit_platt, calibration.fit_isotonic])
def test_calibrates_rows_it_has_not_seen(rows, fit) -> None:
    labels, p, _, _ = rows
    got = fit(labels[:3_000], p[:3_000]).apply(p[3_000:])
    held = labels[3_000:]
    assert log_losses(held, got).mean() < log_losses(held, p[3_000:]).mean() - 0.02
    assert expected_calibration_error(held, got) < 0.03 < expected_calibration_error(held, p[3_000:])


@pytest.mark.parametrize("fit", [calibration.fit_platt, calibration.fit_isotonic])
def test_never_reverses_two_results_and_stays_inside(rows, fit) -> None:
    labels, p, _, _ = rows
    got = fit(labels, p).apply(np.linspace(0, 1, 5_000))
    assert (np.diff(got) >= 0).all()
    assert got.min() > 0
    assert got.max() < 1
    # Distinct scores stay distinct but for rounding, at the top above all.
    assert (np.diff(got[1:-1]) > 0).mean() > 0.99


@pytest.mark.parametrize("fit", [calibration.fit_platt, calibration.fit_isotonic])
def test_jax_and_the_disk_agree(rows, fit) -> None:
    labels, p, _, _ = rows
    fitted = fit(labels, p)
    again = calibration.from_dict(fitted.to_dict())
    grid = np.linspace(0, 1, 101)
    np.testing.assert_array_equal(again.apply(grid), fitted.apply(grid))
    np.testing.assert_allclose(fitted.apply(jnp.asarray(grid, jnp.float32), jnp), fitted.apply(grid), atol=2e-5)


def test_a_head_without_labels_says_nothing() -> None:
    """Written, read, and by either library."""
    again = calibration.from_dict({name: np.array(x.tolist()) for name, x in calibration.Unlearned().to_dict().items()})
    assert again == calibration.Unlearned()
    for xp in (np, jnp):
        got = again.apply(xp.full((3, 2), 0.5), xp, query=None)
        assert got.shape == (3, 2)
        assert np.isnan(np.asarray(got)).all()


def test_the_better_one_is_chosen(rows, rng: np.random.Generator) -> None:
    labels, p, users, true = rows
    assert isinstance(calibration.fit(labels, p, users), Platt)
    # A step no sigmoid can follow.
    stepped = rng.random(6_000)
    y = rng.random(6_000) < np.where(stepped < 0.5, 0.02, np.where(stepped < 0.52, 0.5, 0.6))
    assert isinstance(calibration.fit(y, stepped, users), Isotonic)
    # True probabilities are hardly moved, whatever is chosen.
    np.testing.assert_allclose(calibration.fit(labels, true, users).apply(true), true, atol=0.06)
    assert calibration.fit(labels, p, users) == calibration.fit(labels, p, users)


def test_few_labels(rng: np.random.Generator) -> None:
    p, users = rng.random(400), np.arange(400)
    assert calibration.fit(np.zeros(400, bool), p, users) == Platt(1.0, 0.0)
    assert calibration.fit(np.ones(400, bool), p, users) == Platt(1.0, 0.0)
    few = np.zeros(400, bool)
    few[np.argsort(-p)[:30]] = True
    assert isinstance(calibration.fit(few, p, users), Platt)
    np.testing.assert_allclose(Platt().apply(p), p, atol=1e-9)


def test_one_user_only(rng: np.random.Generator) -> None:
    p = rng.random(400)
    assert isinstance(calibration.fit(rng.random(400) < p, p, np.zeros(400)), Platt)


@pytest.mark.parametrize("bad", [np.nan, 1.2, -0.1])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        calibration.fit(np.array([True]), np.array([bad]), np.array([1]))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_probability(value: float, rng: np.random.Generator) -> None:
    labels = rng.random(500) < 0.2
    got = calibration.fit_isotonic(labels, np.full(500, value))
    assert got.apply(value) == pytest.approx(labels.mean(), abs=0.01)
