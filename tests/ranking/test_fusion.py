"""Fusion against the formula, and the choice of its exponents."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pr2_jax.evaluation.metrics import slate_metrics
from pr2_jax.ranking import fusion
from pr2_jax.ranking.fusion import RELEVANCE_OFFSET, FusionWeights


def test_log_of_the_product(rng: np.random.Generator) -> None:
    weights = FusionWeights((1.0, 0.5, 0.25), (2.0, 10.0, 50.0), 0.3)
    p, relevance = rng.random((40, 3)), rng.random(40)
    got = fusion.fuse(p, relevance, weights)
    product = np.prod((1 + np.array(weights.beta_T) * p) ** np.array(weights.alpha_T), axis=1)
    np.testing.assert_allclose(np.exp(got), product * (relevance + RELEVANCE_OFFSET) ** 0.3, rtol=1e-5)
    np.testing.assert_array_equal(fusion.fuse(p.reshape(8, 5, 3), relevance.reshape(8, 5), weights).ravel(), got)


def test_a_head_near_zero_does_not_wipe_out_the_others() -> None:
    weights = FusionWeights((1.0, 1.0), (1.0, 1.0))
    got = fusion.fuse(np.array([[0.9, 1e-9], [0.1, 1e-3]]), np.ones(2), weights)
    assert got[0] > got[1]


def test_relevance_floor_comes_before_engagement(rng: np.random.Generator) -> None:
    weights = FusionWeights((2.0,), (50.0,), 1.0, relevance_floor=0.2)
    p = np.array([[1.0], [0.9], [0.0], [0.1]])
    got = fusion.fuse(p, np.array([0.19, 0.0, 0.2, 0.9]), weights)
    # Both results above the floor first, however engaging the others; each group in its own order.
    assert np.argsort(-got).tolist() == [3, 2, 0, 1]


@pytest.fixture
def slates(rng: np.random.Generator):
    """Clicks follow the first head and relevance; the second head is noise."""
    p = rng.random((300, 10, 2))
    relevance = rng.random((300, 10))
    clicked = rng.random((300, 10)) < 0.6 * p[..., 0] * relevance
    valid = np.arange(10) < rng.integers(2, 11, 300)[:, None]
    return p, relevance, clicked, valid


def ndcg_of(weights: FusionWeights, slates) -> float:
    p, relevance, clicked, valid = slates
    return float(np.nanmean(slate_metrics(fusion.fuse(p, relevance, weights), clicked, valid)["ndcg@10"]))


def test_chosen_weights_use_what_helps(slates) -> None:
    got = fusion.choose_weights(*slates)
    assert got.relevance > 0
    assert got.alpha_T[0] > 0
    assert got.alpha_T[1] <= 0.25
    click_alone = FusionWeights((1.0, 0.0), got.beta_T)
    assert ndcg_of(got, slates) > ndcg_of(click_alone, slates) + 0.02
    assert got == fusion.choose_weights(*slates)
    np.testing.assert_allclose(got.beta_T, 1 / slates[0][slates[3]].mean(0))


def test_sessions_without_a_click_say_nothing(slates) -> None:
    p, relevance, clicked, valid = slates
    assert fusion.choose_weights(p, relevance, np.zeros_like(clicked), valid).alpha_T == (1.0, 0.0)
    alone = fusion.choose_weights(p, relevance, clicked, valid)
    # The same slates once more, unclicked: mean probabilities stay, and so must the exponents.
    twice = (np.concatenate([x, y]) for x, y in ((p, p), (relevance, relevance), (clicked, clicked & False)))
    joined = fusion.choose_weights(*twice, np.concatenate([valid, valid]))
    assert (joined.alpha_T, joined.relevance) == (alone.alpha_T, alone.relevance)


def test_written_and_read(slates) -> None:
    weights = fusion.choose_weights(*slates, relevance_floor=0.1)
    assert FusionWeights.from_dict(json.loads(json.dumps(weights.to_dict()))) == weights
