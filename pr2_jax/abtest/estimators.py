"""Relative differences between two arms, person by person: delta method, CUPED, and looks before the end.

A metric is a ratio of sums over people, `R = sum_u x_u / sum_u d_u` (clicks over results shown). People are the units:
one person's searches depend on each other. With the influence of person u on log R,

    i_u = (x_u - R d_u) / sum_v d_v * n / R,     Var(log R) = Var_u(i_u) / n

by the delta method [lit: Deng et al. 2018], and CUPED [lit: Deng et al. 2013] takes from log R what the person's
pre-period foretells, `theta^T (mean z of the arm - mean z of all)`, which the arm cannot have changed. The lift is
`exp(log R_treated - log R_control) - 1`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import norm

CONFIDENCE = 0.95
ERRORS = float(norm.isf((1 - CONFIDENCE) / 2))
"""Standard errors to either side in such an interval."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Of U people: what is counted, and out of what."""

    counted_U: np.ndarray
    of_U: np.ndarray

    def value(self, rows: np.ndarray) -> float:
        """NaN without anything to count out of."""
        total = float(self.of_U[rows].sum())
        return float(self.counted_U[rows].sum()) / total if total else np.nan

    def influence(self, rows: np.ndarray) -> np.ndarray:
        """On log R, of the people of one arm; mean 0. NaN where R is not above 0."""
        ratio, of = self.value(rows), self.of_U[rows]
        if not ratio > 0:
            return np.full(len(rows), np.nan)
        return (self.counted_U[rows] / ratio - of) / of.mean()


@dataclasses.dataclass(frozen=True)
class Lift:
    """Of a treated arm over the control."""

    control: float  # the metric itself
    treated: float
    log_lift: float
    error: float  # standard error of `log_lift`
    people: int

    @property
    def lift(self) -> float:
        """Relative difference, adjusted where there was something to adjust by."""
        return float(np.expm1(self.log_lift))

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        return float(2 * norm.sf(abs(self.log_lift) / self.error)) if self.error > 0 else np.nan

    def interval(self) -> tuple[float, float]:
        """Of the lift, for the one look that was planned."""
        return self._within(ERRORS)

    def interval_at_any_time(self, foreseen: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Of the lift, however often somebody looks and stops when they like what they see.

        Normal mixture over lifts of about `foreseen` [lit: Robbins 1970; Johari et al. 2022, mSPRT]: wider than
        `interval`, and right at all times together. NaN where there is no error to go by yet.
        """
        if not self.error > 0:
            return np.nan, np.nan
        prior = foreseen**2 / self.error**2
        alpha = 1 - confidence
        return self._within(float(np.sqrt((1 + prior) / prior * (np.log1p(prior) - 2 * np.log(alpha)))))

    def _within(self, errors: float) -> tuple[float, float]:
        return tuple(float(np.expm1(self.log_lift + side * errors * self.error)) for side in (-1, 1))


def compare(metric: Ratio, control: np.ndarray, treated: np.ndarray, before_UxZ: np.ndarray | None = None) -> Lift:
    """`control`, `treated`: rows of people; `before_UxZ`: what the pre-period says of them (`foretold`)."""
    arms = (control, treated)
    influence = [metric.influence(rows) for rows in arms]
    log = np.log([metric.value(rows) if metric.value(rows) > 0 else np.nan for rows in arms])
    if before_UxZ is not None and before_UxZ.shape[1]:
        centred = [before_UxZ[rows] - before_UxZ[rows].mean(axis=0) for rows in arms]
        theta_Z = np.linalg.lstsq(np.concatenate(centred), np.concatenate(influence), rcond=None)[0]
        both = np.concatenate([before_UxZ[rows] for rows in arms]).mean(axis=0)
        log = log - [(before_UxZ[rows].mean(axis=0) - both) @ theta_Z for rows in arms]
        influence = [i - z @ theta_Z for i, z in zip(influence, centred, strict=True)]
    variance = [i.var(ddof=1) / len(i) for i in influence]
    values = [metric.value(rows) for rows in arms]
    return Lift(*values, float(log[1] - log[0]), float(np.sqrt(sum(variance))), len(control) + len(treated))


def foretold(metric: Ratio, people: np.ndarray, others: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """float64 [U, Z]: standardised columns for CUPED from a period before the arms differ: the metric's influence, and
    `others`. A column without spread is left out."""
    influence_U = np.zeros(len(metric.of_U))
    influence_U[people] = np.nan_to_num(metric.influence(people))
    columns = np.stack([influence_U, *others], axis=1).astype(np.float64)
    spread_Z = columns[people].std(axis=0)
    kept = spread_Z > 1e-12
    return (columns[:, kept] - columns[people][:, kept].mean(axis=0)) / spread_Z[kept]


def needed_people(metric: Ratio, people: np.ndarray, lift: float, power: float = 0.8) -> int:
    """People in both arms together that show such a lift with that power, if they are as these."""
    variance = float(metric.influence(people).var(ddof=1))
    errors = ERRORS + norm.isf(1 - power)
    return int(np.ceil(4 * variance * (errors / np.log1p(lift)) ** 2))
