"""Calibration that depends on the query: a monotone piecewise-linear map of the ranker's logit, one per query.

[lit: SBCR, arXiv 2406.08010, Kuaishou video search] fits such a map after the ranker: a network reads the query, and a
softmax gives the heights of the pieces of [0, 1]. [ours] A smaller log has too few rows for a network. Pieces lie
between quantiles of the logit; their slopes and one offset are linear in a few features of the query; a penalty draws
them towards Platt scaling. Softplus keeps slopes positive, so that no query's results change their order.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pr2_jax.data.history.counters import Counters
from pr2_jax.types import Requests

FLOOR = 1e-6
"""Calibrated probabilities stay this far from 0 and 1."""
FARTHEST = 3.0
"""Standardised features of a query are clipped here, because a query may be unlike all of the fitting day."""
LEAST_SLOPE = 0.01
"""Keeps distinct results distinct."""
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Inner knots, as quantiles of the logit. They are closer at the top, where clicks are."""
MOST_ROWS = 50_000
"""Rows, evenly spread, that a map is fitted to: plenty for some fifty weights."""
PENALTIES = (3_000.0, 300.0, 30.0, 3.0)
"""Candidate weights of the penalty, in rows. Log loss on held-out users chooses."""
STORED = ("query_knots", "query_origin", "query_scale", "query_bias", "query_slope")
"""The fields of a map as stored."""


def logit(probability, xp: ModuleType = np):
    """Logit of probabilities clipped to [FLOOR, 1 - FLOOR]."""
    p = xp.clip(probability, FLOOR, 1 - FLOOR)
    return xp.log(p) - xp.log1p(-p)


@dataclasses.dataclass(frozen=True)
class QueryMap:
    """`logit(p') = bias(q) + sum_k slope_k(q) * (part of the way from origin to logit(p) that lies in piece k)`."""

    knots_P: np.ndarray  # float64 [K + 1], ascending logits; the outer two are those of FLOOR and 1 - FLOOR
    origin: float  # the logit at which bias(q) is read
    scale_2xF: np.ndarray  # mean and deviation of the query's numbers
    bias_G: np.ndarray  # [1 + F] a constant and a weight for each number
    slope_KxG: np.ndarray  # [K, 1 + F] likewise, before softplus

    def apply(self, probability, xp: ModuleType = np, query=None):
        """As `Platt.apply`. `query` `[..., F]` has the leading axes of `probability`, as `[B, F]` for `[B, S]`."""
        if query is None:
            raise ValueError("this calibration depends on the query: its numbers must be given")
        axes = query.ndim
        mean, deviation, bias_weight = (_under(array, axes) for array in (*self.scale_2xF, self.bias_G[1:]))
        query = xp.clip((query - mean) / deviation, -FARTHEST, FARTHEST)
        # Not a matrix product, whose last bit depends on the number of rows.
        bias = self.bias_G[0] + (query * bias_weight).sum(-1)
        constant, weight = _under(self.slope_KxG[:, 0], axes), _under(self.slope_KxG[:, 1:], axes + 1)
        slope = LEAST_SLOPE + _softplus(constant + (query[..., None, :] * weight).sum(-1), xp)
        results = [1] * (np.ndim(probability) - bias.ndim)
        slope = slope.reshape(*bias.shape, *results, len(self.slope_KxG))
        way = _ways(logit(probability, xp), self.knots_P, self.origin, xp)
        z = bias.reshape(*bias.shape, *results) + (way * slope).sum(-1)
        return xp.clip(1 / (1 + xp.exp(-z)), FLOOR, 1 - FLOOR)

    def to_dict(self) -> dict[str, np.ndarray]:
        arrays = self.knots_P, np.array([self.origin]), self.scale_2xF, self.bias_G, self.slope_KxG
        return dict(zip(STORED, arrays, strict=True))

    @classmethod
    def from_dict(cls, arrays: dict[str, np.ndarray]) -> QueryMap:
        knots, origin, scale, bias, slope = (np.asarray(arrays[name], np.float64) for name in STORED)
        return cls(knots, float(origin[0]), scale, bias, slope)


def fit_query_map(
    labels_N: np.ndarray,
    probabilities_N: np.ndarray,
    query_NxF: np.ndarray,
    user_N: np.ndarray,
    start: tuple[float, float],
    seed: int = 0,
) -> QueryMap:
    """The map with the lowest penalised log loss; `start` is Platt's slope and bias on the same rows.

    The penalty is chosen on half of the users after fitting on the other half; then all rows are fitted.
    """
    taken = slice(None)
    if len(labels_N) > MOST_ROWS:
        taken = np.linspace(0, len(labels_N) - 1, MOST_ROWS).astype(np.int64)
    labels_N, x_N = np.asarray(labels_N, bool)[taken], logit(np.asarray(probabilities_N, np.float64)[taken])
    query_NxF, user_N = np.asarray(query_NxF, np.float64)[taken], np.asarray(user_N)[taken]
    inner = np.unique(np.quantile(x_N, QUANTILES))
    end = logit(np.ones(1))
    knots_P = np.r_[-end, inner[np.abs(inner) < end], end]
    deviation_F = query_NxF.std(0)
    scale_2xF = np.stack([query_NxF.mean(0), np.where(deviation_F > 1e-6, deviation_F, 1.0)])
    plain = _platt(start, float(np.median(x_N)), knots_P, scale_2xF)
    rows = _Rows.of(labels_N, x_N, query_NxF, plain)
    users = np.unique(user_N)
    fitting_N = np.isin(user_N, np.random.default_rng(seed).permutation(users)[: len(users) // 2])
    penalty, theta = PENALTIES[0], np.r_[plain.bias_G, plain.slope_KxG.reshape(-1)]
    if len(users) > 1:
        fitted, held = rows.kept(fitting_N), rows.kept(~fitting_N)
        found = []
        for each in PENALTIES:  # each starts at the solution of the heavier penalty
            found.append(_solve(fitted, plain, each, found[-1] if found else theta))
        best = int(np.argmin([held.loss(one, plain)[0] for one in found]))
        penalty, theta = PENALTIES[best], found[best]
    theta = _solve(rows, plain, penalty, theta)
    features = scale_2xF.shape[1] + 1
    return dataclasses.replace(plain, bias_G=theta[:features], slope_KxG=theta[features:].reshape(-1, features))


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows to fit a map to."""

    label_N: np.ndarray
    way_NxK: np.ndarray
    query_NxG: np.ndarray  # 1 and the standardised numbers

    @classmethod
    def of(cls, label_N: np.ndarray, x_N: np.ndarray, query_NxF: np.ndarray, plain: QueryMap) -> _Rows:
        scaled_NxF = np.clip((query_NxF - plain.scale_2xF[0]) / plain.scale_2xF[1], -FARTHEST, FARTHEST)
        return cls(label_N, _ways(x_N, plain.knots_P, plain.origin, np), np.c_[np.ones(len(x_N)), scaled_NxF])

    def kept(self, keep_N: np.ndarray) -> _Rows:
        return _Rows(self.label_N[keep_N], self.way_NxK[keep_N], self.query_NxG[keep_N])

    def loss(self, theta: np.ndarray, plain: QueryMap, penalty: float = 0.0) -> tuple[float, np.ndarray]:
        """Mean log loss, penalised, and its gradient."""
        features, rows = self.query_NxG.shape[1], len(self.label_N)
        bias_G, slope_KxG = theta[:features], theta[features:].reshape(-1, features)
        raw_NxK = self.query_NxG @ slope_KxG.T
        z_N = self.query_NxG @ bias_G + (self.way_NxK * (LEAST_SLOPE + _softplus(raw_NxK, np))).sum(1)
        error_N = expit(z_N) - self.label_N
        raw_error_NxK = error_N[:, None] * self.way_NxK * expit(raw_NxK)
        gradient = np.r_[error_N @ self.query_NxG, (raw_error_NxK.T @ self.query_NxG).reshape(-1)] / rows
        # The constant offset is free; the rest is drawn towards Platt's line.
        away = theta - np.r_[plain.bias_G, plain.slope_KxG.reshape(-1)]
        away[0] = 0.0
        value = (np.logaddexp(0, z_N) - self.label_N * z_N).mean() + 0.5 * penalty / rows * (away @ away)
        return float(value), gradient + penalty / rows * away


def _solve(rows: _Rows, plain: QueryMap, penalty: float, start: np.ndarray) -> np.ndarray:
    if not len(rows.label_N):
        return start
    bounds = [(-20.0, 20.0)] * len(start)
    return minimize(rows.loss, start, (plain, penalty), jac=True, method="L-BFGS-B", bounds=bounds).x


def _platt(start: tuple[float, float], origin: float, knots_P: np.ndarray, scale_2xF: np.ndarray) -> QueryMap:
    """Platt scaling as a map."""
    slope, bias = max(start[0], 2 * LEAST_SLOPE), start[1]
    features = scale_2xF.shape[1] + 1
    bias_G, slope_KxG = np.zeros(features), np.zeros((len(knots_P) - 1, features))
    bias_G[0] = np.clip(bias + slope * origin, -20.0, 20.0)
    slope_KxG[:, 0] = np.log(np.expm1(slope - LEAST_SLOPE)) if slope < 20 else slope - LEAST_SLOPE
    return QueryMap(knots_P, origin, scale_2xF, bias_G, np.minimum(slope_KxG, 20.0))


def _ways(x, knots_P: np.ndarray, origin: float, xp: ModuleType):
    """`[..., K]`: the length in each piece of the way from `origin` to each logit, negative below the origin."""
    low, high = _under(knots_P[:-1], x.ndim + 1), _under(knots_P[1:], x.ndim + 1)
    return xp.clip(x[..., None], low, high) - np.clip(origin, low, high)


def _under(array: np.ndarray, axes: int) -> np.ndarray:
    """The array with that many axes, new ones in front; JAX may not promote ranks here."""
    return array.reshape((1,) * (axes - array.ndim) + array.shape)


def _softplus(x, xp: ModuleType):
    return xp.logaddexp(x, xp.zeros_like(x))


QUERY_NUMBERS = ("log_searches", "seen", "words", "click_share", "share_known")
PRIOR_SHOWN = 20.0
"""Results shown, about two searches, at which the click share has half its weight [ours]."""


class QueryNumbers:
    """`[N, F]` features of N queries, float64; none depends on the person or on a video."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __call__(self, requests: Requests) -> np.ndarray:
        counters, time_ms_N, query_N = self._counters, requests.time_ms_B, requests.query_B
        searches_N, shown_N, clicks_N = (
            np.where(np.asarray(query_N) > 0, counter.before(query_N, time_ms_N), 0)
            for counter in (counters.query_searches, counters.query_shown, counters.query_clicks)
        )
        # The share is shrunk towards 0, and `share_known` says how far: the map's weights find the mean.
        known_N = shown_N / (shown_N + PRIOR_SHOWN)
        parts = [
            np.log1p(searches_N),
            searches_N > 0,
            (requests.words_BxQ > 0).sum(1),
            clicks_N / (shown_N + PRIOR_SHOWN),
            known_N,
        ]
        return np.stack(parts, axis=-1).astype(np.float64)
