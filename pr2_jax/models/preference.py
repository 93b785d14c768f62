"""The preference model: vectors of people and videos that predict engagement, learnt from every view of the log [ours].

A log holds far more feed views than searches, and a view tells of skips as well as of likes. A person is a mean over
past events, `u = sum_b g(signals_b) * A y_b / (n + kappa)`, a video is `B y_v`, and `u diag(d_t) B y_v` predicts click,
long play and like. PDR and QIN read the vectors, which are frozen after training.

No person has a row of their own: a person's vector follows from events, also for people who came after training.
`id_dropout` makes author, category and content describe videos. Sums over the past are differences of prefix sums, so
one pass over a chunk of timelines trains every event on its whole past.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from pr2_jax.config import PREFERENCE_LABELS, PreferenceConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models.layers import ModelTask, drop_vectors, weighted_mean
from pr2_jax.training.embedding_tables import Lookups, Rows, TableSpec, resolved, table_specs, take
from pr2_jax.training.loop import Batch, Metrics, Params
from pr2_jax.training.mesh import Schema, floats, ints
from pr2_jax.types import People

ID_DEVIATION = 0.05
"""Standard deviation of initial id rows. Small, since rows that are rarely trained must not add noise."""


def _near_identity(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
    return jnp.eye(*shape, dtype=dtype) + 0.02 * jax.random.normal(key, shape, dtype)


class PreferenceModel(nn.Module):
    """The parts of the model, callable one by one; a video's vector `y` feeds both sides."""

    config: PreferenceConfig

    def setup(self) -> None:
        width = self.config.width
        self.attributes = nn.Dense(width, use_bias=False, kernel_init=nn.initializers.normal(0.2))
        self.past = nn.Dense(width, use_bias=False, kernel_init=_near_identity)
        self.gate = nn.Dense(width, kernel_init=nn.initializers.normal(0.3))
        self.future = nn.Dense(width, use_bias=False, kernel_init=_near_identity)
        self.axes = self.param("axes", nn.initializers.ones, (len(PREFERENCE_LABELS), width))
        self.appeal_of = nn.Dense(len(PREFERENCE_LABELS), kernel_init=nn.initializers.normal(0.01))
        self.habit_of = nn.Dense(len(PREFERENCE_LABELS), use_bias=False, kernel_init=nn.initializers.zeros)

    def item(self, rows: Rows, video: dict[str, Array], *, train: bool = False) -> Array:
        """`y [N, D]` of N videos; in training most id rows are left out."""
        id_NxD = drop_vectors(self, rows["video"], self.config.id_dropout, train=train)
        known = [video["content"], video["numbers"], *(video[name] for name in ("brought", "style") if name in video)]
        item_NxD = id_NxD + self.attributes(jnp.concatenate(known, axis=-1))
        item_NxD += rows["author"] * (video["author"] > 0)[:, None]
        return item_NxD + (rows["category"] * (video["category"] > 0)[..., None]).sum(-2)

    def says(self, item_xD: Array, signals_xG: Array) -> Array:
        """One event's term of its person's vector: the video, gated by the event's signals."""
        return self.gate(signals_xG) * self.past(item_xD)

    def appeal(self, item_xD: Array) -> Array:
        """`[..., T]` logits of a video for nobody in particular."""
        return self.appeal_of(item_xD)

    def personal(self, item_xD: Array, people: People) -> Array:
        """`[..., T]` logits that a person adds; `people` lead with the same axes as `item`, or broadcast to them."""
        match_xT = jnp.einsum("...d,td,...d->...t", people.preference_NxD, self.axes, self.future(item_xD))
        amount_x1 = jnp.log1p(people.events_N)[..., None] / 5
        return match_xT + self.habit_of(jnp.concatenate([people.habit_NxG, amount_x1], axis=-1))

    def __call__(self, rows: Rows, batch: Batch, *, train: bool = False) -> Array:
        """`[E, T]` logits of every event of a chunk given its past."""
        item_ExD = self.item(rows, batch["video"], train=train)
        kappa = self.config.pseudo_events
        people = People(
            pooled(self.says(item_ExD, batch["signals_ExG"]), batch["first_E"], batch["end_E"], kappa),
            pooled(batch["signals_ExG"], batch["first_E"], batch["end_E"], kappa),
            (batch["end_E"] - batch["first_E"]).astype(jnp.float32),
        )
        return self.appeal(item_ExD) + self.personal(item_ExD, people)


def pooled(value_ExD: Array, first_E: Array, end_E: Array, kappa: float) -> Array:
    """`sum(value[first:end]) / (end - first + kappa)` for each of E ranges, by prefix sums."""
    total_ExD = jnp.concatenate([jnp.zeros_like(value_ExD[:1]), jnp.cumsum(value_ExD, axis=0)])
    length_Ex1 = (end_E - first_E).astype(value_ExD.dtype)[:, None]
    return (take(total_ExD, end_E) - take(total_ExD, first_E)) / (length_Ex1 + kappa)


@dataclasses.dataclass(frozen=True, eq=False)
class PreferenceTask(ModelTask):
    """The preference model's task. A batch is a chunk of timelines; the past of an event is `[first_E, end_E)` of it.

    `frozen`: `content`, `numbers`, `author`, `category` and, where the log has vectors, `brought` and `style`.
    """

    name: str = "preference"

    @property
    def model(self) -> PreferenceModel:
        return PreferenceModel(self.config)

    @property
    def schema(self) -> Schema:
        labels = floats("E", len(PREFERENCE_LABELS))
        events = {"video_E": ints("E"), "signals_ExG": floats("E", len(SIGNALS))}
        return events | {"first_E": ints("E"), "end_E": ints("E"), "label_ExT": labels, "weight_ExT": labels}

    def table_specs(self) -> dict[str, TableSpec]:
        deviations = {"video": ID_DEVIATION, "author": 2 * ID_DEVIATION, "category": 2 * ID_DEVIATION}
        sizes = {name: self.sizes[name] for name in deviations}
        return table_specs(sizes, self.config.width, self.config.tables, deviations)

    def prepare(self, frozen: dict[str, Array], batch: Batch) -> Batch:
        return {**batch, "video": {name: take(x, batch["video_E"]) for name, x in frozen.items()}}

    def lookups(self, batch: Batch) -> Lookups:
        lookups: Lookups = {
            "video": ("video", batch["video_E"]),
            "author": ("author", batch["video"]["author"]),
            "category": ("category", batch["video"]["category"]),
        }
        return resolved(self.table_specs(), lookups)

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        c = self.config
        logit_ExT = self.model.apply({"params": params}, rows, batch, train=True, rngs={"dropout": rng})
        each_ExT = optax.sigmoid_binary_cross_entropy(logit_ExT, batch["label_ExT"])
        weight_ExT = batch["weight_ExT"]
        mean_T = jnp.stack([weighted_mean(each_ExT[:, t], weight_ExT[:, t]) for t in range(len(PREFERENCE_LABELS))])
        loss = mean_T @ jnp.array([c.click_weight, c.long_play_weight, c.like_weight])
        return loss, {task: mean_T[t] for t, task in enumerate(PREFERENCE_LABELS)}
