"""Reliability against plain loops, and what it says of probabilities that are true."""

from __future__ import annotations

import types

import numpy as np
import pytest

from pr2_jax.metrics import calibration_curve
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.metrics.calibration_curve import BANDS, BINS, Rows
from pr2_jax.metrics.slicing import thirds


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    """Raw probabilities twice the truth, calibrated ones the truth; rounded, so that some are equal."""
    true = np.round(rng.beta(2, 8, 6_000), 2)
    return Rows(rng.random(6_000) < true, np.minimum(2 * true, 1), true, rng.integers(0, 200, 6_000))


def plain_ece(label: np.ndarray, p: np.ndarray, bins: int) -> float:
    """By walking the sorted rows; a bin takes its rows by the place of the first of equal probabilities."""
    pairs = sorted(zip(p.tolist(), label.tolist(), strict=True))
    place, groups, last = 0, [[] for _ in range(bins)], None
    for at, (said, happened) in enumerate(pairs):
        place, last = (at if said != last else place), said
        groups[place * bins // len(pairs)].append((said, happened))
    return sum(abs(sum(h for _, h in g) - sum(s for s, _ in g)) for g in groups) / len(pairs)


def test_judged_by_slices_as_by_plain_loops(rows, rng):
    searches = rng.integers(0, 12, len(rows.label_N))
    bands = thirds(np.array([0, 1, 1, 2, 3, 5, 8, 11]))
    band_N = calibration_curve.band_of(searches, bands)
    assert set(band_N) == set(range(len(BANDS)))
    for band in range(len(BANDS)):
        part = rows.kept(band_N == band)
        assert len(part.label_N) == (band_N == band).sum()
        judged = calibration_curve.judge(part, 20, 0)
        assert judged["rows"] == len(part.label_N)
        assert judged["positives"] == part.label_N.sum()
        for name, p in (("raw", part.raw_N), ("calibrated", part.calibrated_N)):
            assert judged[f"{name}_ece"] == pytest.approx(plain_ece(part.label_N, p, BINS), abs=1e-12)
            assert judged[f"{name}_pcoc"] == pytest.approx(sum(p.tolist()) / sum(part.label_N.tolist()))
            loss = -np.mean(
                [np.log(max(s, 1e-7) if y else max(1 - s, 1e-7)) for s, y in zip(p, part.label_N, strict=True)]
            )
            assert judged[f"{name}_logloss"].mean == pytest.approx(loss)


def test_true_probabilities_err_by_chance_alone(rows):
    judged = calibration_curve.judge(rows, 20, 0)
    assert judged["calibrated_ece"] == pytest.approx(judged["chance_ece"], rel=0.6)
    assert judged["raw_ece"] > 10 * judged["chance_ece"]
    # Fewer rows leave more to chance.
    few = rows.kept(np.arange(6_000) < 300)
    assert calibration_curve.chance_error(few.calibrated_N, 0) > 3 * judged["chance_ece"]
    assert calibration_curve.chance_error(np.ones(50), 0) == 0


def test_no_rows_at_all(rows):
    none = rows.kept(np.zeros(6_000, bool))
    judged = calibration_curve.judge(none, 20, 0)
    assert judged.pop("rows") == judged.pop("positives") == 0
    assert all(np.isnan(v.mean if isinstance(v, Interval) else v) for v in judged.values())
    assert calibration_curve.curve(none.label_N, none.raw_N, none.user_N, 20, 0)["count_B"] == []


def test_where_everything_was_clicked_there_is_no_rate(rows):
    clicked = rows.kept(rows.label_N)
    judged = calibration_curve.judge(clicked, 20, 0)
    assert judged.pop("rows") == judged.pop("positives") == rows.label_N.sum()
    assert all(np.isnan(v.mean if isinstance(v, Interval) else v) for v in judged.values())


def test_curve_holds_every_row_once_and_covers_the_truth(rows):
    curve = _curve(rows, rows.calibrated_N)
    assert curve.count_B.sum() == 6_000
    assert curve.spread_W.sum() == 6_000
    assert curve.spread_W[7] == ((rows.calibrated_N >= 0.07) & (rows.calibrated_N < 0.08)).sum()
    assert (np.diff(curve.predicted_B) > 0).all()
    np.testing.assert_allclose((curve.observed_B * curve.count_B).sum(), rows.label_N.sum())
    np.testing.assert_allclose((curve.predicted_B * curve.count_B).sum(), rows.calibrated_N.sum())
    inside = (curve.low_B <= curve.predicted_B) & (curve.predicted_B <= curve.high_B)
    assert inside.mean() > 0.7
    wrong = _curve(rows, rows.raw_N)
    assert (wrong.high_B < wrong.predicted_B).mean() > 0.7


def _curve(rows, p_N):
    found = calibration_curve.curve(rows.label_N, p_N, rows.user_N, 200, 0)
    return types.SimpleNamespace(**{name: np.array(values) for name, values in found.items()})


@pytest.mark.parametrize(
    ("searches", "bands", "of"),
    [
        # 12 searches of 6 queries: the one asked 6 times makes up half; the least asked is tail.
        ([0, 6, 2, 1, 1, 1, 1], (2, 6), [3, 0, 1, 2, 2, 2, 2]),
        ([0, 4, 4, 4, 1, 1, 1], (4, 4), [3, 0, 0, 0, 2, 2, 2]),
        ([0, 3, 3], (4, 4), [3, 2, 2]),  # nothing sets one apart
        ([0, 0], (1, 1), [3, 3]),
    ],
)
def test_bands_by_hand(searches, bands, of):
    searches = np.array(searches)
    assert thirds(searches) == bands
    assert calibration_curve.band_of(searches, bands).tolist() == of


def test_bands_hold_about_a_third_each(rng):
    searches = rng.zipf(1.6, 5_000).clip(max=300)
    band_N = calibration_curve.band_of(searches, thirds(searches))
    shares = np.bincount(band_N, searches, minlength=3) / searches.sum()
    assert shares.min() > 0.2
    assert [searches[band_N == band].min() for band in range(3)] == sorted(
        (searches[band_N == band].min() for band in range(3)), reverse=True
    )
