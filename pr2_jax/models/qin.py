"""QIN, the query-dominant interest network: a ranker with a head for each label (docs/method.md, QIN).

The general search unit (GSU) picks the past views relevant to a query and a candidate by frozen content vectors: it has
no parameters and no gradient, and runs before any table lookup. The exact search unit (ESU) attends to them.
`personal=False` gives the base ranker, which reads no history, no profile and no personal counters.
"""

from __future__ import annotations

import dataclasses
import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.config import QinConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models import layers
from pr2_jax.training.embedding_tables import Lookups, Rows, resolved, take
from pr2_jax.training.loop import Batch, Metrics, Params
from pr2_jax.training.mesh import Schema, exact_names, floats, ints
from pr2_jax.types import NEVER

POSITIONS = 64
"""Positions with an embedding of their own; deeper ones share the last."""


def search_by_query(query_BxD: Array, history_BxHxD: Array, mask_BxH: Array, k: int) -> tuple[Array, Array]:
    """The GSU's step 1, `A = topK1 cos(e_q, e_b)`: positions `[B, K1]` into the history and whether each is real.

    The history is ordered oldest first. Among equally relevant views the latest wins: an empty query (a zero vector)
    keeps the K1 latest. Padding is kept only where no real view is left.
    """
    k = min(k, history_BxHxD.shape[1])
    relevance_BxH = jnp.einsum("bd,bhd->bh", query_BxD, history_BxHxD)
    latest_first_BxH = jnp.where(mask_BxH, relevance_BxH, NEVER)[:, ::-1]
    _, index_BxK = jax.lax.top_k(latest_first_BxH, k)
    position_BxK = history_BxHxD.shape[1] - 1 - index_BxK
    return position_BxK, jnp.take_along_axis(mask_BxH, position_BxK, axis=1)


def search_by_video(video_BxSxD: Array, kept_BxKxD: Array, mask_BxK: Array, k: int) -> Array:
    """Its step 2, `B = topK2 over A of cos(e_v, e_b)`, as a mask `[B, S, K1]` for each candidate."""
    k = min(k, kept_BxKxD.shape[1])
    similarity_BxSxK = jnp.einsum("bsd,bkd->bsk", video_BxSxD, kept_BxKxD)
    similarity_BxSxK = jnp.where(mask_BxK[:, None, :], similarity_BxSxK, NEVER)
    return (similarity_BxSxK >= kth_largest(similarity_BxSxK, k)) & mask_BxK[:, None, :]


def kth_largest(x_xN: Array, k: int) -> Array:
    """The k-th largest of each row of finite float32 numbers, `[..., 1]`. `k`: 1 to N.

    Bisects over the bits of a float in 32 passes over all rows at once. On a CPU `top_k` takes far longer: it orders
    row after row on one core.
    """
    lowest = jnp.int32(-(2**31))

    def holds(ordinal_x1: Array) -> Array:
        # Counted in float32, which is exact here and keeps the loop in one kind of vector register.
        return (x_xN >= _float_of(ordinal_x1)).astype(jnp.float32).sum(-1, keepdims=True) >= k

    def lower_bit(number: Array, ordinal_x1: Array) -> Array:
        raised_x1 = ordinal_x1 + jnp.left_shift(jnp.int32(1), 30 - number)
        return jnp.where(holds(raised_x1), raised_x1, ordinal_x1)

    zero_x1 = jnp.zeros((*x_xN.shape[:-1], 1), jnp.int32)
    ordinal_x1 = jax.lax.fori_loop(0, 31, lower_bit, jnp.where(holds(zero_x1), zero_x1, lowest))
    # A number of the row itself: XLA compares denormals as 0 on a CPU, so the last bits found may be any of theirs.
    return jnp.where(x_xN >= _float_of(ordinal_x1), x_xN, jnp.inf).min(-1, keepdims=True)


def _float_of(ordinal: Array) -> Array:
    """The float at a place in the order of floats: negative ones have all bits but the sign flipped."""
    return jax.lax.bitcast_convert_type(jnp.where(ordinal < 0, ordinal ^ 0x7FFFFFFF, ordinal), jnp.float32)


class ExactSearchUnit(nn.Module):
    """ESU with fused attention [QIN]: `sum_b g_b a_id v_id + (1 - g_b) a_at v_at` over what the GSU kept.

    IDs and attributes have an attention each, with a zero slot, and the gate weighs the two by an event's engagement.
    Fields of the config take out the gate (0.5 for all), the second attention (one over the sums), or attention as a
    whole (a mean of the kept events).
    """

    config: QinConfig

    @nn.compact
    def __call__(
        self, target: dict[str, Array], events: dict[str, Array], signals_BxKxG: Array, keep_BxSxK: Array
    ) -> Array:
        c = self.config
        both_BxKxD = events["id"] + events["attribute"]
        if not c.esu:
            share_BxSxK = keep_BxSxK / jnp.maximum(keep_BxSxK.sum(-1, keepdims=True), 1)
            return jnp.einsum("bsk,bkd->bsd", share_BxSxK.astype(both_BxKxD.dtype), both_BxKxD)
        if not c.fused_attention:
            attention = layers.TargetAttention(c.heads, c.width, name="both")
            return layers.attend(*attention(target["id"] + target["attribute"], nn.LayerNorm()(both_BxKxD), keep_BxSxK))
        gate_BxK = jnp.full(signals_BxKxG.shape[:2], 0.5, signals_BxKxG.dtype)
        if c.engagement_gate:
            gate_BxK = layers.EngagementGate(name="gate")(signals_BxKxG)
        parts = []
        for kind, share_BxK in (("id", gate_BxK), ("attribute", 1 - gate_BxK)):
            attention = layers.TargetAttention(c.heads, c.width, name=kind)
            weights, values = attention(target[kind], nn.LayerNorm()(events[kind]), keep_BxSxK)
            parts.append(layers.attend(weights, share_BxK[:, :, None, None] * values))
        return parts[0] + parts[1]


class QinModel(nn.Module):
    """Logits `[B, S, T]` without position, the position logits `[B, S, T]`, and the gates `[B, S, T, E]`."""

    config: QinConfig
    profile_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> tuple[Array, Array, Array]:
        c = self.config
        query_BxD = self._query(rows, batch)
        video = self._candidates(rows, batch, train)
        size = video["id"].shape[:2]

        def spread(x_BxD: Array) -> Array:
            return jnp.broadcast_to(x_BxD[:, None], (*size, x_BxD.shape[-1]))

        feed_BxSx1 = jnp.broadcast_to(batch["is_feed_B"][:, None, None], (*size, 1))
        parts = [spread(query_BxD), video["id"], video["attribute"], video["attribute"] * spread(query_BxD)]
        parts += [batch["features_BxSxF"], feed_BxSx1]
        if c.personal:
            parts += self._interests(rows, batch, query_BxD, video)
            parts.append(spread(layers.Profile(self.profile_sizes, 4, name="profile")(batch["profile_BxP"])))
        trunk_BxSxW = layers.Mlp((2 * c.expert_width, c.expert_width), c.dropout, name="trunk")(
            jnp.concatenate(parts, axis=-1), train=train
        )
        # The experts also read the counters: a narrow trunk must not blur the strongest inputs.
        mixed_in = jnp.concatenate([nn.swish(trunk_BxSxW), batch["features_BxSxF"], feed_BxSx1], axis=-1)
        mixed_BxSxTxW, gate_BxSxTxE = layers.MixtureOfExperts(
            len(c.prediction_heads), c.experts, c.expert_width, c.gate_dropout, name="experts"
        )(mixed_in, train=train)
        names = [f"head_{head.name}" for head in c.prediction_heads]
        logits = [nn.Dense(1, name=name)(mixed_BxSxTxW[:, :, t]) for t, name in enumerate(names)]
        logit_BxSxT = jnp.concatenate(logits, axis=-1).astype(jnp.float32)
        return logit_BxSxT, self._position(batch, train).astype(jnp.float32), gate_BxSxTxE

    def _query(self, rows: Rows, batch: Batch) -> Array:
        mask_BxQ = batch["words_BxQ"] > 0
        bag_BxD = layers.WordBag(name="query_bag")(rows["query"], mask_BxQ)
        return bag_BxD + nn.Dense(self.config.width, name="query_content")(batch["query_content_BxD"])

    def _candidates(self, rows: Rows, batch: Batch, train: bool) -> dict[str, Array]:
        c = self.config
        id_BxSxD = layers.drop_vectors(self, rows["video"], c.id_dropout, train=train)
        author_BxSxD = rows["author"] * (batch["author_BxS"] > 0)[..., None]
        attribute_BxSxD = nn.Dense(c.width, name="content")(batch["content_BxSxD"])
        attribute_BxSxD += author_BxSxD + layers.masked_mean(rows["category"], batch["category_BxSxL"] > 0)
        if "brought_BxSxF" in batch:
            attribute_BxSxD += nn.Dense(c.width, name="brought")(batch["brought_BxSxF"])
        return {"id": id_BxSxD, "attribute": attribute_BxSxD}

    def _interests(self, rows: Rows, batch: Batch, query_BxD: Array, video: dict[str, Array]) -> list[Array]:
        """Long-term interest (GSU, then ESU) and real-time interest, both `[B, S, D]`."""
        c = self.config
        target = {kind: video[kind] + query_BxD[:, None] for kind in video}
        content = nn.Dense(c.width, name="event_content")
        features = layers.EventFeatures(c.width, name="event_features")
        attribute_BxKxD = content(batch["long_content_BxKxD"]) + features(
            batch["long_signals_BxKxG"], batch["long_gap_BxK"]
        )
        attribute_BxKxD += layers.masked_mean(rows["long_category"], batch["long_category_BxKxL"] > 0)
        attribute_BxKxD += rows["long_author"] * (batch["long_author_BxK"] > 0)[..., None]
        if "long_brought_BxKxF" in batch:
            attribute_BxKxD += nn.Dense(c.width, name="event_brought")(batch["long_brought_BxKxF"])
        long_BxSxD = ExactSearchUnit(c, name="esu")(
            target,
            {"id": rows["long"], "attribute": attribute_BxKxD},
            batch["long_signals_BxKxG"],
            batch["keep_BxSxK"],
        )
        if not c.realtime:
            return [long_BxSxD, long_BxSxD * video["attribute"]]
        recent_BxRxD = rows["recent"] + content(batch["recent_content_BxRxD"])
        recent_BxRxD += features(batch["recent_signals_BxRxG"], batch["recent_gap_BxR"])
        mask_BxR = batch["recent_BxR"] > 0
        recent_BxRxD = layers.SelfAttention(c.heads, c.width, name="realtime_self")(recent_BxRxD, mask_BxR)
        keep_BxSxR = jnp.broadcast_to(mask_BxR[:, None], (*video["id"].shape[:2], mask_BxR.shape[1]))
        weights, values = layers.TargetAttention(c.heads, c.width, name="realtime")(
            target["id"] + target["attribute"], nn.LayerNorm()(recent_BxRxD), keep_BxSxR
        )
        return [long_BxSxD, layers.attend(weights, values), long_BxSxD * video["attribute"]]

    def _position(self, batch: Batch, train: bool) -> Array:
        """Logits of the shallow position tower: position explains clicks in the log, and is unknown when serving."""
        heads = len(self.config.prediction_heads)
        side = nn.Embed(POSITIONS + 1, heads, embedding_init=nn.initializers.zeros, name="position")
        # Row 0 stands for an unknown or dropped position and adds nothing.
        known_BxS = jnp.clip(batch["position_BxS"] + 1, 0, POSITIONS)
        if train:
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.config.position_dropout, known_BxS.shape)
            known_BxS = jnp.where(keep, known_BxS, 0)
        return side(known_BxS) * (known_BxS > 0)[..., None]


@dataclasses.dataclass(frozen=True, eq=False)
class QinTask(layers.ModelTask):
    """The ranker's task. A row of the batch is a slate: one request and S results.

    `history_BxH`, `recent_BxR` (oldest first) and `video_BxS` are video rows, 0 = padding. `position_BxS` is -1 where
    unknown, `features_BxSxF` are standardised, `weight_BxSxT` is 0 where a head has no label.
    `frozen`: `content`, `author`, `category` and, where the log has them, `brought` vectors of the catalogue.
    """

    profile_sizes: tuple[int, ...]
    features: int
    name: str = "qin"

    @property
    def model(self) -> QinModel:
        return QinModel(self.config, self.profile_sizes)

    @property
    def slate_schema(self) -> Schema:
        """Inputs of the ranker."""
        c, person = self.config, {}
        if c.personal:
            person = _events("history_BxH", "signals_BxHxG", "gap_seconds_BxH", c.history)
            if c.realtime:
                person |= _events("recent_BxR", "recent_signals_BxRxG", "recent_gap_BxR", c.realtime)
        return {
            "words_BxQ": ints("B", "Q"),
            "query_content_BxD": floats("B", self.frozen["content"].shape[1]),
            "profile_BxP": ints("B", len(self.profile_sizes)),
            **person,
            "is_feed_B": floats("B"),
            "video_BxS": ints("B", "S"),
            "position_BxS": ints("B", "S"),
            "features_BxSxF": floats("B", "S", self.features),
        }

    @property
    def schema(self) -> Schema:
        heads = len(self.config.prediction_heads)
        labels = {"label_BxSxT": floats("B", "S", heads), "weight_BxSxT": floats("B", "S", heads)}
        return self.slate_schema | labels

    def prepare(self, frozen: dict[str, Array], batch: Batch) -> Batch:
        """The batch with frozen vectors and the result of the GSU."""
        c, video_BxS = self.config, batch["video_BxS"]
        results = {"author": "author_BxS", "category": "category_BxSxL", "brought": "brought_BxSxF"}
        out = batch | layers.taken(frozen, video_BxS, content="content_BxSxD", **results)
        if not c.personal:
            return out
        if c.realtime:
            out["recent_content_BxRxD"] = take(frozen["content"], batch["recent_BxR"])
        return out | self._kept(frozen, batch, out["content_BxSxD"])

    def _kept(self, frozen: dict[str, Array], batch: Batch, content_BxSxD: Array) -> Batch:
        """What the GSU keeps of the long history, first by query, then by candidate."""
        c, query_BxD = self.config, batch["query_content_BxD"]
        history_BxHxD = take(frozen["content"], batch["history_BxH"])
        query_BxD = query_BxD if c.query_filter else jnp.zeros_like(query_BxD)  # equal to all: the latest are kept
        position_BxK, mask_BxK = search_by_query(query_BxD, history_BxHxD, batch["history_BxH"] > 0, c.keep_query)
        kept_BxKxD = jnp.take_along_axis(history_BxHxD, position_BxK[..., None], axis=1)
        long_BxK = jnp.where(mask_BxK, jnp.take_along_axis(batch["history_BxH"], position_BxK, axis=1), 0)
        if c.video_filter:
            keep_BxSxK = search_by_video(content_BxSxD, kept_BxKxD, mask_BxK, c.keep_video)
        else:
            keep_BxSxK = jnp.broadcast_to(mask_BxK[:, None], (*content_BxSxD.shape[:2], mask_BxK.shape[1]))
        past = {"author": "long_author_BxK", "category": "long_category_BxKxL", "brought": "long_brought_BxKxF"}
        return layers.taken(frozen, long_BxK, **past) | {
            "long_BxK": long_BxK,
            "long_content_BxKxD": kept_BxKxD,
            "long_signals_BxKxG": jnp.take_along_axis(batch["signals_BxHxG"], position_BxK[..., None], axis=1),
            "long_gap_BxK": jnp.take_along_axis(batch["gap_seconds_BxH"], position_BxK, axis=1),
            "keep_BxSxK": keep_BxSxK,
        }

    def lookups(self, batch: Batch) -> Lookups:
        lookups: Lookups = {
            "query": ("word", batch["words_BxQ"]),
            "video": ("video", batch["video_BxS"]),
            "author": ("author", batch["author_BxS"]),
            "category": ("category", batch["category_BxSxL"]),
        }
        if self.config.personal:
            lookups["long"] = ("video", batch["long_BxK"])
            lookups["long_author"] = ("author", batch["long_author_BxK"])
            lookups["long_category"] = ("category", batch["long_category_BxKxL"])
            if self.config.realtime:
                lookups["recent"] = ("video", batch["recent_BxR"])
        return resolved(self.table_specs(), lookups)

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        c = self.config
        exact = exact_names(self.schema) | {"long_gap_BxK"}  # which prepare picks from one of them
        inputs = layers.lowered(({"params": params}, rows, batch), c.compute, exact)
        logit_BxSxT, position_BxSxT, gate_BxSxTxE = self.model.apply(*inputs, train=True, rngs={"dropout": rng})
        logit_BxSxT = logit_BxSxT + position_BxSxT
        arrays, heads = (logit_BxSxT, batch["label_BxSxT"], batch["weight_BxSxT"]), c.prediction_heads
        each = [layers.pointwise(*(x[..., t] for x in arrays)) for t in range(len(heads))]
        # The first head's label is the click (config/schema.py), by which rankings are judged.
        ranked = layers.listwise(*(x[..., 0] for x in arrays))
        loss = functools.reduce(operator.add, (head.weight * x for head, x in zip(heads, each, strict=True)))
        entropy_T = -(gate_BxSxTxE * jnp.log(gate_BxSxTxE + 1e-9)).sum(-1).mean((0, 1))
        metrics = {head.name: x for head, x in zip(heads, each, strict=True)} | {"listwise": ranked}
        metrics |= {f"gate_entropy_{head.name}": entropy_T[t] for t, head in enumerate(heads)}
        return loss + c.listwise_weight * ranked, metrics


def _events(video: str, signals: str, gap: str, length: int) -> Schema:
    return {
        video: ints("B", length),
        signals: floats("B", length, len(SIGNALS)),
        gap: floats("B", length, exact=True),
    }
