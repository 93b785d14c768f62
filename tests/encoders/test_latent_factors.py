"""The fit of people and videos: a plain twin of its step, blocks that change nothing, and recovery from responses."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pr2_jax.config import PreferenceConfig
from pr2_jax.encoders import latent_factors
from pr2_jax.encoders.latent_factors import Doubt, Responses, Videos, _Level, fit
from pr2_jax.encoders.preference_regression import whitened
from pr2_jax.metrics.ranking_metrics import auc

PEOPLE, VIDEOS, WIDTH = 150, 120, 3


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class _World:
    """People and videos with known preferences; attributes tell half of a video's vector, its author another part."""

    def __init__(self, responses: int, seed: int = 0) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.author_V = rng.integers(1, 12, VIDEOS)
        self.shown_VxD = rng.normal(size=(VIDEOS, WIDTH))
        of_authors = rng.normal(0, 0.7, (12, WIDTH))
        self.vector_VxD = self.shown_VxD + of_authors[self.author_V] + rng.normal(0, 0.5, (VIDEOS, WIDTH))
        self.preference_UxD = rng.normal(size=(PEOPLE, WIDTH)) * [1.5, 1.5, 0.02]  # the third axis moves nobody
        self.appeal_V = rng.normal(0, 0.5, VIDEOS)
        self.responses = self.drawn(responses)
        noise = rng.normal(size=(VIDEOS, 2))
        self.videos = Videos(
            np.zeros(VIDEOS), rng.normal(size=(VIDEOS, WIDTH)) * 0.3 + self.vector_VxD, self.author_V,
            (self.shown_VxD.astype(np.float32), noise),
        )  # fmt: skip

    def drawn(self, count: int, skip: int = 0) -> Responses:
        """Videos below `skip` are never shown."""
        user_E, video_E = self.rng.integers(1, PEOPLE, count), self.rng.integers(max(1, skip), VIDEOS, count)
        logit_E = self.appeal_V[video_E] + (self.preference_UxD[user_E] * self.vector_VxD[video_E]).sum(1)
        yes_E = (self.rng.random(count) < _sigmoid(logit_E)).astype(float)
        return Responses(user_E, video_E, yes_E, np.zeros(count), self.rng.normal(size=count))

    def judged(self, factors: latent_factors.Factors, skip: int = 0) -> float:
        """AUC of true preferences with the fitted vectors, as far as a linear map of either goes."""
        new = self.drawn(4_000, skip)
        found_VxD = factors.video_VxB[:, 1:].astype(np.float64)
        mapped = found_VxD @ np.linalg.lstsq(found_VxD[1:], self.vector_VxD[1:], rcond=None)[0]
        return auc(new.yes_E > 0, (self.preference_UxD[new.user_E] * mapped[new.video_E]).sum(1))


def _curvature(logit: float) -> float:
    return np.tanh(logit / 2) / (2 * logit)


@pytest.mark.parametrize("doubted", [False, True])
def test_a_step_is_that_of_a_plain_twin(rng, doubted, monkeypatch):
    monkeypatch.setattr(latent_factors, "CHUNK", 3)
    count, groups, size = 60, 9, 4
    group_E, x_ExZ, base_E = rng.integers(0, 8, count), rng.normal(size=(count, size)), rng.normal(size=count)
    yes_E, source_E = (rng.random(count) < 0.5).astype(float), rng.integers(0, 5, count)
    root = rng.normal(size=(5, size - 1, size - 1))
    covariance_SxDxD = root @ root.transpose(0, 2, 1) if doubted else np.zeros((5, size - 1, size - 1))
    precision = np.diag([1.0, 2.0, 3.0, 4.0])
    level = _Level(group_E, groups, precision)
    start = np.where(np.isin(np.arange(groups), [0, 8])[:, None], 0, rng.normal(size=(groups, size)))
    level.mean_GxZ = start.copy()
    assert level.present_K.tolist() == list(range(1, 8))
    out = np.zeros((7, size, size))
    total = level.newton(
        lambda e: (x_ExZ[e], base_E[e]), yes_E, Doubt(source_E, covariance_SxDxD) if doubted else None, out
    )
    for group in range(1, 8):
        curve, slope = precision.copy(), -precision @ start[group]
        for e in np.flatnonzero(group_E == group):
            logit = base_E[e] + x_ExZ[e] @ start[group]
            w, unsure = _curvature(logit), np.pad(covariance_SxDxD[source_E[e]], (1, 0))
            curve += w * (np.outer(x_ExZ[e], x_ExZ[e]) + unsure)
            slope += (yes_E[e] - _sigmoid(logit)) * x_ExZ[e] - w * unsure @ start[group]
        np.testing.assert_allclose(level.mean_GxZ[group], start[group] + np.linalg.solve(curve, slope), atol=1e-10)
        np.testing.assert_allclose(out[group - 1], np.linalg.inv(curve), atol=1e-10)
    np.testing.assert_allclose(total, out.sum(0), atol=1e-10)
    assert not level.mean_GxZ[[0, 8]].any()  # the unknown, and one for which nobody responded
    level.learn_precision(total)
    second = sum(np.outer(m, m) for m in level.mean_GxZ[1:8]) + total
    np.testing.assert_allclose(np.linalg.inv(level.precision_ZxZ), second / 7, atol=1e-10)


def test_curvature_is_that_of_a_bound():
    """Which lies below the likelihood everywhere and touches it at the point, however far out."""
    to = np.linspace(-30, 30, 601)
    for at in (-20.0, -3.0, 0.0, 1e-5, 2.0, 12.0):
        p, w = latent_factors.likelihood(np.array([at]))
        for yes in (0, 1):
            sign = 2 * yes - 1
            bound = -np.logaddexp(0, -sign * at) + (yes - p) * (to - at) - w / 2 * (to - at) ** 2
            assert (bound <= -np.logaddexp(0, -sign * to) + 1e-9).all()
    assert np.isfinite(latent_factors.likelihood(np.array([-1e9, 1e9]))).all()


def test_one_sweep_is_that_of_a_plain_twin():
    """Every effect from nothing, one after the other, with offsets, durations and videos without author."""
    world = _World(300)
    rng, a = world.rng, world.responses._replace(offset_E=world.rng.normal(size=300))
    author_V = np.where(world.author_V > 6, 0, world.author_V)
    videos = world.videos._replace(author_V=author_V, appeal_V=rng.normal(size=VIDEOS))
    got = fit(PreferenceConfig(fit_sweeps=1), a, videos, PEOPLE)
    twin = _Twin(a, videos)
    for _ in range(2):
        twin.step_people()
    for _ in range(2):
        twin.step_side(twin.author, author_V, twin.author_prior)
    twin.author_prior = twin.prior_of(twin.author, twin.author_cov)
    for _ in range(2):
        twin.step_side(twin.own, np.arange(VIDEOS), twin.own_prior)
    twin.explain()
    twin.step_people()
    np.testing.assert_allclose(got.video_VxB[1:], twin.videos()[1:], atol=1e-5)
    np.testing.assert_allclose(got.precision_ZxZ, twin.people_prior, rtol=1e-6, atol=1e-8)


class _Twin:
    """The fit in plain loops over responses."""

    def __init__(self, a: Responses, v: Videos) -> None:
        self.a, self.v = a, v
        self.start = np.concatenate([v.appeal_V[:, None], v.vector_VxD], 1)
        self.person, self.person_cov = np.zeros((PEOPLE, WIDTH + 2)), {}
        self.people_prior = np.diag([1.0, *[4.0] * WIDTH, 2.0])
        self.author, self.own, self.explained = (np.zeros((VIDEOS, WIDTH + 1)) for _ in range(3))
        self.author_prior = self.own_prior = 4.0 * np.eye(WIDTH + 1)
        self.author_cov: dict = {}

    def videos(self) -> np.ndarray:
        return self.start + self.explained + self.author[self.v.author_V] + self.own

    @staticmethod
    def prior_of(mean: np.ndarray, cov: dict) -> np.ndarray:
        return np.linalg.inv(sum(np.outer(mean[g], mean[g]) + cov[g] for g in cov) / len(cov))

    def _solve(self, rows, mean, prior):
        """`rows`: (x, covariance of x, logit without the effect, yes)."""
        curve, slope = prior.copy(), -prior @ mean
        for x, unsure, base, yes in rows:
            logit = base + x @ mean
            curve += _curvature(logit) * (np.outer(x, x) + unsure)
            slope += (yes - _sigmoid(logit)) * x - _curvature(logit) * unsure @ mean
        return mean + np.linalg.solve(curve, slope), np.linalg.inv(curve)

    def step_people(self) -> None:
        """The last of the steps of a sweep learns the prior; two calls in a row share one."""
        a, video, found = self.a, self.videos(), {}
        prior = getattr(self, "_held", self.people_prior)
        for user in np.unique(a.user_E):
            rows = []
            for e in np.flatnonzero(a.user_E == user):
                v = video[a.video_E[e]]
                rows.append((np.r_[1, v[1:], a.duration_E[e]], 0 * prior, a.offset_E[e] + v[0], a.yes_E[e]))
            found[user] = self._solve(rows, self.person[user], prior)
        for user, (mean, cov) in found.items():
            self.person[user], self.person_cov[user] = mean, cov
        self._held = prior if not hasattr(self, "_held") else self.prior_of(self.person, self.person_cov)
        self.people_prior = self.prior_of(self.person, self.person_cov)

    def step_side(self, effect: np.ndarray, group_V: np.ndarray, prior: np.ndarray) -> None:
        a, video, found = self.a, self.videos(), {}
        group_E = group_V[a.video_E]
        for group in np.setdiff1d(group_E, [0]):
            rows = []
            for e in np.flatnonzero(group_E == group):
                w, cov = self.person[a.user_E[e]], self.person_cov[a.user_E[e]]
                x, unsure = np.r_[1, w[1:-1]], np.pad(cov[1:-1, 1:-1], (1, 0))
                rest = video[a.video_E[e]] - effect[group]
                base = a.offset_E[e] + w[0] + w[-1] * a.duration_E[e] + x @ rest
                rows.append((x, unsure, base, a.yes_E[e]))
            found[group] = self._solve(rows, effect[group], prior)
        for group, (mean, cov) in found.items():
            effect[group] = mean
            if effect is self.author:
                self.author_cov[group] = cov

    def explain(self) -> None:
        known = np.concatenate(self.v.known, 1).astype(np.float64)
        x = np.c_[(known - known.mean(0)) / known.std(0), np.ones(VIDEOS)]
        seen = np.unique(self.a.video_E)
        seen = seen[seen > 0]
        b = np.linalg.solve(x[seen].T @ x[seen] + 20 * np.eye(x.shape[1]), x[seen].T @ self.own[seen])
        self.explained = x @ b
        self.own[seen] -= self.explained[seen]


def test_blocks_change_nothing(monkeypatch):
    world = _World(1_500)
    whole = fit(PreferenceConfig(fit_sweeps=2), world.responses, world.videos, PEOPLE)
    for name, size in {"RESPONSES_AT_ONCE": 7, "ROWS_AT_ONCE": 11, "CHUNK": 4}.items():
        monkeypatch.setattr(latent_factors, name, size)
    for one, other in zip(
        fit(PreferenceConfig(fit_sweeps=2), world.responses, world.videos, PEOPLE), whole, strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_order_of_responses_does_not_matter():
    world = _World(1_500)
    order = np.random.default_rng(3).permutation(1_500)
    shuffled = Responses(*(column[order] for column in world.responses))
    pair = [
        fit(PreferenceConfig(fit_sweeps=2), responses, world.videos, PEOPLE)
        for responses in (world.responses, shuffled)
    ]
    np.testing.assert_allclose(pair[0].video_VxB, pair[1].video_VxB, atol=1e-5)


def test_responses_make_vectors_better():
    world = _World(12_000)
    poor = world.videos._replace(vector_VxD=world.vector_VxD + world.rng.normal(0, 1.5, (VIDEOS, WIDTH)))
    start, fitted = (fit(PreferenceConfig(fit_sweeps=n), world.responses, poor, PEOPLE) for n in (0, 5))
    assert world.judged(fitted) > world.judged(start) + 0.05
    assert np.corrcoef(fitted.video_VxB[1:, 0], world.appeal_V[1:])[0, 1] > 0.7


def test_an_unseen_video_has_what_it_shows_and_its_author():
    """The start knows nothing of these videos; attributes and authors do."""
    world, unseen = _World(1), 40
    many = world.drawn(12_000, skip=unseen)
    blind = world.videos._replace(vector_VxD=np.where(np.arange(VIDEOS)[:, None] < unseen, 0, world.vector_VxD))
    fitted = fit(PreferenceConfig(), many, blind, PEOPLE)
    told = fitted.video_VxB[1:unseen, 1:]

    def explained(by: np.ndarray) -> float:
        rest = told - by @ np.linalg.lstsq(by, told, rcond=None)[0]
        return 1 - (rest**2).sum() / (told**2).sum()

    assert explained(world.vector_VxD[1:unseen]) > 0.6
    assert explained(world.rng.normal(size=(unseen - 1, WIDTH))) < 0.3
    without_authors = fit(PreferenceConfig(), many, blind._replace(author_V=np.zeros(VIDEOS, int)), PEOPLE)
    assert not np.allclose(without_authors.video_VxB[1:unseen], fitted.video_VxB[1:unseen], atol=0.05)


def test_axes_that_move_nobody_are_held_down():
    world = _World(12_000)
    exact = world.videos._replace(vector_VxD=world.vector_VxD)
    variance = np.diag(np.linalg.inv(fit(PreferenceConfig(), world.responses, exact, PEOPLE).precision_ZxZ))[1:-1]
    assert variance[2] < 0.2 * variance[:2].min()


@pytest.mark.parametrize("appeal", [-8.0, -3.0, 6.0])
def test_a_start_that_is_sure_and_wrong_ends_well(appeal):
    """With one person who responses far more than all others, and a video that is far from what the start says."""
    world = _World(3_000)
    bot = world.drawn(2_000)._replace(user_E=np.ones(2_000, int))
    both = Responses(*(np.concatenate(pair) for pair in zip(world.responses, bot, strict=True)))
    wrong = np.full(VIDEOS, appeal)
    wrong[5] = -wrong[5]
    found = fit(PreferenceConfig(), both, world.videos._replace(appeal_V=wrong), PEOPLE)
    assert all(np.isfinite(array).all() for array in found)
    assert np.abs(found.video_VxB).max() < 15
    assert world.judged(found) > 0.75


@pytest.mark.parametrize("yes", [0.0, 1.0])
def test_one_response_only(yes):
    world = _World(600)
    found = fit(PreferenceConfig(), world.responses._replace(yes_E=np.full(600, yes)), world.videos, PEOPLE)
    assert all(np.isfinite(array).all() for array in found)


def test_silent_people_and_units_of_attributes_change_nothing():
    world = _World(1_500)
    whole = fit(PreferenceConfig(), world.responses, world.videos, PEOPLE)
    shown, noise = world.videos.known
    scaled = world.videos._replace(known=(shown * 1_000, noise - 5, np.ones((VIDEOS, 1))))
    for one, other in zip(fit(PreferenceConfig(), world.responses, scaled, PEOPLE + 900), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_nothing_to_learn_from_leaves_the_start():
    world = _World(5)
    nothing = Responses(*(column[:0] for column in world.responses))
    for config, responses in ((PreferenceConfig(), nothing), (PreferenceConfig(fit_sweeps=0), world.responses)):
        found = fit(config, responses, world.videos, PEOPLE)
        np.testing.assert_allclose(found.video_VxB[1:, 1:], world.videos.vector_VxD[1:], atol=1e-6)
        np.testing.assert_array_equal(found.precision_ZxZ, np.diag([1.0, 4.0, 4.0, 4.0, 2.0]))


def test_the_unknown_video_says_nothing():
    world = _World(800)
    assert not fit(PreferenceConfig(), world.responses, world.videos, PEOPLE).video_VxB[0].any()


def test_memory_grows_by_two_and_a_half_arrays_of_the_catalogue(monkeypatch):
    """The start with attributes and single effects in float64, the result in float32; all else in blocks."""
    monkeypatch.setattr(latent_factors, "ROWS_AT_ONCE", 1_000)
    width = 15

    def peak(videos: int) -> int:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(videos, width)).astype(np.float32)
        columns = (rng.integers(1, 20, 300), rng.integers(1, videos, 300), rng.random(300) < 0.5)
        responses = Responses(*columns, np.zeros(300), np.zeros(300))
        given = Videos(np.zeros(videos, np.float32), whitened(vectors), np.zeros(videos, np.int32), (vectors,))
        tracemalloc.start()
        try:
            fit(PreferenceConfig(fit_sweeps=2), responses, given, 20)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    array = 20_000 * (1 + width) * 8
    assert (peak(40_000) - peak(20_000)) / array < 2.8
