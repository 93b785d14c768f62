"""Lift of one arm over another: delta method for ratio metrics, CUPED adjustment, always-valid intervals.

A metric is a ratio of sums over people, `R = sum_u x_u / sum_u d_u` (clicks over shown results). The person is the
unit, since one person's searches depend on each other. Person u has the influence

    i_u = (x_u - R d_u) / sum_v d_v * n / R,     Var(log R) = Var_u(i_u) / n

on log R by the delta method [lit: Deng et al. 2018]. CUPED [lit: Deng et al. 2013] subtracts
`theta^T (mean z of the arm - mean z of all)` from log R, where the covariates z cannot depend on the arm.
The lift is `exp(log R_treated - log R_control) - 1`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import norm

CONFIDENCE = 0.95
Z_VALUE = float(norm.isf((1 - CONFIDENCE) / 2))
"""Half-width of a planned interval in standard errors."""
EVERYBODY = slice(None)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio metric of U people."""

    numerator_U: np.ndarray
    denominator_U: np.ndarray

    def value(self, rows: np.ndarray | slice = EVERYBODY) -> float:
        """The metric of these people; NaN where the denominator is 0."""
        total = float(self.denominator_U[rows].sum())
        return float(self.numerator_U[rows].sum()) / total if total else np.nan

    def influence(self, rows: np.ndarray | slice = EVERYBODY) -> np.ndarray:
        """Influence of each of these people on their log R, with mean 0; NaN where R is not above 0."""
        ratio, denominator = self.value(rows), self.denominator_U[rows]
        if not ratio > 0:
            return np.full(len(denominator), np.nan)
        return (self.numerator_U[rows] / ratio - denominator) / denominator.mean()


@dataclasses.dataclass(frozen=True)
class Lift:
    """Relative difference of a treated arm to control."""

    control: float  # the metric itself
    treated: float
    log_lift: float
    error: float  # standard error of `log_lift`
    people: int

    @property
    def lift(self) -> float:
        """The relative difference, adjusted where there were covariates."""
        return float(np.expm1(self.log_lift))

    @property
    def p(self) -> float:
        """Two-sided p-value under no difference."""
        return float(2 * norm.sf(abs(self.log_lift) / self.error)) if self.error > 0 else np.nan

    def interval(self) -> tuple[float, float]:
        """Confidence interval of the lift for one planned look."""
        return self._within(Z_VALUE)

    def always_valid_interval(self, foreseen: float) -> tuple[float, float]:
        """Confidence sequence of the lift: it holds at all times together, so daily looks and early stops are allowed.

        Normal mixture over lifts of about `foreseen` [lit: Robbins 1970; Johari et al. 2022, mSPRT]. NaN without an
        error.
        """
        if not self.error > 0:
            return np.nan, np.nan
        prior = foreseen**2 / self.error**2
        return self._within(float(np.sqrt((1 + prior) / prior * (np.log1p(prior) - 2 * np.log(1 - CONFIDENCE)))))

    def excludes_zero(self, foreseen: float) -> bool:
        """Whether the always-valid interval lies on one side of 0."""
        low, high = self.always_valid_interval(foreseen)
        return bool(low > 0 or high < 0)

    def _within(self, errors: float) -> tuple[float, float]:
        return tuple(float(np.expm1(self.log_lift + side * errors * self.error)) for side in (-1, 1))


def compare(metric: Ratio, control: np.ndarray, treated: np.ndarray, covariates_UxZ: np.ndarray | None = None) -> Lift:
    """Lift of the people in rows `treated` over those in rows `control`, adjusted by `covariates`."""
    arms = (control, treated)
    values = [metric.value(rows) for rows in arms]
    influence = [metric.influence(rows) for rows in arms]
    log = np.log([value if value > 0 else np.nan for value in values])
    if covariates_UxZ is not None and covariates_UxZ.shape[1]:
        centred = [covariates_UxZ[rows] - covariates_UxZ[rows].mean(axis=0) for rows in arms]
        theta_Z = np.linalg.lstsq(np.concatenate(centred), np.concatenate(influence), rcond=None)[0]
        both = np.concatenate([covariates_UxZ[rows] for rows in arms]).mean(axis=0)
        log = log - [(covariates_UxZ[rows].mean(axis=0) - both) @ theta_Z for rows in arms]
        influence = [i - z @ theta_Z for i, z in zip(influence, centred, strict=True)]
    variance = [i.var(ddof=1) / len(i) for i in influence]
    return Lift(*values, float(log[1] - log[0]), float(np.sqrt(sum(variance))), len(control) + len(treated))


def covariates(metric: Ratio, others: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """float64 [U, Z]: CUPED covariates: the metric's influence and `others`, standardised; constant columns are
    dropped."""
    columns = np.stack([np.nan_to_num(metric.influence()), *others], axis=1).astype(np.float64)
    spread_Z = columns.std(axis=0)
    kept = spread_Z > 1e-12
    return (columns[:, kept] - columns[:, kept].mean(axis=0)) / spread_Z[kept]


def required_sample_size(metric: Ratio, lift: float, power: float = 0.8) -> int:
    """People in two equal arms together that show `lift` with `power`, if they are like these."""
    variance = float(metric.influence().var(ddof=1))
    errors = Z_VALUE + norm.isf(1 - power)
    return int(np.ceil(4 * variance * (errors / np.log1p(lift)) ** 2))
