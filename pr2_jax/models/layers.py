"""What the models share: tasks, layers, inputs made of past views and of videos, mixed precision, losses.

Masks are boolean, True = real. Padding neither wins nor learns.

Mixed precision: parameters, rows and losses are float32, layers may compute in bfloat16. `lowered` casts a model's
inputs; flax layers compute in the type of their input, and gradients come back through the cast as float32. Softmaxes,
norms' statistics and scores stay float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pr2_jax.training.embedding_tables import Lookups, TableSpec, table_specs, take
from pr2_jax.training.loop import Batch, Params
from pr2_jax.training.mesh import example
from pr2_jax.types import NEVER

Tree = TypeVar("Tree")
VIDEO_KEYS = ("caption", "category", "author", "numbers", "brought")
"""Attributes of a video, as the catalogue names them."""
GAP_BUCKETS = 24  # log2 seconds: the last bucket begins at 2^23 s, some 97 days


@dataclasses.dataclass(frozen=True, eq=False)
class ModelTask:
    """What the tasks of all models share (training/loop.py, Task)."""

    config: Any
    frozen: dict[str, Array]
    sizes: dict[str, int]  # ids of each table, by name

    def table_specs(self) -> dict[str, TableSpec]:
        return table_specs(self.sizes, self.config.width, self.config.tables)

    def init(self, key: Array) -> Params:
        # Two rows of zeros for each frozen array: the arrays themselves would become constants.
        frozen = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), self.frozen)
        batch = self.prepare(frozen, example(self.schema, 2))
        rows = {name: jnp.zeros((*ids.shape, self.config.width)) for name, (_, ids) in self.lookups(batch).items()}
        return self.model.init(key, rows, batch)["params"]


def lowered(tree: Tree, compute: str, exact: Collection[str]) -> Tree:
    """The tree with float32 arrays cast to `compute`, except those named in `exact` (bfloat16 would shift a time's
    bucket)."""
    if compute == "float32":
        return tree

    def cast(path: tuple, x: Array) -> Array:
        keep = x.dtype != jnp.float32 or any(getattr(key, "key", None) in exact for key in path)
        return x if keep else x.astype(compute)

    return jax.tree_util.tree_map_with_path(cast, tree)


def unit(x_xD: Array, epsilon: float = 1e-6) -> Array:
    """L2-normalises the last axis, in float32; a zero vector stays zero."""
    x_xD = x_xD.astype(jnp.float32)
    return x_xD * jax.lax.rsqrt(jnp.sum(jnp.square(x_xD), axis=-1, keepdims=True) + epsilon**2)


def masked_mean(x_xNxD: Array, mask_xN: Array) -> Array:
    """Mean over the real entries of the last but one axis; zeros where there is none."""
    weight_xNx1 = mask_xN[..., None].astype(x_xNxD.dtype)
    return (x_xNxD * weight_xNx1).sum(-2) / jnp.maximum(weight_xNx1.sum(-2), 1.0)


def drop_vectors(module: nn.Module, x_xD: Array, rate: float, *, train: bool) -> Array:
    """In training zeroes whole vectors with probability `rate`; the others are not scaled up."""
    if not train or rate <= 0:
        return x_xD
    return x_xD * jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, (*x_xD.shape[:-1], 1))


def time_gap_bucket(gap_seconds: Array, buckets: int) -> Array:
    """Log2 bucket of a gap in seconds. From the exponent's bits: a logarithm rounds differently on each device."""
    return jnp.clip(jnp.frexp(jnp.maximum(gap_seconds, 1.0))[1] - 1, 0, buckets - 1)


class Mlp(nn.Module):
    """Dense layers with Swish between. LayerNorm comes first: inputs from tables and counters have any scale."""

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

    The zero slot [lit: Amazon zero attention] has logit 0 and value 0: a target may attend to nothing. `keep_BxSxN`
    gives each target its own subset of the events: a mask, which saves gathering `[B, S, N, D]`.
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
    """Softmax, in float32, over the kept entries and one more slot of logit 0, whose weight is not returned."""
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

    An event is the concatenation of its `parts`, which is never made. With one target the key projection folds into
    the target (`q W_q W_k^T`) and the value projection follows the sum: no projection of every event is computed.
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
    """A pre-norm self-attention block over N events. No position code: time gaps carry the order [lit]."""

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

    Plain MMoE collapses onto one expert [lit: HoME, Kuaishou]. Against that each expert's output is normalised and
    passed through Swish, and a gate's logit is masked with probability `gate_dropout`. Returns `[..., T, width]` and
    the gates `[..., T, E]`.
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
    """Mean of word rows under learned positive weights."""

    @nn.compact
    def __call__(self, rows_xNxD: Array, mask_xN: Array) -> Array:
        weight_xNx1 = nn.softplus(nn.Dense(1, name="weight", bias_init=nn.initializers.ones)(rows_xNxD))
        weight_xNx1 = weight_xNx1 * mask_xN[..., None]
        return (rows_xNxD * weight_xNx1).sum(-2) / jnp.maximum(weight_xNx1.sum(-2), 1e-6)


class VideoAttributes(nn.Module):
    """Caption, category levels, author, numbers and brought vectors of N videos, projected and added.

    `modality_dropout` is the share of captions hidden in training: the tower ignores vision otherwise [lit: MBVR].
    """

    width: int
    modality_dropout: float = 0.0

    @nn.compact
    def __call__(self, rows: dict[str, Array], video: dict[str, Array], *, train: bool) -> Array:
        caption_NxD = WordBag(name="caption")(rows["caption"], video["caption"] > 0)
        if "brought" in video:
            caption_NxD = drop_vectors(self, caption_NxD, self.modality_dropout, train=train)
        category_NxD = masked_mean(rows["category"], video["category"] > 0)
        author_NxD = rows["author"] * (video["author"] > 0)[..., None]
        total_NxD = caption_NxD + nn.Dense(self.width, name="category")(category_NxD)
        total_NxD += nn.Dense(self.width, name="author")(author_NxD)
        total_NxD += nn.Dense(self.width, name="numbers")(video["numbers"])
        if "brought" in video:
            total_NxD += nn.Dense(self.width, name="brought")(video["brought"])
        return total_NxD


def event_features(signals_BxHxG: Array, gap_seconds_BxH: Array) -> Array:
    """Signals and time gap of events, `[B, H, G + GAP_BUCKETS]`.

    The gap's bucket is one-hot: with few buckets a matrix product is cheaper than the scatter of a lookup's gradient.
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


def take_videos(catalogue: dict[str, Array], ids_N: Array, *others: str) -> dict[str, Array]:
    """The attributes of some videos, of those that the catalogue has; `others`: names of more arrays."""
    return {key: take(catalogue[key], ids_N) for key in (*VIDEO_KEYS, *others) if key in catalogue}


def taken(frozen: dict[str, Array], ids_x: Array, **names: str) -> dict[str, Array]:
    """Frozen arrays at some rows, of those that there are; `names`: what the batch calls each."""
    return {name: take(frozen[key], ids_x) for key, name in names.items() if key in frozen}


def video_lookups(batch: Batch) -> Lookups:
    """Lookups of the attributes of a batch's videos, if it has any."""
    tables = {"caption": "word", "author": "author", "category": "category"} if "video" in batch else {}
    return {name: (table, batch["video"][name]) for name, table in tables.items()}


def log_proposal(log_unigram_N: Array, batch: int, uniform: int, videos: int) -> Array:
    """Log of the proposal distribution of mixed negative sampling, `(B p_j + N' / V) / (B + N')` [lit].

    In-batch negatives follow the positives' unigram, the others are uniform (docs/method.md, PDR).
    """
    mixture_N = (batch * jnp.exp(log_unigram_N) + uniform / videos) / (batch + uniform)
    return jnp.log(mixture_N)


def sampled_softmax(
    positive_B: Array, negative_BxN: Array, log_q_positive_B: Array, log_q_negative_N: Array, false_negative_BxN: Array
) -> Array:
    """Per-row `-log e^{s_ii} / (e^{s_ii} + sum_j e^{s_ij})` with `s = score - log Q`, less the false negatives."""
    corrected_B = positive_B - log_q_positive_B
    corrected_BxN = jnp.where(false_negative_BxN, NEVER, negative_BxN - log_q_negative_N[None, :])
    all_Bx1N = jnp.concatenate([corrected_B[:, None], corrected_BxN], axis=1)
    return jax.nn.logsumexp(all_Bx1N, axis=1) - corrected_B


def weighted_mean(value_x: Array, weight_x: Array) -> Array:
    """Weighted mean; zero, with zero gradient, where all weights are zero."""
    return (value_x * weight_x).sum() / jnp.maximum(weight_x.sum(), 1e-6)


def pointwise(logit_x: Array, label_x: Array, weight_x: Array) -> Array:
    """Weighted mean of the sigmoid cross-entropy."""
    return weighted_mean(optax.sigmoid_binary_cross_entropy(logit_x, label_x), weight_x)


def listwise(logit_BxS: Array, label_BxS: Array, weight_BxS: Array) -> Array:
    """Softmax cross-entropy of positives against their whole slate; slates without a positive do not count."""
    masked_BxS = jnp.where(weight_BxS > 0, logit_BxS, NEVER)
    positive_BxS = label_BxS * weight_BxS
    log_p_BxS = jax.nn.log_softmax(masked_BxS, axis=1)
    each_B = -(positive_BxS * log_p_BxS).sum(1) / jnp.maximum(positive_BxS.sum(1), 1.0)
    return weighted_mean(each_B, (positive_BxS.sum(1) > 0).astype(each_B.dtype))
