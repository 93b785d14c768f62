"""Fusion against the formula, and the choice of its exponents."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pr2_jax.metrics.ranking_metrics import slate_metrics
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


def test_a_head_that_was_not_learned_does_not_count(slates) -> None:
    """Its probabilities are NaN; the others are weighed as if it were not there."""
    p, relevance, clicked, valid = slates
    without = fusion.choose_weights(p, relevance, clicked, valid)
    unknown = np.concatenate([p, np.full((*p.shape[:2], 1), np.nan)], axis=-1)
    got = fusion.choose_weights(unknown, relevance, clicked, valid)
    assert got.alpha_T == (*without.alpha_T, 0.0)
    assert (got.relevance, got.beta_T[:2]) == (without.relevance, without.beta_T)
    assert np.isfinite(got.beta_T).all()
    np.testing.assert_array_equal(fusion.fuse(unknown, relevance, got), fusion.fuse(p, relevance, without))


def test_written_and_read(slates) -> None:
    weights = dataclasses.replace(fusion.choose_weights(*slates), relevance_floor=0.1)
    assert FusionWeights.from_dict(json.loads(json.dumps(dataclasses.asdict(weights)))) == weights


@pytest.fixture
def lists(rng):
    """400 lists of 20. Below relevance 0.1 nothing is ever clicked, though the engaging head likes it best."""
    relevance = rng.random((400, 20))
    p = np.where(relevance < 0.1, 0.9, rng.random((400, 20)) * 0.5)[..., None]
    clicked = (rng.random((400, 20)) < p[..., 0]) & (relevance >= 0.1)
    return p, relevance, clicked, np.ones((400, 20), bool)


def test_floor_is_the_highest_that_costs_nothing(lists):
    weights = FusionWeights((1.0,), (1.0,))
    got = fusion.choose_floor(*lists, np.arange(400), weights, 1.0)
    assert got.relevance_floor == 0.1
    assert (got.alpha_T, got.beta_T, got.relevance) == (weights.alpha_T, weights.beta_T, weights.relevance)
    assert ndcg_of(got, lists) > ndcg_of(weights, lists) + 0.1


def test_floor_by_plain_loops(lists, rng):
    """Each floor's mean change and its clustered error, session by session."""
    p, relevance, _, valid = lists
    clicked = rng.random((400, 20)) < 0.25 * p[..., 0] * (0.97 + 0.03 * relevance)
    users, judged = rng.integers(0, 90, 400), clicked.any(1)

    def each(floor):
        score = fusion.fuse(p, relevance, FusionWeights((1.0,), (1.0,), 0.05, floor))
        return slate_metrics(score, clicked, valid)["ndcg@10"][judged]

    chosen = []
    for tolerance in (0.25, 1.0, 3.0):
        want, best = 0.0, each(0.0)  # of 20 results all are among the first 100: recall is the same for each floor
        for floor in fusion.FLOOR_GRID:
            change, owner = each(floor) - best, users[judged]
            off = [sum(change[owner == user] - change.mean()) for user in range(90)]
            if change.mean() < -tolerance * sum(x * x for x in off) ** 0.5 / judged.sum():
                break
            want, best = floor, each(floor) if change.mean() > 0 else best
        got = fusion.choose_floor(p, relevance, clicked, valid, users, FusionWeights((1.0,), (1.0,), 0.05), tolerance)
        assert got.relevance_floor == want
        chosen.append(want)
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


def test_floor_minds_the_long_list_too(rng):
    """Clicks at rank 90 or so by the fused score, on results of little relevance: the first ten never change."""
    relevance = np.tile(np.r_[np.ones(50), np.full(50, 0.25), np.full(50, 0.4)], (300, 1))
    p = np.tile(np.linspace(0.9, 0.1, 150), (300, 1))[..., None]
    clicked = np.zeros((300, 150), bool)
    clicked[np.arange(300), rng.integers(50, 100, 300)] = True
    valid, weights = np.ones((300, 150), bool), FusionWeights((1.0,), (1.0,))
    assert fusion.choose_floor(p, relevance, clicked, valid, np.arange(300), weights, 1.0).relevance_floor == 0.2


def test_no_floor_where_none_is_wanted_or_known(lists):
    p, relevance, clicked, valid = lists
    weights, users = FusionWeights((1.0,), (1.0,)), np.arange(400)
    assert fusion.choose_floor(*lists, users, weights, 0.0).relevance_floor == 0
    nothing = np.zeros_like(clicked)
    assert fusion.choose_floor(p, relevance, nothing, valid, users, weights, 1.0).relevance_floor == 0
    # Where only what is least relevant is clicked, a floor of any height costs.
    lowest = relevance == relevance.min(1, keepdims=True)
    assert fusion.choose_floor(p, relevance, lowest, valid, users, weights, 1.0).relevance_floor == 0
