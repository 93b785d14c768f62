"""Calibration of a head's probabilities: Platt, isotonic, or a map that depends on the query (query_map.py).

All are increasing maps, so that two results of a search never change places. NumPy and jax.numpy apply them alike.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from pr2_jax.metrics.bootstrap import standard_error
from pr2_jax.ranking.query_map import FLOOR, QueryMap, fit_query_map, logit

LEAST_POSITIVES = 50
"""Clicks that an isotonic map needs."""
LEAST_FOR_QUERY = 200
"""Clicks that a map of the query needs, which has some fifty weights."""
LEAST_FOR_PLATT = 5
"""Clicks, and unclicked rows, that Platt scaling needs. With fewer, probabilities pass unchanged."""
MOST_KNOTS = 512


@dataclasses.dataclass(frozen=True)
class Platt:
    """Platt scaling: p' = sigmoid(slope * logit(p) + bias), slope > 0. Slope 1 and bias 0 change nothing."""

    slope: float = 1.0
    bias: float = 0.0

    def apply(self, probability, xp: ModuleType = np, query=None):
        """`xp` is numpy or jax.numpy. `query` is not read; it is here because all calibrators are called alike."""
        z = self.slope * logit(probability, xp) + self.bias
        return xp.clip(1 / (1 + xp.exp(-z)), FLOOR, 1 - FLOOR)

    def to_dict(self) -> dict[str, np.ndarray]:
        return {"platt": np.array([self.slope, self.bias], np.float64)}


@dataclasses.dataclass(frozen=True)
class Isotonic:
    """Isotonic regression: piecewise linear through a knot per pooled block and one at each end of [0, 1]."""

    x_K: np.ndarray  # float64, ascending probabilities as the ranker gives them
    y_K: np.ndarray  # float64, non-descending calibrated probabilities

    def apply(self, probability, xp: ModuleType = np, query=None):
        return xp.interp(probability, xp.asarray(self.x_K), xp.asarray(self.y_K))

    def to_dict(self) -> dict[str, np.ndarray]:
        return {"isotonic_x": self.x_K, "isotonic_y": self.y_K}


@dataclasses.dataclass(frozen=True)
class Unlearned:
    """Calibration of a head without training labels: its output is noise, so that every probability is NaN."""

    def apply(self, probability, xp: ModuleType = np, query=None):
        return xp.full_like(probability, xp.nan)

    def to_dict(self) -> dict[str, np.ndarray]:
        return {"unlearned": np.zeros(0)}


Calibrator = Platt | Isotonic | QueryMap | Unlearned


def from_dict(arrays: dict[str, np.ndarray]) -> Calibrator:
    """The calibrator that `to_dict` wrote, bit for bit."""
    if "platt" in arrays:
        slope, bias = arrays["platt"]
        return Platt(float(slope), float(bias))
    if "unlearned" in arrays:
        return Unlearned()
    if "query_knots" in arrays:
        return QueryMap.from_dict(arrays)
    return Isotonic(np.asarray(arrays["isotonic_x"]), np.asarray(arrays["isotonic_y"]))


def fit_platt(labels_N: np.ndarray, probabilities_N: np.ndarray) -> Platt:
    """Logistic regression of the label on the logit with Platt's smoothed targets and a positive slope."""
    labels_N = np.asarray(labels_N, bool)
    logit_N = logit(np.asarray(probabilities_N, np.float64))
    positives, negatives = int(labels_N.sum()), int((~labels_N).sum())
    # [lit: Platt 1999] targets as if one more row of each kind had been seen.
    target_N = np.where(labels_N, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(parameters[0])
        z_N = slope * logit_N + parameters[1]
        error_N = expit(z_N) - target_N
        gradient = np.array([(error_N * logit_N).mean() * slope, error_N.mean()])
        return float((np.logaddexp(0, z_N) - target_N * z_N).mean()), gradient

    # Without bounds the slope of a head without signal would run to 0.
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-5.0, 5.0), (-20.0, 20.0)])
    return Platt(float(np.exp(found.x[0])), float(found.x[1]))


def fit_isotonic(labels_N: np.ndarray, probabilities_N: np.ndarray) -> Isotonic:
    """Pool-adjacent-violators on rows by probability; equal probabilities are one point.

    Each pooled block becomes a knot at its mean probability. Its height is smoothed as if it had one more row with the
    overall click rate, so that a block without clicks is not certain.
    """
    x_X, group_N = np.unique(np.asarray(probabilities_N, np.float64), return_inverse=True)
    rows_X = np.bincount(group_N).astype(np.float64)
    clicks_X = np.bincount(group_N, weights=np.asarray(labels_N, np.float64))
    base = clicks_X.sum() / rows_X.sum()
    rows_K, clicks_K, mass_K = _pool(clicks_X / rows_X, rows_X, (rows_X, clicks_X, x_X * rows_X))
    # Smoothing may break the order: pool once more.
    smooth_K = (clicks_K + base) / (rows_K + 1)
    rows_K, height_K, mass_K = _pool(smooth_K, rows_K, (rows_K, smooth_K * rows_K, mass_K))
    x_K, y_K = mass_K / rows_K, height_K / rows_K
    if len(x_K) > MOST_KNOTS:
        kept = np.unique(np.linspace(0, len(x_K) - 1, MOST_KNOTS).astype(np.int64))
        x_K, y_K = x_K[kept], y_K[kept]
    # Beyond the outer blocks the map rises half way to certainty. A flat end would tie the top results.
    inner = (x_K > 0) & (x_K < 1)
    low = y_K[0] if x_K[0] == 0 else y_K[0] / 2
    high = y_K[-1] if x_K[-1] == 1 else (1 + y_K[-1]) / 2
    x_K, y_K = np.r_[0.0, x_K[inner], 1.0], np.r_[low, y_K[inner], high]
    return Isotonic(x_K, np.clip(y_K, FLOOR, 1 - FLOOR))


def _pool(y_K: np.ndarray, weight_K: np.ndarray, sums: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The sums within the blocks that isotonic regression pools."""
    start = isotonic_regression(y_K, weights=weight_K).blocks[:-1]
    return tuple(np.add.reduceat(column, start) for column in sums)


def fit(
    labels_N: np.ndarray,
    probabilities_N: np.ndarray,
    user_N: np.ndarray,
    seed: int = 0,
    *,
    kind: str = "auto",
    query_NxF: np.ndarray | None = None,
) -> Calibrator:
    """The calibrator with the lowest log loss on held-out users, refitted on all rows.

    Candidates are the identity, Platt, isotonic and, given `query_NxF`, the query map, which has to win by a standard
    error. `kind` (of `scores.calibration`) fits that one instead. Rows are those where the head has a label. With too
    few positives for a kind Platt takes its place; with fewer than `LEAST_FOR_PLATT` it is the identity.
    """
    labels_N, p_N = np.asarray(labels_N, bool), np.asarray(probabilities_N, np.float64)
    if not np.isfinite(p_N).all() or ((p_N < 0) | (p_N > 1)).any():
        raise ValueError("probabilities to calibrate must lie in [0, 1]")
    if min(int(labels_N.sum()), int((~labels_N).sum())) < LEAST_FOR_PLATT:
        return Platt()
    rows = _Rows(labels_N, p_N, np.asarray(user_N), query_NxF)
    if kind != "auto":
        return rows.fitted(kind if kind in rows.kinds() else "platt", seed)
    users = np.unique(user_N)
    fitting_N = np.isin(user_N, np.random.default_rng(seed).permutation(users)[: len(users) // 2])
    fitting, held = rows.kept(fitting_N), rows.kept(~fitting_N)
    if not len(fitting.label_N) or not len(held.label_N):
        return rows.fitted("platt", seed)
    best_N, chosen = held.losses(Platt()), None
    for name in fitting.kinds():
        loss_N = held.losses(fitting.fitted(name, seed))
        # The query map costs a look-up per request, so that it has to win by more than chance.
        noise = standard_error(loss_N - best_N, held.user_N) if name == "query" else 0.0
        if loss_N.mean() < best_N.mean() - noise:
            best_N, chosen = loss_N, name
    return rows.fitted(chosen, seed) if chosen else Platt()


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Labelled probabilities of one head."""

    label_N: np.ndarray
    probability_N: np.ndarray
    user_N: np.ndarray
    query_NxF: np.ndarray | None

    def kept(self, keep_N: np.ndarray) -> _Rows:
        return _Rows(*(None if column is None else column[keep_N] for column in vars(self).values()))

    def kinds(self) -> list[str]:
        """Kinds that these rows have enough clicks for, the simplest first."""
        clicks = self.label_N.sum()
        query = self.query_NxF is not None and clicks >= LEAST_FOR_QUERY
        return ["platt", *["isotonic"] * bool(clicks >= LEAST_POSITIVES), *["query"] * bool(query)]

    def fitted(self, kind: str, seed: int) -> Calibrator:
        if kind == "isotonic":
            return fit_isotonic(self.label_N, self.probability_N)
        platt = fit_platt(self.label_N, self.probability_N)
        if kind == "platt":
            return platt
        start = platt.slope, platt.bias
        return fit_query_map(self.label_N, self.probability_N, self.query_NxF, self.user_N, start, seed)

    def losses(self, calibrator: Calibrator) -> np.ndarray:
        p_N = calibrator.apply(self.probability_N, query=self.query_NxF)
        return -np.where(self.label_N, np.log(p_N), np.log1p(-p_N))
