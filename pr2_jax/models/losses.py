"""Losses. Each returns means, or one value a row; what it is averaged over stands in its docstring."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pr2_jax.types import NEVER


def log_proposal(log_unigram_N: Array, batch: int, uniform: int, videos: int) -> Array:
    """log of the expected number of times that each negative is drawn, per negative drawn.

    In-batch negatives follow the unigram of the positives, the others are uniform, so that what is really sampled is
    the mixture `(B p_j + N' / V) / (B + N')` [lit: mixed negative sampling] (docs/method.md, Content towers).
    """
    mixture_N = (batch * jnp.exp(log_unigram_N) + uniform / videos) / (batch + uniform)
    return jnp.log(mixture_N)


def sampled_softmax(
    positive_B: Array, negative_BxN: Array, log_q_positive_B: Array, log_q_negative_N: Array, false_negative_BxN: Array
) -> Array:
    """Per-row `-log e^{s_ii} / (e^{s_ii} + sum_j e^{s_ij})` with `s = cos / tau - log Q` (docs/method.md, PDR).

    Shapes: scores before correction, `[B]` and `[B, N]`; True in `false_negative_BxN` removes an entry.
    """
    corrected_B = positive_B - log_q_positive_B
    corrected_BxN = jnp.where(false_negative_BxN, NEVER, negative_BxN - log_q_negative_N[None, :])
    all_Bx1N = jnp.concatenate([corrected_B[:, None], corrected_BxN], axis=1)
    return jax.nn.logsumexp(all_Bx1N, axis=1) - corrected_B


def weighted_mean(value_x: Array, weight_x: Array) -> Array:
    """Mean under weights; zero (with zero gradient) where all weights are zero."""
    return (value_x * weight_x).sum() / jnp.maximum(weight_x.sum(), 1e-6)


def pointwise(logit_x: Array, label_x: Array, weight_x: Array) -> Array:
    """Weighted mean of the sigmoid cross-entropy."""
    return weighted_mean(optax.sigmoid_binary_cross_entropy(logit_x, label_x), weight_x)


def listwise(logit_BxS: Array, label_BxS: Array, weight_BxS: Array) -> Array:
    """Softmax cross-entropy of a slate's positives against the whole slate; slates without a positive count nothing."""
    masked_BxS = jnp.where(weight_BxS > 0, logit_BxS, NEVER)
    positive_BxS = label_BxS * weight_BxS
    log_p_BxS = jax.nn.log_softmax(masked_BxS, axis=1)
    each_B = -(positive_BxS * log_p_BxS).sum(1) / jnp.maximum(positive_BxS.sum(1), 1.0)
    return weighted_mean(each_B, (positive_BxS.sum(1) > 0).astype(each_B.dtype))
