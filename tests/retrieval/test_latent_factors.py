"""The fit of people and videos: a plain twin of its step, blocks that change nothing, and what it finds in answers."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.config import TasteConfig
from pr2_jax.evaluation.metrics import auc
from pr2_jax.retrieval import latent_factors
from pr2_jax.retrieval.latent_factors import Answers, Doubt, Videos, _Level, fit

PEOPLE, VIDEOS, WIDTH = 150, 120, 3


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class _World:
    """People and videos with known tastes; attributes tell half of a video's vector, its author another part."""

    def __init__(self, answers: int, seed: int = 0) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.author_V = rng.integers(1, 12, VIDEOS)
        self.shown_VxD = rng.normal(size=(VIDEOS, WIDTH))
        of_authors = rng.normal(0, 0.7, (12, WIDTH))
        self.vector_VxD = self.shown_VxD + of_authors[self.author_V] + rng.normal(0, 0.5, (VIDEOS, WIDTH))
        self.taste_UxD = rng.normal(size=(PEOPLE, WIDTH)) * [1.5, 1.5, 0.02]  # the third axis moves nobody
        self.appeal_V = rng.normal(0, 0.5, VIDEOS)
        self.answers = self.asked(answers)
        noise = rng.normal(size=(VIDEOS, 2))
        self.videos = Videos(
            np.zeros(VIDEOS), rng.normal(size=(VIDEOS, WIDTH)) * 0.3 + self.vector_VxD, self.author_V,
            (self.shown_VxD.astype(np.float32), noise),
        )  # fmt: skip

    def asked(self, count: int, skip: int = 0) -> Answers:
        """Videos below `skip` are never shown."""
        user_E, video_E = self.rng.integers(1, PEOPLE, count), self.rng.integers(max(1, skip), VIDEOS, count)
        logit_E = self.appeal_V[video_E] + (self.taste_UxD[user_E] * self.vector_VxD[video_E]).sum(1)
        yes_E = (self.rng.random(count) < _sigmoid(logit_E)).astype(float)
        return Answers(user_E, video_E, yes_E, np.zeros(count), self.rng.normal(size=count))

    def judged(self, factors: latent_factors.Factors, skip: int = 0) -> float:
        """AUC of true tastes with the fitted vectors, as far as a linear map of either goes."""
        new = self.asked(4_000, skip)
        found_VxD = factors.video_VxB[:, 1:].astype(np.float64)
        mapped = found_VxD @ np.linalg.lstsq(found_VxD[1:], self.vector_VxD[1:], rcond=None)[0]
        return auc(new.yes_E > 0, (self.taste_UxD[new.user_E] * mapped[new.video_E]).sum(1))


@pytest.mark.parametrize("doubted", [False, True])
def test_a_step_is_that_of_a_plain_twin(rng, doubted, monkeypatch):
    monkeypatch.setattr(latent_factors, "CHUNK", 3)
    count, groups, size = 60, 9, 4
    group_E, x_ExZ, base_E = rng.integers(0, 8, count), rng.normal(size=(count, size)), rng.normal(size=count)
    yes_E, source_E = (rng.random(count) < 0.5).astype(float), rng.integers(0, 5, count)
    root = rng.normal(size=(5, size, size))
    covariance_UxZxZ = root @ root.transpose(0, 2, 1) if doubted else np.zeros((5, size, size))
    precision = np.diag([1.0, 2.0, 3.0, 4.0])
    level = _Level(group_E, groups, precision)
    start = rng.normal(size=(groups, size))
    level.mean_GxZ = start.copy()
    out = np.zeros((groups, size, size))
    doubt = Doubt(source_E, covariance_UxZxZ) if doubted else None
    total = level.newton(lambda e: (x_ExZ[e], base_E[e]), yes_E, doubt, out)
    expected_total = np.zeros((size, size))
    for group in range(groups):
        curve, slope = precision.copy(), -precision @ start[group]
        for e in np.flatnonzero(group_E == group):
            p = _sigmoid(base_E[e] + x_ExZ[e] @ start[group])
            second = np.outer(x_ExZ[e], x_ExZ[e]) + covariance_UxZxZ[source_E[e]]
            curve += p * (1 - p) * second
            slope += (yes_E[e] - p) * x_ExZ[e] - p * (1 - p) * covariance_UxZxZ[source_E[e]] @ start[group]
        np.testing.assert_allclose(level.mean_GxZ[group], start[group] + np.linalg.solve(curve, slope), atol=1e-10)
        np.testing.assert_allclose(out[group], np.linalg.inv(curve), atol=1e-10)
        expected_total += np.linalg.inv(curve) * (group_E == group).any()
    np.testing.assert_allclose(total, expected_total, atol=1e-10)
    assert not level.mean_GxZ[8].any()  # nobody answered for it


def test_blocks_change_nothing(monkeypatch):
    world = _World(1_500)
    whole = fit(TasteConfig(fit_sweeps=2), world.answers, world.videos, PEOPLE)
    for name, size in {"ANSWERS_AT_ONCE": 7, "GROUPS_AT_ONCE": 5, "ROWS_AT_ONCE": 11, "CHUNK": 4}.items():
        monkeypatch.setattr(latent_factors, name, size)
    for one, other in zip(fit(TasteConfig(fit_sweeps=2), world.answers, world.videos, PEOPLE), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_order_of_answers_does_not_matter():
    world = _World(1_500)
    order = np.random.default_rng(3).permutation(1_500)
    shuffled = Answers(*(column[order] for column in world.answers))
    pair = [fit(TasteConfig(fit_sweeps=2), answers, world.videos, PEOPLE) for answers in (world.answers, shuffled)]
    np.testing.assert_allclose(pair[0].video_VxB, pair[1].video_VxB, atol=1e-5)


def test_answers_make_vectors_better():
    world = _World(12_000)
    poor = world.videos._replace(vector_VxD=world.vector_VxD + world.rng.normal(0, 1.5, (VIDEOS, WIDTH)))
    start, fitted = (fit(TasteConfig(fit_sweeps=n), world.answers, poor, PEOPLE) for n in (0, 5))
    assert world.judged(fitted) > world.judged(start) + 0.05
    assert np.corrcoef(fitted.video_VxB[1:, 0], world.appeal_V[1:])[0, 1] > 0.7


def test_an_unseen_video_has_what_it_shows_and_its_author():
    """The start knows nothing of these videos; attributes and authors do."""
    world, unseen = _World(1), 40
    asked = world.asked(12_000, skip=unseen)
    blind = world.videos._replace(vector_VxD=np.where(np.arange(VIDEOS)[:, None] < unseen, 0, world.vector_VxD))
    fitted = fit(TasteConfig(), asked, blind, PEOPLE)
    told = fitted.video_VxB[1:unseen, 1:]

    def explained(by: np.ndarray) -> float:
        rest = told - by @ np.linalg.lstsq(by, told, rcond=None)[0]
        return 1 - (rest**2).sum() / (told**2).sum()

    assert explained(world.vector_VxD[1:unseen]) > 0.6
    assert explained(world.rng.normal(size=(unseen - 1, WIDTH))) < 0.3
    without_authors = fit(TasteConfig(), asked, blind._replace(author_V=np.zeros(VIDEOS, int)), PEOPLE)
    assert not np.allclose(without_authors.video_VxB[1:unseen], fitted.video_VxB[1:unseen], atol=0.05)


def test_axes_that_move_nobody_are_held_down():
    world = _World(12_000)
    exact = world.videos._replace(vector_VxD=world.vector_VxD)
    variance = np.diag(np.linalg.inv(fit(TasteConfig(), world.answers, exact, PEOPLE).precision_ZxZ))[1:-1]
    assert variance[2] < 0.2 * variance[:2].min()


def test_nothing_to_learn_from_leaves_the_start():
    world = _World(5)
    nothing = Answers(*(column[:0] for column in world.answers))
    for config, answers in ((TasteConfig(), nothing), (TasteConfig(fit_sweeps=0), world.answers)):
        found = fit(config, answers, world.videos, PEOPLE)
        np.testing.assert_allclose(found.video_VxB[1:, 1:], world.videos.vector_VxD[1:], atol=1e-6)
        np.testing.assert_array_equal(found.precision_ZxZ, np.diag([1.0, 4.0, 4.0, 4.0, 2.0]))


def test_the_unknown_video_says_nothing():
    world = _World(800)
    assert not fit(TasteConfig(), world.answers, world.videos, PEOPLE).video_VxB[0].any()
