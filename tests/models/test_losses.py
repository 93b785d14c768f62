"""Losses against enumeration; what is masked adds neither loss nor gradient."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.models import layers as losses


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.fixture
def scores(rng) -> np.ndarray:
    return rng.normal(size=(4, 9)).astype(np.float32)


def test_all_others_as_negatives_is_the_exact_softmax(scores):
    """Any constant proposal cancels; the positive among the negatives is masked as a false negative."""
    positive_B = np.array([3, 0, 8, 3])
    false_BxN = positive_B[:, None] == np.arange(9)[None, :]
    got = losses.sampled_softmax(
        scores[np.arange(4), positive_B], scores, np.full(4, -2.0, np.float32), np.full(9, -2.0, np.float32), false_BxN
    )
    np.testing.assert_allclose(got, -log_softmax(scores)[np.arange(4), positive_B], rtol=1e-5)


def expected_gradient(score_V: np.ndarray, p_V: np.ndarray, q_V: np.ndarray, log_q_V: np.ndarray) -> np.ndarray:
    """Gradient by the scores of the expected loss: positives from p, two negatives from q, all cases enumerated."""
    cases = np.array(list(itertools.product(range(len(p_V)), repeat=3)))
    chance_C = p_V[cases[:, 0]] * q_V[cases[:, 1]] * q_V[cases[:, 2]]

    def expected(score_V):
        positive_C, negative_CxN = cases[:, 0], cases[:, 1:]

        def one(positive, negative_N):
            return losses.sampled_softmax(
                score_V[positive][None], score_V[negative_N][None], jnp.asarray(log_q_V)[positive][None],
                jnp.asarray(log_q_V)[negative_N], (negative_N == positive)[None],
            )[0]  # fmt: skip

        return (jax.vmap(one)(jnp.asarray(positive_C), jnp.asarray(negative_CxN)) * chance_C).sum()

    return np.asarray(jax.grad(expected)(jnp.asarray(score_V, jnp.float32)))


def test_the_sign_of_log_q():
    """With s - log Q the true log-probabilities are where the expected gradient vanishes, however skewed the proposal.

    Nearly: the mask of false negatives makes it inexact for more than one negative. Without the correction, or with
    its sign turned, popular videos are pushed away or pulled up instead.
    """
    p_V, q_V = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.05, 0.15, 0.2, 0.6])
    size = {
        name: np.abs(expected_gradient(np.log(p_V), p_V, q_V, log_q_V)).max()
        for name, log_q_V in (("right", np.log(q_V)), ("none", 0 * q_V), ("turned", -np.log(q_V)))
    }
    assert size["right"] < 0.1 * size["none"]
    assert size["none"] < size["turned"]


def test_log_proposal_is_the_mixture_that_is_sampled():
    """Drawn: B in-batch negatives from the unigram and N' uniform ones."""
    unigram_V = np.array([0.5, 0.25, 0.125, 0.125])
    got = losses.log_proposal(jnp.log(jnp.asarray(unigram_V)), 6, 2, 4)
    np.testing.assert_allclose(np.exp(got), (6 * unigram_V + 2 / 4) / 8, rtol=1e-5)
    assert np.exp(got).sum() == pytest.approx(1, rel=1e-5)


def test_a_false_negative_has_no_say_and_no_gradient(scores):
    false_BxN = np.zeros((4, 9), bool)
    false_BxN[:, 2] = True
    log_q_N = np.linspace(-3, -1, 9).astype(np.float32)

    def total(scores):
        return losses.sampled_softmax(scores[:, 0], scores, log_q_N[:4], log_q_N, false_BxN).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(scores))
    assert total(jnp.asarray(scores).at[:, 2].set(50.0)) == value
    assert not np.any(gradient[:, 2])
    without = np.delete(scores, 2, axis=1)
    want = losses.sampled_softmax(scores[:, 0], without, log_q_N[:4], np.delete(log_q_N, 2), np.zeros((4, 8), bool))
    np.testing.assert_allclose(value, want.sum(), rtol=1e-6)


def test_pointwise_is_the_weighted_cross_entropy(rng):
    logit, label, weight = rng.normal(size=(3, 4)), rng.integers(0, 2, (3, 4)) * 1.0, rng.random((3, 4))
    p = 1 / (1 + np.exp(-logit))
    want = -(weight * (label * np.log(p) + (1 - label) * np.log(1 - p))).sum() / weight.sum()
    np.testing.assert_allclose(losses.pointwise(*map(jnp.asarray, (logit, label, weight))), want, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.pointwise, losses.listwise])
def test_a_masked_task_adds_no_loss_and_no_gradient(loss, rng):
    logit, label = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), jnp.ones((3, 4))
    value, gradient = jax.value_and_grad(loss)(logit, label, jnp.zeros((3, 4)))
    assert value == 0
    assert not np.any(gradient)


def test_listwise_by_hand():
    logit = jnp.array([[1.0, 2.0, 0.5, 99.0], [3.0, 1.0, 0.0, 0.0]])
    label = jnp.array([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    weight = jnp.array([[1.0, 1, 1, 0], [1, 1, 1, 1]])
    first = -log_softmax(np.array([1.0, 2.0, 0.5]))[[0, 2]].mean()
    second = -log_softmax(np.array([3.0, 1.0, 0.0, 0.0]))[1]
    np.testing.assert_allclose(losses.listwise(logit, label, weight), (first + second) / 2, rtol=1e-5)


def test_a_slate_without_a_positive_counts_nothing(rng):
    logit = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    label, weight = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), jnp.ones((2, 3))
    value, gradient = jax.value_and_grad(losses.listwise)(logit, label, weight)
    np.testing.assert_allclose(value, losses.listwise(logit[:1], label[:1], weight[:1]), rtol=1e-6)
    assert not np.any(gradient[1])
    assert np.any(gradient[0])
