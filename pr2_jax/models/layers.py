"""What the models share: layers, inputs made of past views and of videos, mixed precision, losses.

All masks are boolean, True = real; padding can neither win nor learn.

Mixed precision: parameters, rows and losses are float32; what lies between may be computed in bfloat16. Casting the
inputs of a model is enough (`lowered`): flax layers compute in the type of what they are given, and gradients come back
through the cast as float32. Softmaxes, norms' statistics and scores stay float32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pr2_jax.training.embedding_tables import Lookups, take
from pr2_jax.types import NEVER

Tree = TypeVar("Tree")
VIDEO_KEYS = ("caption", "category", "author", "numbers", "brought")
"""Attributes of a video, as the catalogue names them."""
GAP_BUCKETS = 24  # log2 seconds: the last bucket begins at 2^23 s, some 97 days


def lowered(tree: Tree, compute: str, exact: Collection[str]) -> Tree:
    """The tree with its float32 arrays in the type named by a config's `compute`, those named in `exact` as they are:
    bfloat16 would move a time over a bucket's edge."""
    if compute == "float32":
        return tree

    def cast(path: tuple, x: Array) -> Array:
        keep = x.dtype != jnp.float32 or any(getattr(key, "key", None) in exact for key in path)
        return x if keep else x.astype(compute)

    return jax.tree_util.tree_map_with_path(cast, tree)


def unit(x_xD: Array, epsilon: float = 1e-6) -> Array:
    """L2-normalises the last axis, in float32; a zero vector stays zero (and so is similar to nothing)."""
    x_xD = x_xD.astype(jnp.float32)
    return x_xD * jax.lax.rsqrt(jnp.sum(jnp.square(x_xD), axis=-1, keepdims=True) + epsilon**2)


def masked_mean(x_xNxD: Array, mask_xN: Array) -> Array:
    """Mean over the real entries of the last but one axis; zeros where there is none."""
    weight_xNx1 = mask_xN[..., None].astype(x_xNxD.dtype)
    return (x_xNxD * weight_xNx1).sum(-2) / jnp.maximum(weight_xNx1.sum(-2), 1.0)


def time_gap_bucket(gap_seconds: Array, buckets: int) -> Array:
    """Log2 bucket of a gap in seconds, one bucket a doubling, from under a second to years.

    By the exponent's bits: a logarithm rounds, each device in its own way, and would put 2^k seconds below bucket k.
    """
    return jnp.clip(jnp.frexp(jnp.maximum(gap_seconds, 1.0))[1] - 1, 0, buckets - 1)


class Mlp(nn.Module):
    """Dense layers with Swish between, LayerNorm first: inputs come from tables and counters of any scale."""

    widths: Sequence[int]
    dropout: float = 0.0
    normalise: bool = True

    @nn.compact
    def __call__(self, x_xD: Array, *, train: bool) -> Array:
        if self.normalise:
            x_xD = nn.LayerNorm()(x_xD)
        for width in self.widths[:-1]:
            x_xD = nn.swish(nn.Dense(width)(x_xD))
            x_xD = nn.Dropout(self.dropout, deterministic=not train)(x_xD)
        return nn.Dense(self.widths[-1])(x_xD)


class TargetAttention(nn.Module):
    """Multi-head attention of S targets over N events with one zero slot.

    The zero slot [lit: Amazon zero attention] has logit 0 and value 0: a target that the past says nothing about can
    attend to nothing. `keep_BxSxN` lets each target see its own subset without gathering `[B, S, N, D]`: masking
    logits costs N/K2 times the multiply-adds of a gather and none of its memory traffic.
    """

    heads: int
    width: int

    @nn.compact
    def __call__(self, target_BxSxD: Array, events_BxNxD: Array, keep_BxSxN: Array) -> tuple[Array, Array]:
        """Returns attention weights `[B, H, S, N]` and values `[B, N, H, D/H]`; `attend` sums them."""
        head = self.width // self.heads
        query_BxSxHxd = nn.DenseGeneral((self.heads, head), use_bias=False, name="query")(target_BxSxD)
        key_BxNxHxd = nn.DenseGeneral((self.heads, head), use_bias=False, name="key")(events_BxNxD)
        value_BxNxHxd = nn.DenseGeneral((self.heads, head), use_bias=False, name="value")(events_BxNxD)
        logit_BxHxSxN = jnp.einsum("bshd,bnhd->bhsn", query_BxSxHxd, key_BxNxHxd) / jnp.sqrt(float(head))
        return zero_softmax(logit_BxHxSxN, keep_BxSxN[:, None]), value_BxNxHxd


def zero_softmax(logit_xN: Array, keep_xN: Array) -> Array:
    """Softmax over the kept entries and one further slot of logit 0, whose weight is not returned. In float32."""
    given = logit_xN.dtype
    logit_xN = jnp.where(keep_xN, logit_xN.astype(jnp.float32), NEVER)
    top_x1 = jnp.maximum(jax.lax.stop_gradient(logit_xN.max(-1, keepdims=True)), 0.0)
    weight_xN = jnp.exp(logit_xN - top_x1)
    return (weight_xN / (weight_xN.sum(-1, keepdims=True) + jnp.exp(-top_x1))).astype(given)


def attend(weight_BxHxSxN: Array, value_BxNxHxd: Array) -> Array:
    """Weighted sum of values, heads side by side: `[B, S, H * d]`."""
    out_BxSxHxd = jnp.einsum("bhsn,bnhd->bshd", weight_BxHxSxN, value_BxNxHxd)
    return out_BxSxHxd.reshape(*out_BxSxHxd.shape[:2], -1)


class PooledAttention(nn.Module):
    """Multi-head attention of one target over N events with a zero slot: `[B, D]`.

    An event is the concatenation of its parts (`[B, N, ...]` each), which is never made: with a single target the key
    and value projections need not be applied to events. The key's is folded into the target (`q W_q W_k^T`, one piece
    a part), the value's comes after the sum. Nothing of the events' size is computed beside the logits `[B, heads, N]`,
    and a part whose width is P costs `4 N P heads` multiply-adds, where projecting it would cost `4 N P D`.
    """

    heads: int
    width: int

    @nn.compact
    def __call__(self, target_BxD: Array, parts: Sequence[Array], mask_BxN: Array) -> Array:
        widths = [part_BxNxP.shape[-1] for part_BxNxP in parts]
        total = sum(widths)
        query_BxHxT = nn.DenseGeneral((self.heads, total), use_bias=False, name="query")(target_BxD)
        pieces = jnp.split(query_BxHxT, np.cumsum(widths)[:-1], axis=-1)
        logit_BxHxN = sum(
            jnp.einsum("bhp,bnp->bhn", query_BxHxP, part_BxNxP)
            for query_BxHxP, part_BxNxP in zip(pieces, parts, strict=True)
        ) / jnp.sqrt(float(total))
        weight_BxHxN = zero_softmax(logit_BxHxN, mask_BxN[:, None])
        pooled_BxHxT = jnp.concatenate([jnp.einsum("bhn,bnp->bhp", weight_BxHxN, part) for part in parts], axis=-1)
        return nn.DenseGeneral(self.width, axis=(-2, -1), use_bias=False, name="value")(pooled_BxHxT)


class SelfAttention(nn.Module):
    """One pre-norm self-attention block over N events (no position code: order is in the time-gap embedding [lit])."""

    heads: int
    width: int

    @nn.compact
    def __call__(self, events_BxNxD: Array, mask_BxN: Array) -> Array:
        normed = nn.LayerNorm()(events_BxNxD)
        keep_BxNxN = jnp.broadcast_to(mask_BxN[:, None, :], (*mask_BxN.shape, mask_BxN.shape[1]))
        weights, values = TargetAttention(self.heads, self.width)(normed, normed, keep_BxNxN)
        return events_BxNxD + nn.Dense(self.width)(attend(weights, values))


class MixtureOfExperts(nn.Module):
    """Multi-gate mixture of experts: T gates over E shared experts.

    Plain MMoE collapses onto one expert in practice [lit: HoME, Kuaishou]: each expert's output is normalised and
    passed through Swish, and gates are dropped whole with probability `gate_dropout` (an expert's logit is masked).
    Returns `[..., T, width]` and the gates `[..., T, E]`.
    """

    tasks: int
    experts: int
    width: int
    gate_dropout: float

    @nn.compact
    def __call__(self, x_xD: Array, *, train: bool) -> tuple[Array, Array]:
        hidden_xExW = nn.DenseGeneral((self.experts, self.width), name="experts")(x_xD)
        hidden_xExW = nn.swish(nn.LayerNorm(name="expert_norm")(hidden_xExW))
        logit_xTxE = nn.DenseGeneral((self.tasks, self.experts), name="gates")(x_xD)
        if train and self.gate_dropout > 0:
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.gate_dropout, logit_xTxE.shape)
            logit_xTxE = jnp.where(keep, logit_xTxE, -10.0)
        gate_xTxE = nn.softmax(logit_xTxE.astype(jnp.float32))
        return jnp.einsum("...te,...ew->...tw", gate_xTxE.astype(x_xD.dtype), hidden_xExW), gate_xTxE


class WordBag(nn.Module):
    """Mean of word rows under learned positive weights: rare, telling words should outweigh common ones."""

    @nn.compact
    def __call__(self, rows_xNxD: Array, mask_xN: Array) -> Array:
        weight_xNx1 = nn.softplus(nn.Dense(1, name="weight", bias_init=nn.initializers.ones)(rows_xNxD))
        weight_xNx1 = weight_xNx1 * mask_xN[..., None]
        return (rows_xNxD * weight_xNx1).sum(-2) / jnp.maximum(weight_xNx1.sum(-2), 1e-6)


class VideoAttributes(nn.Module):
    """Caption, category levels, author, kind and brought vectors of N videos, each projected and added.

    `modality_dropout` hides the caption (never the brought vectors) of that share of the videos in training: the video
    tower tends to ignore vision otherwise [lit: MBVR].
    """

    width: int
    modality_dropout: float = 0.0

    @nn.compact
    def __call__(self, rows: dict[str, Array], video: dict[str, Array], *, train: bool) -> Array:
        caption_NxD = WordBag(name="caption")(rows["caption"], video["caption"] > 0)
        if train and self.modality_dropout > 0 and "brought" in video:
            keep_Nx1 = jax.random.bernoulli(
                self.make_rng("dropout"), 1 - self.modality_dropout, (caption_NxD.shape[0], 1)
            )
            caption_NxD = caption_NxD * keep_Nx1
        category_NxD = masked_mean(rows["category"], video["category"] > 0)
        author_NxD = rows["author"] * (video["author"] > 0)[..., None]
        total_NxD = caption_NxD + nn.Dense(self.width, name="category")(category_NxD)
        total_NxD += nn.Dense(self.width, name="author")(author_NxD)
        total_NxD += nn.Dense(self.width, name="numbers")(video["numbers"])
        if "brought" in video:
            total_NxD += nn.Dense(self.width, name="brought")(video["brought"])
        return total_NxD


def event_features(signals_BxHxG: Array, gap_seconds_BxH: Array) -> Array:
    """Engagement, channel, dwell and time gap of events, `[B, H, G + GAP_BUCKETS]`: what is not looked up in a table.

    The gap's bucket is one-hot beside the signals: with so few buckets a matrix product is cheaper than a lookup, whose
    gradient scatters every event into a handful of rows one after the other.
    """
    gap_BxHxK = jax.nn.one_hot(time_gap_bucket(gap_seconds_BxH, GAP_BUCKETS), GAP_BUCKETS, dtype=signals_BxHxG.dtype)
    return jnp.concatenate([signals_BxHxG, gap_BxHxK], axis=-1)


class EventFeatures(nn.Module):
    """`event_features` as vectors, `[B, H, D]`."""

    width: int

    @nn.compact
    def __call__(self, signals_BxHxG: Array, gap_seconds_BxH: Array) -> Array:
        return nn.Dense(self.width)(event_features(signals_BxHxG, gap_seconds_BxH))


class EngagementGate(nn.Module):
    """`g_b = sigmoid(MLP(engagement_b))`, one number an event [QIN]."""

    width: int = 16

    @nn.compact
    def __call__(self, signals_BxHxG: Array) -> Array:
        hidden = nn.swish(nn.Dense(self.width)(signals_BxHxG))
        return nn.sigmoid(nn.Dense(1)(hidden))[..., 0]


class Profile(nn.Module):
    """Embeds P profile fields, each with a small vocabulary of its own, into `[B, D]`."""

    sizes: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, profile_BxP: Array) -> Array:
        parts = [
            nn.Embed(size, self.width, name=f"field_{field}")(profile_BxP[:, field])
            for field, size in enumerate(self.sizes)
        ]
        return jnp.concatenate(parts, axis=-1)


def take_videos(catalogue: dict[str, Array], ids_N: Array) -> dict[str, Array]:
    """The attributes of some videos. Catalogue arrays have one leading row a video."""
    return {key: take(catalogue[key], ids_N) for key in VIDEO_KEYS if key in catalogue}


def video_lookups(video: dict[str, Array]) -> Lookups:
    """Tables that a video's attributes index."""
    return {
        "caption": ("word", video["caption"]),
        "author": ("author", video["author"]),
        "category": ("category", video["category"]),
    }


def log_proposal(log_unigram_N: Array, batch: int, uniform: int, videos: int) -> Array:
    """log of the expected number of times that each negative is drawn, per negative drawn.

    In-batch negatives follow the unigram of the positives, the others are uniform, so that what is really sampled is
    the mixture `(B p_j + N' / V) / (B + N')` [lit: mixed negative sampling] (docs/method.md, PDR).
    """
    mixture_N = (batch * jnp.exp(log_unigram_N) + uniform / videos) / (batch + uniform)
    return jnp.log(mixture_N)


def sampled_softmax(
    positive_B: Array, negative_BxN: Array, log_q_positive_B: Array, log_q_negative_N: Array, false_negative_BxN: Array
) -> Array:
    """Per-row `-log e^{s_ii} / (e^{s_ii} + sum_j e^{s_ij})` with `s = cos / tau - log Q`.

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
