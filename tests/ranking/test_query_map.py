"""Calibration by the query: mends what no map of the logit alone can, keeps its order, survives little data."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from pr2_jax.metrics.ranking_metrics import expected_calibration_error, log_losses
from pr2_jax.ranking import calibration, query_map
from pr2_jax.ranking.calibration import Platt
from pr2_jax.ranking.fusion import FusionWeights
from pr2_jax.ranking.query_map import FLOOR, PENALTIES, QueryMap, fit_query_map, logit
from pr2_jax.search.searcher import Calibrated

SLATE = 10


@pytest.fixture
def searches(rng: np.random.Generator):
    """900 searches of ten results. The ranker is over-confident on frequent queries, under-confident on rare ones."""
    often = rng.random(900) < 0.5
    true = rng.normal(-1.0, 1.0, (900, SLATE))
    said = np.where(often[:, None], 1.6 * true + 1.0, 0.6 * true - 0.9)
    query = np.stack([np.where(often, 5.0, 0.3) + rng.normal(0, 0.2, 900), rng.integers(1, 4, 900)], -1)
    labels = rng.random((900, SLATE)) < expit(true)
    users = np.repeat(rng.integers(0, 150, 900), SLATE)
    return labels.ravel(), expit(said).ravel(), users, np.repeat(query, SLATE, 0), np.repeat(often, SLATE)


def test_mends_what_depends_on_the_query_and_platt_does_not(searches):
    """On users that neither has seen."""
    labels, p, users, query, often = searches
    fitting = users < 75
    fits = {
        kind: calibration.fit(labels[fitting], p[fitting], users[fitting], kind=kind, query_NxF=query[fitting])
        for kind in ("platt", "isotonic", "query")
    }
    assert isinstance(fits["query"], QueryMap)
    error = {}
    for kind, fitted in fits.items():
        got = fitted.apply(p, query=query)
        for part in (True, False):
            rows = ~fitting & (often == part)
            error[kind, part] = expected_calibration_error(labels[rows], got[rows], bins=5)
    for part in (True, False):
        assert error["query", part] < 0.03
        assert min(error["platt", part], error["isotonic", part]) > 2 * error["query", part]


def test_competition(searches, rng):
    """It wins where the query matters and not where it is noise."""
    labels, p, users, query, _ = searches
    assert isinstance(calibration.fit(labels, p, users, query_NxF=query), QueryMap)
    assert not isinstance(calibration.fit(labels, p, users), QueryMap)
    true = expit(rng.normal(-1, 1, len(p)))
    honest = rng.random(len(p)) < true
    assert not isinstance(calibration.fit(honest, true, users, query_NxF=rng.normal(size=query.shape)), QueryMap)


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_monotone_for_every_query(searches, rng, far):
    """Also for queries unlike any other and weights that no fit would give."""
    labels, p, users, query, _ = searches
    fitted = calibration.fit(labels, p, users, kind="query", query_NxF=query)
    wild = QueryMap(
        fitted.knots_P, fitted.origin, fitted.scale_2xF, rng.normal(0, 5, 3), rng.normal(0, 5, fitted.slope_KxG.shape)
    )
    asked = rng.normal(0, far, (200, 2))
    grid = np.sort(np.r_[0.0, 1.0, expit(rng.normal(0, 6, 998))])
    for one in (fitted, wild):
        got = one.apply(np.broadcast_to(grid, (200, 1_000)), query=asked)
        assert np.isfinite(got).all()
        assert (np.diff(got, axis=1) >= 0).all()
        assert got.min() >= FLOOR
        assert got.max() <= 1 - FLOOR
    inside = (grid > 1e-4) & (grid < 1 - 1e-4) & np.r_[True, np.diff(grid) > 1e-9]
    assert (np.diff(fitted.apply(np.broadcast_to(grid[inside], (200, inside.sum())), query=asked)) > 0).mean() > 0.99


def test_plain_twin(searches):
    """Result by result: np.interp between the heights of the knots."""
    labels, p, users, query, _ = searches
    fitted = fit_query_map(labels, p, query, users, (1.0, 0.0))
    for row in range(0, len(p), 997):
        numbers = np.r_[1.0, np.clip((query[row] - fitted.scale_2xF[0]) / fitted.scale_2xF[1], -3, 3)]
        slopes = [0.01 + np.log1p(np.exp(weights @ numbers)) for weights in fitted.slope_KxG]
        heights = np.r_[0.0, np.cumsum(slopes * np.diff(fitted.knots_P))]
        heights += fitted.bias_G @ numbers - np.interp(fitted.origin, fitted.knots_P, heights)
        want = expit(np.interp(logit(p[row]), fitted.knots_P, heights))
        assert fitted.apply(p[row : row + 1], query=query[row : row + 1])[0] == pytest.approx(want, abs=1e-12)


def test_gradient_by_differences(searches, rng):
    labels, p, _, query, _ = searches
    plain = query_map._platt((0.7, 0.2), -1.0, np.array([-13.0, -2, 0, 1, 13]), np.stack([query.mean(0), query.std(0)]))
    rows = query_map._Rows.of(labels, logit(p), query, plain)
    theta = rng.normal(0, 0.5, plain.bias_G.size + plain.slope_KxG.size)
    _, gradient = rows.loss(theta, plain, 30.0)
    for at in range(len(theta)):
        step = np.eye(len(theta))[at] * 1e-5
        slope = (rows.loss(theta + step, plain, 30.0)[0] - rows.loss(theta - step, plain, 30.0)[0]) / 2e-5
        assert gradient[at] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_starts_as_platt_and_stays_so_under_a_heavy_penalty(searches, monkeypatch):
    labels, p, users, query, _ = searches
    platt = calibration.fit_platt(labels, p)
    monkeypatch.setattr(query_map, "PENALTIES", (1e12,))
    fitted = fit_query_map(labels, p, query, users, (platt.slope, platt.bias))
    np.testing.assert_allclose(fitted.apply(p, query=query), platt.apply(p), atol=1e-3)


def test_rows_together_are_rows_alone(searches):
    """Bit for bit: what a batch holds beside a request must not show."""
    labels, p, users, query, _ = searches
    fitted = fit_query_map(labels, p, query, users, (1.0, 0.0))
    slates, asked = p.reshape(-1, SLATE), query[::SLATE]
    whole = fitted.apply(slates, query=asked)
    assert np.array_equal(whole.ravel(), fitted.apply(p, query=query))
    for row in (0, 17, 899):
        assert np.array_equal(fitted.apply(slates[row : row + 1], query=asked[row : row + 1])[0], whole[row])


def test_jax_and_the_disk_agree(searches, tmp_path):
    labels, p, users, query, _ = searches
    fitted = fit_query_map(labels, p, query, users, (1.0, 0.0))
    want = fitted.apply(p, query=query)
    got = fitted.apply(jnp.asarray(p, jnp.float32), jnp, jnp.asarray(query, jnp.float32))
    np.testing.assert_allclose(got, want, atol=2e-5)
    heads = (fitted, Platt(0.9, 0.1), calibration.fit_isotonic(labels, p))
    whole = Calibrated(heads, FusionWeights((1.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    for path in (tmp_path / "a.json", tmp_path / "b.json"):
        whole.save(path)
        whole = Calibrated.load(path)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    logits = np.stack([logit(p)] * 3, -1)
    again = whole.probabilities(logits, query)
    assert whole.reads_query
    assert np.array_equal(again[:, 0], fitted.apply(expit(logits[:, 0]), query=query))
    # The map and Platt's two numbers as they stand in the file.
    assert set(json.loads((tmp_path / "a.json").read_text())["heads"][0]) == set(fitted.to_dict())


def test_same_rows_same_map(searches):
    labels, p, users, query, _ = searches
    one, other = (calibration.fit(labels, p, users, kind="query", query_NxF=query).to_dict() for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("users", [np.zeros(3_000), np.arange(3_000)])
@pytest.mark.parametrize("p", [np.full(3_000, 0.3), np.zeros(3_000), np.ones(3_000)])
def test_constant_logits_and_numbers(rng, users, p):
    """Nothing to learn but the share of clicks."""
    labels = rng.random(3_000) < 0.2
    fitted = calibration.fit(labels, p, users, kind="query", query_NxF=np.ones((3_000, 2)))
    assert isinstance(fitted, QueryMap)
    np.testing.assert_allclose(fitted.apply(p, query=np.ones((3_000, 2))), labels.mean(), atol=0.02)
    assert np.isfinite(fitted.apply(p, query=np.full((3_000, 2), 1e9))).all()


@pytest.mark.parametrize("clicks", [0, 3, 100])
def test_few_clicks_fall_back(rng, clicks):
    p, query = rng.random(2_000), rng.normal(size=(2_000, 3))
    labels = np.arange(2_000) < clicks
    for kind in ("auto", "query"):
        got = calibration.fit(labels, p, np.arange(2_000) % 40, kind=kind, query_NxF=query)
        assert not isinstance(got, QueryMap)
    if clicks < 5:
        assert got == Platt()


def test_perfect_separation_stays_finite(rng):
    """All clicks on one kind of query: no weight runs away."""
    query = np.repeat(rng.random(3_000) < 0.5, 1)[:, None].astype(float)
    labels, p = query[:, 0] > 0, rng.random(3_000)
    fitted = fit_query_map(labels, p, query, np.arange(3_000), (1.0, 0.0))
    got = fitted.apply(p, query=query)
    assert np.isfinite(got).all()
    assert log_losses(labels, got).mean() < 0.05
    assert max(np.abs(fitted.bias_G).max(), np.abs(fitted.slope_KxG).max()) <= 20
    assert min(PENALTIES) > 0


def test_the_query_must_be_given(searches):
    labels, p, users, query, _ = searches
    with pytest.raises(ValueError, match="depends on the query"):
        fit_query_map(labels, p, query, users, (1.0, 0.0)).apply(p)
