"""95 % intervals by resampling users, and the clustered standard error: sessions of one person are not independent."""

from __future__ import annotations

import dataclasses

import numpy as np

CELLS = 20_000_000
"""Draws x users resampled at once (160 MB), whatever the number of users."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval; `count` values went in."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def number(value: Interval | float) -> dict[str, float | None] | float | None:
    """For JSON, which has no NaN: None."""
    if isinstance(value, Interval):
        return {k: (v if np.isfinite(v) else None) for k, v in dataclasses.asdict(value).items()}
    return float(value) if np.isfinite(value) else None


def interval(
    values_N: np.ndarray, user_N: np.ndarray, weights_N: np.ndarray | None = None, draws: int = 1_000, seed: int = 0
) -> Interval:
    """The (weighted) mean of the values and its interval over users; NaN values are left out.

    A draw takes as many users as there are, with replacement, and divides the sum of their weighted values by the sum
    of their weights.
    """
    values_N = np.asarray(values_N, np.float64)
    weights_N = np.ones(len(values_N)) if weights_N is None else np.asarray(weights_N, np.float64)
    known = np.isfinite(values_N)
    values_N, weights_N, user_N = values_N[known], weights_N[known], np.asarray(user_N)[known]
    if not len(values_N) or weights_N.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"), len(values_N))
    _, group_N = np.unique(user_N, return_inverse=True)
    sums_U = np.bincount(group_N, weights=values_N * weights_N)
    weights_U = np.bincount(group_N, weights=weights_N)
    means = _resampled_ratios(sums_U, weights_U, draws, np.random.default_rng(seed))
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums_U.sum() / weights_U.sum()), float(low), float(high), len(values_N))


def _resampled_ratios(sums_U: np.ndarray, weights_U: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    users, ratios = len(sums_U), []
    step = max(1, CELLS // users)
    for start in range(0, draws, step):
        pick = rng.integers(0, users, (min(step, draws - start), users))
        ratios.append(sums_U[pick].sum(1) / weights_U[pick].sum(1))
    ratio = np.concatenate(ratios)
    # A draw of users without any weight says nothing.
    return ratio[np.isfinite(ratio)]


def standard_error(values_N: np.ndarray, user_N: np.ndarray) -> float:
    """Of the mean of the values, clustered by user: what one person does is not independent. 0 without values."""
    if not len(values_N):
        return 0.0
    _, group_N = np.unique(user_N, return_inverse=True)
    sums_U = np.bincount(group_N, np.asarray(values_N, np.float64) - np.mean(values_N))
    return float(np.sqrt((sums_U**2).sum()) / len(values_N))
