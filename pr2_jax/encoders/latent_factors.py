"""Preferences of people and vectors of videos from one likelihood, by what each answered to what it was shown [ours].

Regression-based latent factors [lit: RLFM, Agarwal and Chen, KDD 2009] with logistic answers. For an answer e of person
u to video v, where `o_e` is what spoke for "yes" whoever was asked,

    logit_e = o_e + a_v + w_u . (1, z_v, duration_e)
    w_u ~ N(0, S_u),    (a_v, z_v) ~ N(start_v + known_v B + author_v, S_v),    author_v ~ N(0, S_a)

A video that nobody saw has what it shows (`known_v B`) and how its author's other videos were received; one that many
saw moves away from that as far as their answers are worth. Vectors trained by gradients (models/preference.py) are the
start: there a row a video overfits, here each is as sure as its answers make it.

Estimated as by expectation maximisation: people given videos, then authors, then videos, each by steps towards its
posterior on a bound of the likelihood and followed by its variances; then B. To videos people's axes are uncertain: the
covariance counts where it meets the effect sought (leaving out where it meets the rest of a video, or the constant,
changes no figure of a validation day), so that a few answers are not taken for a firm preference. To people videos are
as they stand. A step costs `E (2 + D)^2` for E answers and a solve for each group that has any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from pr2_jax.config import PreferenceConfig

ANSWERS_AT_ONCE = 5_000
"""Answers whose rows are held at a time: 0.7 MB at a width of 16, 11 MB where each is of another group."""
CHUNK = 16
"""Answers of one group that are multiplied in one piece; a group's last piece is filled up with zeros."""
ROWS_AT_ONCE = 100_000
MOST_LOGIT = 500.0
"""Beyond it nothing but an overflow would change."""
FIRST_STEPS = 2
"""Steps of the first sweep, which starts from nothing; later ones start from the last and take one."""


class Answers(NamedTuple):
    """E answers, in any order."""

    user_E: np.ndarray
    video_E: np.ndarray
    yes_E: np.ndarray  # 0 or 1
    offset_E: np.ndarray  # logit of "yes" without knowing who and what
    duration_E: np.ndarray  # standardised log duration; 0 = not known


class Videos(NamedTuple):
    """V videos as the fit starts. Row 0 is the unknown one."""

    appeal_V: np.ndarray
    vector_VxD: np.ndarray  # whitened
    author_V: np.ndarray  # 0 = unknown
    known: tuple[np.ndarray, ...]  # arrays [V, F] that together tell what a video shows


class Factors(NamedTuple):
    """What a fit leaves."""

    video_VxB: np.ndarray  # float32 [V, 1 + D]: appeal and vector; row 0 is zero
    precision_ZxZ: np.ndarray  # float64, S_u^-1 of (constant, vector, duration), Z = 2 + D


def first_precision(config: PreferenceConfig, width: int) -> np.ndarray:
    """Of people before anything is learnt, `[Z, Z]`: of the constant, each axis, and the duration."""
    return np.diag([1.0, *[config.fit_prior] * width, config.fit_prior / 2])


def fit(config: PreferenceConfig, answers: Answers, videos: Videos, users: int) -> Factors:
    """`config.fit_sweeps` rounds; with none, or no answers, the start and the first precision."""
    state = _Fit(config, answers, videos, users)
    if len(answers.user_E):
        for sweep in range(config.fit_sweeps):
            steps = 1 if sweep else FIRST_STEPS
            state.people_step(steps)
            state.authors_step(steps)
            state.videos_step(steps)
        if config.fit_sweeps:
            state.people_step(1)
    video_VxB = state.video_VxB.astype(np.float32)
    video_VxB[0] = 0
    return Factors(video_VxB, state.people.precision_ZxZ)


def likelihood(logit_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chance of "yes", and the curvature of the quadratic that bounds the log likelihood from below and touches it
    at the logit, `(p - 1/2) / logit` [lit: Jaakkola and Jordan 2000].

    A step on the bound never loses likelihood. With `p (1 - p)`, the curvature at the point itself, it may run away:
    where a start is sure and wrong there is next to none.
    """
    clipped_x = np.clip(logit_x, -MOST_LOGIT, MOST_LOGIT)
    p_x = 1 / (1 + np.exp(-clipped_x))  # scipy's expit takes three times as long
    small_x = np.abs(clipped_x) < 1e-4
    return p_x, np.where(small_x, 0.25, (p_x - 0.5) / np.where(small_x, 1.0, clipped_x))


class _Level:
    """One kind of effect: which answers bear on which group, the groups' posterior means, and their prior.

    Only groups with answers are worked on, so that a step costs what its answers cost; the others stay at the prior's
    mean, zero, and so does group 0, the unknown.
    """

    def __init__(self, group_E: np.ndarray, groups: int, precision_ZxZ: np.ndarray) -> None:
        self.precision_ZxZ = precision_ZxZ
        order_E = np.argsort(group_E, kind="stable")
        self._order_E = order_E[np.searchsorted(group_E[order_E], 1) :]
        ordered_E = group_E[self._order_E]
        self.present_K, first_K, self._place_E = np.unique(ordered_E, return_index=True, return_inverse=True)
        self._bound_K = np.append(first_K, len(self._order_E))
        self.mean_GxZ = np.zeros((groups, len(precision_ZxZ)))

    def learn(
        self,
        steps: int,
        rows_of: RowsOf,
        yes_E: np.ndarray,
        doubt: Doubt | None = None,
        covariance_KxZxZ: np.ndarray | None = None,
    ) -> None:
        """Steps under the prior as it is, then the prior."""
        for _ in range(steps):
            total_ZxZ = self.newton(rows_of, yes_E, doubt, covariance_KxZxZ)
        self.learn_precision(total_ZxZ)

    def newton(
        self,
        rows_of: RowsOf,
        yes_E: np.ndarray,
        doubt: Doubt | None = None,
        covariance_KxZxZ: np.ndarray | None = None,
    ) -> np.ndarray:
        """One step of every present group's mean. Returns the sum of their posterior covariances, `[Z, Z]`; all of them
        are written into `covariance` where it is given."""
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
        """The prior under which the present groups are likeliest, given their means and summed covariances."""
        mean_KxZ = self.mean_GxZ[self.present_K]
        if len(mean_KxZ):
            self.precision_ZxZ = np.linalg.inv((mean_KxZ.T @ mean_KxZ + total_ZxZ) / len(mean_KxZ))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of present groups with some `ANSWERS_AT_ONCE` answers each; one group may have more."""
        start, groups = 0, len(self.present_K)
        while start < groups:
            within = int(np.searchsorted(self._bound_K, self._bound_K[start] + ANSWERS_AT_ONCE, side="right")) - 1
            stop = min(max(within, start + 1), groups)
            yield start, stop
            start = stop

    def _sums(
        self, rows_of: RowsOf, yes_E: np.ndarray, doubt: Doubt | None, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """`sum w E[x x^T]` and `sum x (y - p + w x . mean)` over the answers of present groups `[start, stop)`: the two
        sides of iteratively reweighted least squares."""
        size = len(self.precision_ZxZ)
        gram_KxZxZ, pull_KxZ = np.zeros((stop - start, size, size)), np.zeros((stop - start, size))
        first, last = self._bound_K[start], self._bound_K[stop]
        for at in range(first, last, ANSWERS_AT_ONCE):
            piece = slice(at, min(at + ANSWERS_AT_ONCE, last))
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
    """`sum w x x^T` `[K, Z, Z]` of K runs of rows, by products of pieces of one length."""
    length_K = np.diff(np.append(opens_K, len(x_ExZ)))
    pieces_K = -(-length_K // CHUNK)
    first_K = np.cumsum(pieces_K) - pieces_K
    within_E = np.arange(len(x_ExZ)) - np.repeat(opens_K, length_K)
    piece_E, slot_E = np.repeat(first_K, length_K) + within_E // CHUNK, within_E % CHUNK
    root_PxCxZ = np.zeros((pieces_K.sum(), CHUNK, x_ExZ.shape[1]))
    root_PxCxZ[piece_E, slot_E] = x_ExZ * np.sqrt(weight_E)[:, None]
    return np.add.reduceat(root_PxCxZ.transpose(0, 2, 1) @ root_PxCxZ, first_K)


RowsOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of some answers: x `[E, Z]`, and the logit without the effect `[E]`."""


class Doubt(NamedTuple):
    """How sure the x of each answer is, but for its first entry, which is certain: the covariance of its source."""

    source_E: np.ndarray
    covariance_SxDxD: np.ndarray

    def summed(self, event_E: np.ndarray, weight_E: np.ndarray, opens_K: np.ndarray) -> np.ndarray:
        """`sum w covariance` `[K, D, D]` over K runs of answers."""
        sources, width = self.covariance_SxDxD.shape[:2]
        parts = (weight_E, self.source_E[event_E], np.append(opens_K, len(event_E)))
        by_source = sp.csr_array(parts, shape=(len(opens_K), sources))
        return (by_source @ self.covariance_SxDxD.reshape(sources, -1)).reshape(-1, width, width)


class _Fit:
    """The state between sweeps."""

    def __init__(self, config: PreferenceConfig, answers: Answers, videos: Videos, users: int) -> None:
        self._answers, self._author_V = answers, videos.author_V
        start = [videos.appeal_V[:, None], videos.vector_VxD]
        self.video_VxB = self._start_VxB = np.concatenate(start, axis=1).astype(np.float64)
        size = self._start_VxB.shape[1]
        prior_BxB = config.fit_prior * np.eye(size)
        self.people = _Level(answers.user_E, users, first_precision(config, size - 1))
        self._covariance_KxZxZ = np.zeros((len(self.people.present_K), size + 1, size + 1))
        self._source_E = np.searchsorted(self.people.present_K, answers.user_E)
        self._authors = _Level(self._author_V[answers.video_E], int(self._author_V.max()) + 1, prior_BxB)
        self._own = _Level(answers.video_E, len(self._start_VxB), prior_BxB)
        self._shown = _Shown(videos.known, size, config.fit_ridge)

    def people_step(self, steps: int) -> None:
        """Everyone's coefficients given the videos, and how much people differ."""
        a = self._answers

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            video_ExB = self.video_VxB[a.video_E[event_E]]
            one_Ex1, duration_Ex1 = np.ones((len(event_E), 1)), a.duration_E[event_E, None]
            x_ExZ = np.concatenate([one_Ex1, video_ExB[:, 1:], duration_Ex1], axis=1)
            return x_ExZ, a.offset_E[event_E] + video_ExB[:, 0]

        self.people.learn(steps, rows_of, a.yes_E, covariance_KxZxZ=self._covariance_KxZxZ)

    def authors_step(self, steps: int) -> None:
        """What an author's videos have in common beside what they show."""
        self._video_side(self._authors, self.video_VxB - self._of_authors(), steps)
        self.video_VxB = self._without_own() + self._own.mean_GxZ

    def videos_step(self, steps: int) -> None:
        """What is a video's own; then how much of that its attributes explain."""
        self._video_side(self._own, self._without_own(), steps)
        self._shown.learn(self._own.mean_GxZ, self._own.present_K)
        self.video_VxB = self._without_own() + self._own.mean_GxZ

    def _of_authors(self) -> np.ndarray:
        return self._authors.mean_GxZ[self._author_V]

    def _without_own(self) -> np.ndarray:
        return self._start_VxB + self._shown.effect_VxB + self._of_authors()

    def _video_side(self, level: _Level, prior_VxB: np.ndarray, steps: int) -> None:
        """Effects that add to `(a, z)`, given the people; `prior_VxB` is the rest of `(a, z)`."""
        a, person_UxZ = self._answers, self.people.mean_GxZ
        doubt = Doubt(self._source_E, self._covariance_KxZxZ[:, 1:-1, 1:-1])

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            person_ExZ = person_UxZ[a.user_E[event_E]]
            x_ExB = np.concatenate([np.ones((len(event_E), 1)), person_ExZ[:, 1:-1]], axis=1)
            known_E = np.einsum("eb,eb->e", x_ExB, prior_VxB[a.video_E[event_E]])
            base_E = a.offset_E[event_E] + person_ExZ[:, 0] + a.duration_E[event_E] * person_ExZ[:, -1]
            return x_ExB, base_E + known_E

        level.learn(steps, rows_of, a.yes_E, doubt)


class _Shown:
    """`known_v B`: the part of `(a, z)` that a video's attributes tell, by ridge regression."""

    def __init__(self, known: tuple[np.ndarray, ...], size: int, ridge: float) -> None:
        self._known, self._ridge = known, ridge
        videos = len(known[0])
        self.effect_VxB = np.zeros((videos, size))
        total_F, square_F = 0.0, 0.0
        for rows in self._blocks():
            x_NxF = self._joined(rows)
            total_F, square_F = total_F + x_NxF.sum(0), square_F + (x_NxF**2).sum(0)
        self._mean_F = total_F / videos
        deviation_F = np.sqrt(np.maximum(square_F / videos - self._mean_F**2, 0))
        self._scale_F = np.where(deviation_F > 1e-6, 1 / np.maximum(deviation_F, 1e-6), 0.0)

    def learn(self, own_VxB: np.ndarray, answered_K: np.ndarray) -> None:
        """Moves what attributes explain out of `own_VxB`, in place, for the videos with answers."""
        answered_V = np.zeros(len(own_VxB), bool)
        answered_V[answered_K] = True
        features = len(self._mean_F) + 1
        gram_FxF, pull_FxB = self._ridge * np.eye(features), np.zeros((features, own_VxB.shape[1]))
        for rows in self._blocks():
            kept = np.flatnonzero(answered_V[rows])
            x_NxF = self._standardised(rows)[kept]
            gram_FxF += x_NxF.T @ x_NxF
            pull_FxB += x_NxF.T @ (self.effect_VxB[rows] + own_VxB[rows])[kept]
        weight_FxB = np.linalg.solve(gram_FxF, pull_FxB)
        for rows in self._blocks():
            effect_NxB = self._standardised(rows) @ weight_FxB
            own_VxB[rows] += np.where(answered_V[rows, None], self.effect_VxB[rows] - effect_NxB, 0)
            self.effect_VxB[rows] = effect_NxB

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.effect_VxB), ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)

    def _joined(self, rows: slice) -> np.ndarray:
        return np.concatenate([np.asarray(part[rows], np.float64) for part in self._known], axis=1)

    def _standardised(self, rows: slice) -> np.ndarray:
        x_NxF = (self._joined(rows) - self._mean_F) * self._scale_F
        return np.concatenate([x_NxF, np.ones((len(x_NxF), 1))], axis=1)
