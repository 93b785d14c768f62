"""Latent factors: preferences of people and vectors of videos from people's responses to videos [ours].

Regression-based latent factor model [lit: RLFM, Agarwal and Chen, KDD 2009] with logistic responses. For a response e
of person u to video v, where `o_e` is a logit that does not depend on u and v,

    logit_e = o_e + a_v + w_u . (1, z_v, duration_e)
    w_u ~ N(0, S_u),    (a_v, z_v) ~ N(start_v + known_v B + author_v, S_v),    author_v ~ N(0, S_a)

A video without responses follows from its attributes (`known_v B`) and its author; responses move it away from there.
The start are vectors trained by gradients (models/preference.py), where a row for each video would overfit.

The estimate alternates as expectation maximisation does: people given videos, then authors, then videos, then B. Each
takes steps towards its posterior on a bound of the likelihood, then learns its variances. For videos, people's axes are
uncertain (`Doubt`), so that a few responses do not count as a firm preference; for people, videos are certain. A step
costs `E (2 + D)^2` for E responses, and a solve for each group that has any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from pr2_jax.config import PreferenceConfig

RESPONSES_AT_ONCE = 5_000
"""Responses whose rows are held at a time."""
CHUNK = 16
"""Responses of one group that are multiplied in one piece; a group's last piece is padded with zeros."""
ROWS_AT_ONCE = 100_000
MOST_LOGIT = 500.0
"""Logits are clipped here against overflow."""
FIRST_STEPS = 2
"""Steps of the first sweep, which starts from zero; later sweeps take one."""

RowsOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of some responses: x `[E, Z]`, and the logit without the effect `[E]`."""


class Responses(NamedTuple):
    """E responses, in any order."""

    user_E: np.ndarray
    video_E: np.ndarray
    yes_E: np.ndarray  # 0 or 1
    offset_E: np.ndarray  # logit of "yes" for any person and video
    duration_E: np.ndarray  # standardised log duration; 0 = not known


class Videos(NamedTuple):
    """V videos at the start of the fit. Row 0 is the unknown one."""

    appeal_V: np.ndarray
    vector_VxD: Any  # whitened; an array, or what gives ranges of its rows
    author_V: np.ndarray  # 0 = unknown
    known: tuple[np.ndarray, ...]  # attributes, arrays [V, F]


class Factors(NamedTuple):
    """The result of a fit."""

    video_VxB: np.ndarray  # float32 [V, 1 + D]: appeal and vector; row 0 is zero
    precision_ZxZ: np.ndarray  # float64, S_u^-1 of (constant, vector, duration), Z = 2 + D


def first_precision(config: PreferenceConfig, width: int) -> np.ndarray:
    """People's prior precision at the start, `[Z, Z]`: of the constant, each axis, and the duration."""
    return np.diag([1.0, *[config.fit_prior] * width, config.fit_prior / 2])


def fit(config: PreferenceConfig, responses: Responses, videos: Videos, users: int) -> Factors:
    """`config.fit_sweeps` rounds; with none, or no responses, the start and the first precision."""
    state = _Fit(config, responses, videos, users)
    if len(responses.user_E):
        for sweep in range(config.fit_sweeps):
            steps = 1 if sweep else FIRST_STEPS
            state.people_step(steps)
            state.authors_step(steps)
            state.videos_step(steps)
        if config.fit_sweeps:
            state.people_step(1)
    return Factors(state.video_VxB(), state.people.precision_ZxZ)


def likelihood(logit_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of "yes", and the curvature `(p - 1/2) / logit` of a quadratic lower bound of the log likelihood that
    touches it at the logit [lit: Jaakkola and Jordan 2000].

    A step on the bound never loses likelihood. With `p (1 - p)`, the curvature at the point, it may diverge.
    """
    clipped_x = np.clip(logit_x, -MOST_LOGIT, MOST_LOGIT)
    p_x = 1 / (1 + np.exp(-clipped_x))  # scipy's expit takes three times as long
    small_x = np.abs(clipped_x) < 1e-4
    return p_x, np.where(small_x, 0.25, (p_x - 0.5) / np.where(small_x, 1.0, clipped_x))


class Doubt(NamedTuple):
    """The covariance of each response's x, without its first entry, which is certain."""

    source_E: np.ndarray
    covariance_SxDxD: np.ndarray

    def summed(self, event_E: np.ndarray, weight_E: np.ndarray, opens_K: np.ndarray) -> np.ndarray:
        """`sum w covariance` `[K, D, D]` over K runs of responses."""
        sources, width = self.covariance_SxDxD.shape[:2]
        parts = (weight_E, self.source_E[event_E], np.append(opens_K, len(event_E)))
        by_source = sp.csr_array(parts, shape=(len(opens_K), sources))
        return (by_source @ self.covariance_SxDxD.reshape(sources, -1)).reshape(-1, width, width)


class _Level:
    """One kind of effect: the group of each response, the groups' posterior means, and their prior.

    Only groups with responses are computed; the others, and group 0 (unknown), stay at the prior's mean, zero.
    """

    def __init__(self, group_E: np.ndarray, groups: int, precision_ZxZ: np.ndarray) -> None:
        self.precision_ZxZ = precision_ZxZ
        order_E = np.argsort(group_E, kind="stable")
        self._order_E = order_E[np.searchsorted(group_E[order_E], 1) :]
        ordered_E = group_E[self._order_E]
        self.present_K, first_K, self._place_E = np.unique(ordered_E, return_index=True, return_inverse=True)
        self._bound_K = np.append(first_K, len(self._order_E))
        self.mean_GxZ = np.zeros((groups, len(precision_ZxZ)))

    def newton(
        self,
        rows_of: RowsOf,
        yes_E: np.ndarray,
        doubt: Doubt | None = None,
        covariance_KxZxZ: np.ndarray | None = None,
    ) -> np.ndarray:
        """One step of the present groups' means; returns the sum of their posterior covariances, `[Z, Z]`.

        Writes all covariances into `covariance_KxZxZ`, if given.
        """
        total_ZxZ = np.zeros_like(self.precision_ZxZ)
        for start, stop in self._blocks():
            gram_KxZxZ, pull_KxZ = self._sums(rows_of, yes_E, doubt, start, stop)
            posterior_KxZxZ = np.linalg.inv(gram_KxZxZ + self.precision_ZxZ)
            self.mean_GxZ[self.present_K[start:stop]] = (posterior_KxZxZ @ pull_KxZ[..., None])[..., 0]
            total_ZxZ += posterior_KxZxZ.sum(0)
            if covariance_KxZxZ is not None:
                covariance_KxZxZ[start:stop] = posterior_KxZxZ
        return total_ZxZ

    def learn_precision(self, total_ZxZ: np.ndarray) -> None:
        """Sets the likeliest prior given the present groups' means and summed covariances."""
        mean_KxZ = self.mean_GxZ[self.present_K]
        if len(mean_KxZ):
            self.precision_ZxZ = np.linalg.inv((mean_KxZ.T @ mean_KxZ + total_ZxZ) / len(mean_KxZ))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of present groups with about `RESPONSES_AT_ONCE` responses each; one group may have more."""
        start, groups = 0, len(self.present_K)
        while start < groups:
            within = int(np.searchsorted(self._bound_K, self._bound_K[start] + RESPONSES_AT_ONCE, side="right")) - 1
            stop = min(max(within, start + 1), groups)
            yield start, stop
            start = stop

    def _sums(
        self, rows_of: RowsOf, yes_E: np.ndarray, doubt: Doubt | None, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Iteratively reweighted least squares: `sum w E[x x^T]` and `sum x (y - p + w x . mean)` of the present groups
        `[start, stop)`."""
        size = len(self.precision_ZxZ)
        gram_KxZxZ, pull_KxZ = np.zeros((stop - start, size, size)), np.zeros((stop - start, size))
        first, last = self._bound_K[start], self._bound_K[stop]
        for at in range(first, last, RESPONSES_AT_ONCE):
            piece = slice(at, min(at + RESPONSES_AT_ONCE, last))
            event_E, place_E = self._order_E[piece], self._place_E[piece]
            x_ExZ, base_E = rows_of(event_E)
            effect_E = np.einsum("ez,ez->e", x_ExZ, self.mean_GxZ[self.present_K[place_E]])
            p_E, weight_E = likelihood(base_E + effect_E)
            opens_K = np.flatnonzero(np.r_[True, place_E[1:] != place_E[:-1]])
            here_K = place_E[opens_K] - start
            gram_KxZxZ[here_K] += _grams(x_ExZ, weight_E, opens_K)
            pull_KxZ[here_K] += np.add.reduceat(x_ExZ * (yes_E[event_E] - p_E + weight_E * effect_E)[:, None], opens_K)
            if doubt is not None:
                gram_KxZxZ[here_K, 1:, 1:] += doubt.summed(event_E, weight_E, opens_K)
        return gram_KxZxZ, pull_KxZ


def _grams(x_ExZ: np.ndarray, weight_E: np.ndarray, opens_K: np.ndarray) -> np.ndarray:
    """`sum w x x^T` `[K, Z, Z]` over K runs of rows, by products of pieces of one length."""
    length_K = np.diff(np.append(opens_K, len(x_ExZ)))
    pieces_K = -(-length_K // CHUNK)
    first_K = np.cumsum(pieces_K) - pieces_K
    within_E = np.arange(len(x_ExZ)) - np.repeat(opens_K, length_K)
    piece_E, slot_E = np.repeat(first_K, length_K) + within_E // CHUNK, within_E % CHUNK
    root_PxCxZ = np.zeros((pieces_K.sum(), CHUNK, x_ExZ.shape[1]))
    root_PxCxZ[piece_E, slot_E] = x_ExZ * np.sqrt(weight_E)[:, None]
    return np.add.reduceat(root_PxCxZ.transpose(0, 2, 1) @ root_PxCxZ, first_K)


class _Fit:
    """The state of a fit between steps. Two arrays of `[V, B]` and no more: what a video's (a, z) adds up from is
    gathered for the responses at hand."""

    def __init__(self, config: PreferenceConfig, responses: Responses, videos: Videos, users: int) -> None:
        self._responses, self._author_V = responses, videos.author_V
        self._attributes = _AttributeRegression(videos, config.fit_ridge)
        size = self._attributes.rest_VxB.shape[1]
        prior_BxB = config.fit_prior * np.eye(size)
        self.people = _Level(responses.user_E, users, first_precision(config, size - 1))
        self._covariance_KxZxZ = np.zeros((len(self.people.present_K), size + 1, size + 1))
        self._source_E = np.searchsorted(self.people.present_K, responses.user_E)
        self._authors = _Level(self._author_V[responses.video_E], int(self._author_V.max()) + 1, prior_BxB)
        self._own = _Level(responses.video_E, len(self._author_V), prior_BxB)

    def video_VxB(self) -> np.ndarray:
        """`(a, z)` of all videos, float32; row 0 is zero."""
        out_VxB = np.empty(self._own.mean_GxZ.shape, np.float32)
        for rows in self._attributes.blocks():
            out_VxB[rows] = self._of(rows)
        out_VxB[0] = 0
        return out_VxB

    def people_step(self, steps: int) -> None:
        """People's coefficients given the videos, then their prior."""
        r = self._responses

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            video_ExB = self._of(r.video_E[event_E])
            one_Ex1, duration_Ex1 = np.ones((len(event_E), 1)), r.duration_E[event_E, None]
            x_ExZ = np.concatenate([one_Ex1, video_ExB[:, 1:], duration_Ex1], axis=1)
            return x_ExZ, r.offset_E[event_E] + video_ExB[:, 0]

        for _ in range(steps):
            total_ZxZ = self.people.newton(rows_of, r.yes_E, covariance_KxZxZ=self._covariance_KxZxZ)
        self.people.learn_precision(total_ZxZ)

    def authors_step(self, steps: int) -> None:
        """Effects of authors beyond attributes."""
        before_AxB = self._authors.mean_GxZ.copy()

        def rest(video_E: np.ndarray) -> np.ndarray:
            author_ExB = before_AxB[self._author_V[video_E]]
            return self._attributes.rest_VxB[video_E] + author_ExB + self._own.mean_GxZ[video_E] - author_ExB

        self._video_side(self._authors, rest, steps)

    def videos_step(self, steps: int) -> None:
        """Effects of single videos, then the part of them that attributes explain."""
        self._video_side(self._own, self._without_own, steps)
        self._attributes.learn(self._own.mean_GxZ, self._own.present_K)

    def _of(self, video_x: np.ndarray | slice) -> np.ndarray:
        return self._without_own(video_x) + self._own.mean_GxZ[video_x]

    def _without_own(self, video_x: np.ndarray | slice) -> np.ndarray:
        return self._attributes.rest_VxB[video_x] + self._authors.mean_GxZ[self._author_V[video_x]]

    def _video_side(self, level: _Level, rest: Callable[[np.ndarray], np.ndarray], steps: int) -> None:
        """Effects of a level on `(a, z)` given the people; `rest` gives the rest of `(a, z)` of some videos."""
        r, person_UxZ = self._responses, self.people.mean_GxZ
        doubt = Doubt(self._source_E, self._covariance_KxZxZ[:, 1:-1, 1:-1])

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            person_ExZ = person_UxZ[r.user_E[event_E]]
            x_ExB = np.concatenate([np.ones((len(event_E), 1)), person_ExZ[:, 1:-1]], axis=1)
            known_E = np.einsum("eb,eb->e", x_ExB, rest(r.video_E[event_E]))
            base_E = r.offset_E[event_E] + person_ExZ[:, 0] + r.duration_E[event_E] * person_ExZ[:, -1]
            return x_ExB, base_E + known_E

        for _ in range(steps):
            total_ZxZ = level.newton(rows_of, r.yes_E, doubt)
        level.learn_precision(total_ZxZ)


class _AttributeRegression:
    """Ridge regression `known_v B` of `(a, z)` on a video's attributes, beside the start.

    `rest_VxB` is their sum, float64. The start and the regression alone are computed anew, a block of videos at a time.
    """

    def __init__(self, videos: Videos, ridge: float) -> None:
        self._start, self._known, self._ridge = videos, videos.known, ridge
        count, size = len(videos.author_V), 1 + videos.vector_VxD.shape[1]
        self.rest_VxB = np.empty((count, size))
        total_F, square_F = 0.0, 0.0
        for rows in self.blocks():
            self.rest_VxB[rows] = self._started(rows)
            x_NxF = self._joined(rows)
            total_F, square_F = total_F + x_NxF.sum(0), square_F + (x_NxF**2).sum(0)
        self._mean_F = total_F / count
        deviation_F = np.sqrt(np.maximum(square_F / count - self._mean_F**2, 0))
        self._scale_F = np.where(deviation_F > 1e-6, 1 / np.maximum(deviation_F, 1e-6), 0.0)
        self._weight_FxB = np.zeros((len(self._mean_F) + 1, size))

    def learn(self, own_VxB: np.ndarray, present_K: np.ndarray) -> None:
        """Moves the part that attributes explain out of `own_VxB`, in place, for the videos with responses."""
        present_V = np.zeros(len(own_VxB), bool)
        present_V[present_K] = True
        gram_FxF, pull_FxB = self._ridge * np.eye(len(self._weight_FxB)), np.zeros_like(self._weight_FxB)
        for rows in self.blocks():
            kept, x_NxF = np.flatnonzero(present_V[rows]), self._standardised(rows)
            effect_NxB, x_KxF = x_NxF @ self._weight_FxB, x_NxF[kept]
            gram_FxF += x_KxF.T @ x_KxF
            pull_FxB += x_KxF.T @ (effect_NxB + own_VxB[rows])[kept]
        before_FxB, self._weight_FxB = self._weight_FxB, np.linalg.solve(gram_FxF, pull_FxB)
        for rows in self.blocks():
            x_NxF = self._standardised(rows)
            effect_NxB = x_NxF @ self._weight_FxB
            own_VxB[rows] += np.where(present_V[rows, None], x_NxF @ before_FxB - effect_NxB, 0)
            self.rest_VxB[rows] = self._started(rows) + effect_NxB

    def blocks(self) -> Iterator[slice]:
        """Ranges of videos."""
        for start in range(0, len(self.rest_VxB), ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)

    def _started(self, rows: slice) -> np.ndarray:
        parts = [self._start.appeal_V[rows, None], self._start.vector_VxD[rows]]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def _joined(self, rows: slice) -> np.ndarray:
        return np.concatenate([np.asarray(part[rows], np.float64) for part in self._known], axis=1)

    def _standardised(self, rows: slice) -> np.ndarray:
        x_NxF = (self._joined(rows) - self._mean_F) * self._scale_F
        return np.concatenate([x_NxF, np.ones((len(x_NxF), 1))], axis=1)
