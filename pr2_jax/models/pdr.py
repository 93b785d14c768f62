"""PDR, personalised dense retrieval: a dual encoder with the person on the query side (docs/method.md, PDR)."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from pr2_jax.config import PdrConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models import layers
from pr2_jax.training.embedding_tables import Lookups, Rows, resolved
from pr2_jax.training.loop import Batch, Metrics, Params
from pr2_jax.training.mesh import Schema, exact_names, floats, ints


class QueryEncoder(nn.Module):
    """A query from its word rows and its frozen content vector; a learned vector stands for the empty query."""

    width: int

    @nn.compact
    def __call__(self, rows_BxQxD: Array, batch: Batch) -> Array:
        mask_BxQ = batch["words_BxQ"] > 0
        query_BxD = layers.WordBag(name="bag")(rows_BxQxD, mask_BxQ)
        query_BxD += nn.Dense(self.width, name="content")(batch["query_content_BxD"])
        null_1xD = self.param("null_query", nn.initializers.normal(0.1), (1, self.width))
        return jnp.where(mask_BxQ.any(1, keepdims=True), query_BxD, null_1xD)


class QueryUserTower(nn.Module):
    """Query, profile and behaviours to one unit vector `[B, D]`.

    `h = [LN(q); history pooled by attention from q, with a zero slot; mean of the history; preference; profile]` → MLP,
    plus a skip from q: a person without a past falls back to plain semantics. The tower reads no candidate.
    """

    config: PdrConfig
    profile_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> Array:
        c = self.config
        query_BxD = QueryEncoder(c.width, name="query")(rows["query"], batch)
        known, leaning_BxD = [], jnp.zeros_like(query_BxD)
        if c.use_history:
            pooled_BxD, mean_BxD = self._history(rows, batch, query_BxD)
            known += [pooled_BxD, nn.LayerNorm(name="mean_norm")(mean_BxD)]
            leaning_BxD += nn.Dense(c.width, use_bias=False, name="leaning")(pooled_BxD + mean_BxD)
        if c.use_preference:
            known.append(batch["preference_BxD"])
            leaning_BxD += nn.Dense(c.width, use_bias=False, name="taste")(batch["preference_BxD"])
        if c.use_profile:
            known.append(layers.Profile(self.profile_sizes, 8, name="profile")(batch["profile_BxP"]))
        h = jnp.concatenate([nn.LayerNorm(name="query_norm")(query_BxD), *known], axis=-1)
        personal_BxD = layers.Mlp((c.hidden, c.width), c.dropout, normalise=False, name="mlp")(h, train=train)
        return layers.unit(query_BxD + personal_BxD + leaning_BxD)

    def _history(self, rows: Rows, batch: Batch, query_BxD: Array) -> tuple[Array, Array]:
        """The history pooled by attention from the query, and its plain mean: `[B, D]` both."""
        c, mask_BxH = self.config, batch["history_BxH"] > 0
        events = [rows["history"], rows["history_author"], batch["history_content_BxHxD"]]
        if "history_brought_BxHxF" in batch:
            events.append(batch["history_brought_BxHxF"])
        events.append(layers.event_features(batch["signals_BxHxG"], batch["gap_seconds_BxH"]))
        pooled_BxD = layers.PooledAttention(c.heads, c.width, name="attention")(query_BxD, events, mask_BxH)
        return pooled_BxD, layers.masked_mean(rows["history"], mask_BxH)


class PdrVideoTower(nn.Module):
    """N videos to unit vectors. Training drops some id rows, so that the tower can embed new videos."""

    config: PdrConfig

    @nn.compact
    def __call__(self, rows: Rows, video: dict[str, Array], *, train: bool = False) -> Array:
        c = self.config
        total_NxD = layers.VideoAttributes(c.width, name="attributes")(rows, video, train=train)
        total_NxD += nn.Dense(c.width, name="content")(video["content"])
        total_NxD += nn.Dense(c.width, use_bias=False, name="taste")(video["preference"])
        total_NxD += layers.drop_vectors(self, rows["video"], c.id_dropout, train=train)
        return layers.unit(total_NxD + layers.Mlp((c.hidden, c.width), c.dropout, name="mlp")(total_NxD, train=train))


class PdrModel(nn.Module):
    """The two towers, callable one by one."""

    config: PdrConfig
    profile_sizes: tuple[int, ...]

    def setup(self) -> None:
        self.query_user_tower = QueryUserTower(self.config, self.profile_sizes)
        self.video_tower = PdrVideoTower(self.config)

    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> tuple[Array, Array]:
        return self.query_user_tower(rows, batch, train=train), self.video_tower(rows, batch["video"], train=train)


@dataclasses.dataclass(frozen=True, eq=False)
class PdrTask(layers.ModelTask):
    """PDR's task.

    Query side: `history_BxH` are video rows (0 = padding), `preference_BxD` is the person in the preference space.
    Video side: `video_B` (engaged with), `shown_B` (a result that the engine held relevant, 0 = none), `uniform_N`,
    `hard_BxK` (0 = none). `feedback_BxT` is 1 where a label of `config.feedback_heads` is known to hold. Rows of one
    `session_B` are no negatives of each other.
    `frozen`: the catalogue with `content` (unit vectors), `preference` and, to train, `log_unigram`.
    """

    profile_sizes: tuple[int, ...]
    name: str = "pdr"

    @property
    def model(self) -> PdrModel:
        return PdrModel(self.config, self.profile_sizes)

    @property
    def query_schema(self) -> Schema:
        """Inputs of the query-user tower."""
        h = self.config.history
        return {
            "words_BxQ": ints("B", "Q"),
            "query_content_BxD": floats("B", self.frozen["content"].shape[1]),
            "profile_BxP": ints("B", len(self.profile_sizes)),
            "preference_BxD": floats("B", self.frozen["preference"].shape[1]),
            "history_BxH": ints("B", h),
            "signals_BxHxG": floats("B", h, len(SIGNALS)),
            "gap_seconds_BxH": floats("B", h, exact=True),
        }

    @property
    def schema(self) -> Schema:
        return self.query_schema | {
            "video_B": ints("B"),
            "shown_B": ints("B"),
            "uniform_N": ints("N"),
            "hard_BxK": ints("B", "K"),
            "feedback_BxT": floats("B", len(self.config.feedback_heads)),
            "session_B": ints("B"),
        }

    def prepare(self, frozen: dict[str, Array], batch: Batch) -> Batch:
        past = {"content": "history_content_BxHxD", "author": "history_author_BxH", "brought": "history_brought_BxHxF"}
        batch = batch | layers.taken(frozen, batch["history_BxH"], **past)
        if "video_B" not in batch:
            return batch
        ids_N = jnp.concatenate([batch["video_B"], batch["shown_B"], batch["uniform_N"], batch["hard_BxK"].reshape(-1)])
        video = layers.take_videos(frozen, ids_N, "content", "preference", "log_unigram")
        return {**batch, "ids_N": ids_N, "video": video}

    def lookups(self, batch: Batch) -> Lookups:
        """Of each tower whose inputs the batch has."""
        lookups: Lookups = {"query": ("word", batch["words_BxQ"])} if "words_BxQ" in batch else {}
        if lookups and self.config.use_history:
            lookups["history"] = ("video", batch["history_BxH"])
            lookups["history_author"] = ("author", batch["history_author_BxH"])
        if "video" in batch:
            lookups["video"] = ("video", batch["ids_N"])
        return resolved(self.table_specs(), lookups | layers.video_lookups(batch))

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        c, size = self.config, len(batch["words_BxQ"])
        inputs = layers.lowered(({"params": params}, rows, batch), c.compute, exact_names(self.schema))
        user_BxD, video_NxD = self.model.apply(*inputs, train=True, rngs={"dropout": rng})
        uniform = len(batch["uniform_N"])
        engaged, shown, easy, hard = jnp.split(video_NxD, [size, 2 * size, 2 * size + uniform])
        log_q_N = layers.log_proposal(batch["video"]["log_unigram"], size, uniform, len(self.frozen["author"]))
        log_q_N = log_q_N if c.log_q else jnp.zeros_like(log_q_N)
        log_q = jnp.concatenate([log_q_N[:size], log_q_N[2 * size : 2 * size + uniform]])
        ids = jnp.concatenate([batch["video_B"], batch["uniform_N"]])
        negative_BxN = user_BxD @ jnp.concatenate([engaged, easy]).T / c.temperature
        same_session_BxB = batch["session_B"][:, None] == batch["session_B"][None, :]
        masked_BxN = jnp.pad(same_session_BxB, ((0, 0), (0, uniform)))
        hard_BxK = batch["hard_BxK"]
        hard_score_BxK = jnp.einsum("bd,bkd->bk", user_BxD, hard.reshape(*hard_BxK.shape, c.width)) / c.temperature

        def softmax(positive_id_B: Array, positive_BxD: Array, log_q_B: Array) -> Array:
            score_B = (user_BxD * positive_BxD).sum(-1) / c.temperature
            false_BxN = masked_BxN | (ids[None, :] == positive_id_B[:, None])
            # A hard negative was chosen, not drawn: it gets the positive's own correction.
            false_BxK = (hard_BxK == positive_id_B[:, None]) | (hard_BxK == 0)
            scores = jnp.concatenate([negative_BxN - log_q[None, :], hard_score_BxK - log_q_B[:, None]], axis=1)
            return layers.sampled_softmax(
                score_B, scores, log_q_B, jnp.zeros_like(scores[0]), jnp.concatenate([false_BxN, false_BxK], axis=1)
            )

        feedback_B = softmax(batch["video_B"], engaged, log_q_N[:size])
        relevance_B = softmax(batch["shown_B"], shown, log_q_N[size : 2 * size])
        head_weight = jnp.array([[head.weight for head in c.feedback_heads]])
        feedback = (feedback_B * (batch["feedback_BxT"] * head_weight).sum(1)).sum() / size
        relevance = layers.weighted_mean(relevance_B, (batch["shown_B"] > 0).astype(jnp.float32))
        metrics = {"feedback": feedback_B.mean(), "relevance": relevance}
        return feedback + c.relevance_weight * relevance, metrics
