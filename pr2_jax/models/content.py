"""Content towers: queries and videos in one frozen space, from words and attributes (docs/method.md, Content towers).

InfoNCE on (query, clicked video) pairs of the training days and on pseudo-queries: a few words of a caption should
find their video. Pseudo-queries cover every word and every video, clicked or not [ours].
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from pr2_jax.config import ContentConfig
from pr2_jax.models import layers
from pr2_jax.training.embedding_tables import Lookups, Rows, resolved
from pr2_jax.training.loop import Batch, Metrics, Params
from pr2_jax.training.mesh import Schema, ints
from pr2_jax.types import NEVER

QUERY: Schema = {"words_BxQ": ints("B", "Q")}
"""What the query tower reads."""


class QueryTower(nn.Module):
    """`[B, Q]` word rows to unit vectors `[B, D]`; a query without a known word becomes the zero vector."""

    config: ContentConfig

    @nn.compact
    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> Array:
        mask_BxQ = batch["words_BxQ"] > 0
        bag_BxD = layers.WordBag(name="bag")(rows["query"], mask_BxQ)
        c = self.config
        out_BxD = bag_BxD + layers.Mlp((c.hidden, c.width), c.dropout, name="mlp")(bag_BxD, train=train)
        return layers.unit(out_BxD) * mask_BxQ.any(1, keepdims=True)


class VideoTower(nn.Module):
    """Attributes of N videos to unit vectors `[N, D]`. It reads no id, so a new video is embedded like an old one."""

    config: ContentConfig

    @nn.compact
    def __call__(self, rows: Rows, video: dict[str, Array], *, train: bool = False) -> Array:
        c = self.config
        total_NxD = layers.VideoAttributes(c.width, c.modality_dropout, name="attributes")(rows, video, train=train)
        return layers.unit(total_NxD + layers.Mlp((c.hidden, c.width), c.dropout, name="mlp")(total_NxD, train=train))


class ContentModel(nn.Module):
    """The two towers, callable one by one."""

    config: ContentConfig

    def setup(self) -> None:
        self.query_tower = QueryTower(self.config)
        self.video_tower = VideoTower(self.config)

    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> tuple[Array, Array]:
        return self.query_tower(rows, batch, train=train), self.video_tower(rows, batch["video"], train=train)


@dataclasses.dataclass(frozen=True, eq=False)
class ContentTask(layers.ModelTask):
    """The content towers' task. `video_B` are the positives, `uniform_N` the negatives.

    `frozen` is the catalogue and, to train, `log_unigram`: the log share of each video among the sampled positives.
    """

    name: str = "content"

    @property
    def model(self) -> ContentModel:
        return ContentModel(self.config)

    @property
    def schema(self) -> Schema:
        return QUERY | {"video_B": ints("B"), "uniform_N": ints("N")}

    def prepare(self, frozen: dict[str, Array], batch: Batch) -> Batch:
        ids_N = jnp.concatenate([batch["video_B"], batch["uniform_N"]])
        return {**batch, "ids_N": ids_N, "video": layers.take_videos(frozen, ids_N, "log_unigram")}

    def lookups(self, batch: Batch) -> Lookups:
        """Of each tower whose inputs the batch has."""
        query: Lookups = {"query": ("word", batch["words_BxQ"])} if "words_BxQ" in batch else {}
        return resolved(self.table_specs(), query | layers.video_lookups(batch))

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        inputs = layers.lowered(({"params": params}, rows, batch), self.config.compute, ())
        query_BxD, video_NxD = self.model.apply(*inputs, train=True, rngs={"dropout": rng})
        size, total = len(query_BxD), len(self.frozen["author"])
        score_BxN = query_BxD @ video_NxD.T / self.config.temperature
        log_q_N = layers.log_proposal(batch["video"]["log_unigram"], size, len(video_NxD) - size, total)
        same_BxN = batch["video_B"][:, None] == batch["ids_N"][None, :]
        positive_B = jnp.diagonal(score_BxN)
        each_B = layers.sampled_softmax(positive_B, score_BxN, log_q_N[:size], log_q_N, same_BxN)
        hit_B = positive_B >= jnp.where(same_BxN, NEVER, score_BxN).max(1)
        return each_B.mean(), {"top1": hit_B.mean()}
