"""Tastes of people and vectors of videos from one likelihood, by what each answered to what it was shown [ours].

Regression-based latent factors [lit: RLFM, Agarwal and Chen, KDD 2009] with logistic answers. For an answer e of person
u to video v, where `o_e` is what spoke for "yes" whoever was asked,

    logit_e = o_e + a_v + w_u . (1, z_v, duration_e)
    w_u ~ N(0, S_u),    (a_v, z_v) ~ N(start_v + known_v B + author_v, S_v),    author_v ~ N(0, S_a)

A video that nobody saw has what it shows (`known_v B`) and how its author's other videos were received; one that many
saw moves away from that as far as their answers are worth. Vectors trained by gradients (models/taste.py) are the
start: there a row a video overfits, here each is as sure as its answers make it.

Estimated by expectation maximisation: people given videos, then authors, then videos, each by Newton steps towards its
posterior; then B and the variances. Of people the covariance counts as well as the mean, so that a few answers are not
taken for a firm taste. One pass costs `E (2 + D)^2` for E answers, whatever the number of people or videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from pr2_jax.config import TasteConfig

ANSWERS_AT_ONCE = 20_000
"""Answers whose rows are held at a time: some 3 MB at a width of 16, so that they stay in the cache."""
CHUNK = 16
"""Answers of one group that are multiplied in one piece; a group's last piece is filled up with zeros."""
GROUPS_AT_ONCE = 20_000
ROWS_AT_ONCE = 100_000
FIRST_STEPS = 2
"""Newton steps of the first sweep, which starts from nothing; later ones start from the last and take one."""


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


def first_precision(config: TasteConfig, width: int) -> np.ndarray:
    """Of people before anything is learnt, `[Z, Z]`: of the constant, each axis, and the duration."""
    return np.diag([1.0, *[config.fit_prior] * width, config.fit_prior / 2])


def fit(config: TasteConfig, answers: Answers, videos: Videos, users: int) -> Factors:
    """`config.fit_sweeps` rounds; with none, or no answers, the start and the first precision."""
    width = videos.vector_VxD.shape[1]
    start_VxB = np.concatenate([videos.appeal_V[:, None], videos.vector_VxD], axis=1).astype(np.float64)
    state = _Fit(config, answers, videos, users, start_VxB, first_precision(config, width))
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


class _Level:
    """One kind of effect: which answers bear on which group, the groups' posterior means, and their prior."""

    def __init__(self, group_E: np.ndarray, groups: int, precision_ZxZ: np.ndarray) -> None:
        self.group_E, self.precision_ZxZ = group_E, precision_ZxZ
        self._order_E = np.argsort(group_E, kind="stable")
        self._bound_G = np.searchsorted(group_E[self._order_E], np.arange(groups + 1))
        self.answered_G = np.diff(self._bound_G) > 0
        self.mean_GxZ = np.zeros((groups, len(precision_ZxZ)))

    def newton(
        self,
        rows_of: RowsOf,
        yes_E: np.ndarray,
        doubt: Doubt | None = None,
        covariance_GxZxZ: np.ndarray | None = None,
    ) -> np.ndarray:
        """One step of every group's mean; a group without answers goes to zero.

        Returns the sum of the posterior covariances of groups with answers, `[Z, Z]`; all of them are written into
        `covariance` where it is given.
        """
        total_ZxZ = np.zeros_like(self.precision_ZxZ)
        for start, stop in self._blocks():
            gram_GxZxZ, pull_GxZ = self._sums(rows_of, yes_E, doubt, start, stop)
            posterior_GxZxZ = np.linalg.inv(gram_GxZxZ + self.precision_ZxZ)
            self.mean_GxZ[start:stop] = (posterior_GxZxZ @ pull_GxZ[..., None])[..., 0]
            total_ZxZ += posterior_GxZxZ[self.answered_G[start:stop]].sum(0)
            if covariance_GxZxZ is not None:
                covariance_GxZxZ[start:stop] = posterior_GxZxZ
        return total_ZxZ

    def learn_precision(self, total_ZxZ: np.ndarray) -> None:
        """The prior under which groups with answers are likeliest, given their means and summed covariances."""
        mean_GxZ = self.mean_GxZ[self.answered_G]
        self.precision_ZxZ = np.linalg.inv((mean_GxZ.T @ mean_GxZ + total_ZxZ) / max(1, len(mean_GxZ)))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of groups with some `ANSWERS_AT_ONCE` answers each; one group may have more."""
        start, groups = 0, len(self.mean_GxZ)
        while start < groups:
            within = int(np.searchsorted(self._bound_G, self._bound_G[start] + ANSWERS_AT_ONCE, side="right")) - 1
            stop = min(max(within, start + 1), start + GROUPS_AT_ONCE, groups)
            yield start, stop
            start = stop

    def _sums(
        self, rows_of: RowsOf, yes_E: np.ndarray, doubt: Doubt | None, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Over the answers of groups `[start, stop)`: `sum w E[x x^T]` and `sum x (y - p + w x . mean)`, with
        w = p (1 - p): the two sides of iteratively reweighted least squares."""
        size = len(self.precision_ZxZ)
        gram_GxZxZ, pull_GxZ = np.zeros((stop - start, size, size)), np.zeros((stop - start, size))
        first, last = self._bound_G[start], self._bound_G[stop]
        for at in range(first, last, ANSWERS_AT_ONCE):
            event_E = self._order_E[at : min(at + ANSWERS_AT_ONCE, last)]
            group_E = self.group_E[event_E]
            x_ExZ, base_E = rows_of(event_E)
            effect_E = np.einsum("ez,ez->e", x_ExZ, self.mean_GxZ[group_E])
            p_E = 1 / (1 + np.exp(-(base_E + effect_E)))
            weight_E = p_E * (1 - p_E)
            opens_K = np.flatnonzero(np.r_[True, group_E[1:] != group_E[:-1]])
            place_K = group_E[opens_K] - start
            gram_GxZxZ[place_K] += _grams(x_ExZ, weight_E, opens_K)
            pull_GxZ[place_K] += np.add.reduceat(x_ExZ * (yes_E[event_E] - p_E + weight_E * effect_E)[:, None], opens_K)
            if doubt is not None:
                by_source = sp.csr_array(
                    (weight_E, doubt.source_E[event_E], np.append(opens_K, len(event_E))),
                    shape=(len(opens_K), len(doubt.covariance_UxZxZ)),
                )
                flat_UxZZ = doubt.covariance_UxZxZ.reshape(len(doubt.covariance_UxZxZ), -1)
                gram_GxZxZ[place_K] += (by_source @ flat_UxZZ).reshape(-1, size, size)
        return gram_GxZxZ, pull_GxZ


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
    """How sure the x of each answer is: the covariance `[U, Z, Z]` of its source."""

    source_E: np.ndarray
    covariance_UxZxZ: np.ndarray


class _Fit:
    """The state between sweeps."""

    def __init__(
        self,
        config: TasteConfig,
        answers: Answers,
        videos: Videos,
        users: int,
        start_VxB: np.ndarray,
        precision_ZxZ: np.ndarray,
    ) -> None:
        self._config, self._answers, self._videos, self._start_VxB = config, answers, videos, start_VxB
        size = start_VxB.shape[1]
        prior_BxB = config.fit_prior * np.eye(size)
        self.people = _Level(answers.user_E, users, precision_ZxZ)
        self._covariance_UxZxZ = np.zeros((users, size + 1, size + 1))
        author_E = videos.author_V[answers.video_E]
        self._authors = _Level(author_E, int(videos.author_V.max()) + 1, prior_BxB)
        self._own = _Level(answers.video_E, len(start_VxB), prior_BxB)
        self._shown = _Shown(videos.known, size, config.fit_ridge)
        self.video_VxB = start_VxB.copy()

    def people_step(self, steps: int) -> None:
        """Everyone's coefficients given the videos, and how much people differ."""
        a = self._answers

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            video_ExB = self.video_VxB[a.video_E[event_E]]
            one_Ex1, duration_Ex1 = np.ones((len(event_E), 1)), a.duration_E[event_E, None]
            x_ExZ = np.concatenate([one_Ex1, video_ExB[:, 1:], duration_Ex1], axis=1)
            return x_ExZ, a.offset_E[event_E] + video_ExB[:, 0]

        for _ in range(steps):
            total_ZxZ = self.people.newton(rows_of, a.yes_E, covariance_GxZxZ=self._covariance_UxZxZ)
        self.people.learn_precision(total_ZxZ)

    def authors_step(self, steps: int) -> None:
        """What an author's videos have in common beside what they show."""
        if self._videos.author_V.any():
            self._video_side(self._authors, self.video_VxB - self._of_authors(), steps)
            self._authors.mean_GxZ[0] = 0  # unknown authors are many
            self.video_VxB = self._start_VxB + self._shown.effect_VxB + self._of_authors() + self._own.mean_GxZ

    def videos_step(self, steps: int) -> None:
        """What is a video's own; then how much of that its attributes explain."""
        prior_VxB = self._start_VxB + self._shown.effect_VxB + self._of_authors()
        self._video_side(self._own, prior_VxB, steps)
        self._shown.learn(self._own.mean_GxZ, self._own.answered_G)
        own_VxB = self._own.mean_GxZ
        self.video_VxB = self._start_VxB + self._shown.effect_VxB + self._of_authors() + own_VxB

    def _of_authors(self) -> np.ndarray:
        return self._authors.mean_GxZ[self._videos.author_V]

    def _video_side(self, level: _Level, prior_VxB: np.ndarray, steps: int) -> None:
        """Effects that add to `(a, z)`, given the people; `prior_VxB` is the rest of `(a, z)`."""
        a, person_UxZ = self._answers, self.people.mean_GxZ
        covariance_UxBxB = self._covariance_UxZxZ[:, :-1, :-1].copy()
        covariance_UxBxB[:, 0] = covariance_UxBxB[:, :, 0] = 0  # the 1 that meets the appeal is certain

        def rows_of(event_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            person_ExZ = person_UxZ[a.user_E[event_E]]
            x_ExB = np.concatenate([np.ones((len(event_E), 1)), person_ExZ[:, 1:-1]], axis=1)
            known_E = np.einsum("eb,eb->e", x_ExB, prior_VxB[a.video_E[event_E]])
            base_E = a.offset_E[event_E] + person_ExZ[:, 0] + a.duration_E[event_E] * person_ExZ[:, -1]
            return x_ExB, base_E + known_E

        for _ in range(steps):
            total_BxB = level.newton(rows_of, a.yes_E, Doubt(a.user_E, covariance_UxBxB))
        level.learn_precision(total_BxB)


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

    def learn(self, own_VxB: np.ndarray, answered_V: np.ndarray) -> None:
        """Moves what attributes explain out of `own_VxB`, in place, for videos with answers."""
        features = len(self._mean_F) + 1
        gram_FxF, pull_FxB = self._ridge * np.eye(features), np.zeros((features, own_VxB.shape[1]))
        for rows in self._blocks():
            kept = np.flatnonzero(answered_V[rows])
            x_NxF = self._standardised(rows)[kept]
            target_NxB = (self.effect_VxB[rows] + own_VxB[rows])[kept]
            gram_FxF += x_NxF.T @ x_NxF
            pull_FxB += x_NxF.T @ target_NxB
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
