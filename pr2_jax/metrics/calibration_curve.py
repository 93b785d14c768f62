"""Calibration metrics and reliability curves, also by query frequency."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval, interval

BINS = 15
WIDTHS = 100
CHANCE_DRAWS = 50
BANDS = ("head", "torso", "tail", "unseen")
"""Of queries, by how often each had been asked before the day."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Labelled predictions of one head: N results."""

    label_N: np.ndarray  # bool
    raw_N: np.ndarray  # sigmoid of the ranker's logit
    calibrated_N: np.ndarray
    user_N: np.ndarray

    def kept(self, keep_N: np.ndarray) -> Rows:
        return Rows(*(getattr(self, field.name)[keep_N] for field in dataclasses.fields(self)))


def judge(rows: Rows, draws: int, seed: int) -> dict[str, Interval | float]:
    """ECE, PCOC and log loss, raw and calibrated; NaN where the rows cannot tell.

    NaN too where every row is positive: then calibration cannot be told.
    """
    out: dict[str, Interval | float] = {"rows": float(len(rows.label_N)), "positives": float(rows.label_N.sum())}
    if rows.label_N.all():
        rows = rows.kept(np.zeros(0, np.int64))
    for name, p_N in (("raw", rows.raw_N), ("calibrated", rows.calibrated_N)):
        out[f"{name}_ece"] = ranking_metrics.expected_calibration_error(rows.label_N, p_N, BINS)
        out[f"{name}_pcoc"] = ranking_metrics.predicted_over_observed(rows.label_N, p_N)
        out[f"{name}_logloss"] = interval(ranking_metrics.log_losses(rows.label_N, p_N), rows.user_N, None, draws, seed)
    return out | {"chance_ece": chance_error(rows.calibrated_N, seed)}


def chance_error(probability_N: np.ndarray, seed: int) -> float:
    """The expected ECE of true probabilities: sampling noise alone keeps it above 0, more so with few rows."""
    if not len(probability_N):
        return float("nan")
    p_N, rng = np.asarray(probability_N, np.float64), np.random.default_rng(seed)
    bin_N = ranking_metrics.equal_count_bins(p_N, BINS)
    gaps = [np.bincount(bin_N, (rng.random(len(p_N)) < p_N) - p_N) for _ in range(CHANCE_DRAWS)]
    return float(np.abs(gaps).sum(1).mean() / len(p_N))


def curve(
    label_N: np.ndarray, probability_N: np.ndarray, user_N: np.ndarray, draws: int, seed: int, bins: int = BINS
) -> dict[str, list[float]]:
    """A reliability curve of B bins of equally many rows, for JSON; empty bins (equal probabilities stay together) are
    left out.

    `predicted_B`: mean probability; `observed_B`: share of positives, with its 95 % interval over users, `low_B` and
    `high_B`; `count_B`: rows; `spread_W`: rows by probability, in `WIDTHS` equal widths of [0, 1].
    """
    bin_N = ranking_metrics.equal_count_bins(probability_N, bins)
    parts = [np.flatnonzero(bin_N == one) for one in np.unique(bin_N)]
    found = [interval(label_N[rows], user_N[rows], None, draws, seed) for rows in parts]
    return {
        "predicted_B": [float(probability_N[rows].mean()) for rows in parts],
        "observed_B": [one.mean for one in found],
        "low_B": [one.low for one in found],
        "high_B": [one.high for one in found],
        "count_B": [len(rows) for rows in parts],
        "spread_W": np.histogram(probability_N, WIDTHS, (0, 1))[0].tolist(),
    }


def band_of(searches_x: np.ndarray, bands: tuple[int, int]) -> np.ndarray:
    """Index into `BANDS`, of the shape of the counts."""
    torso, head = bands
    return np.select([searches_x >= head, searches_x >= torso, searches_x > 0], [0, 1, 2], 3)
