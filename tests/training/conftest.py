"""A task small enough to see through: a row of a table, a dot product, a squared error."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import OptimConfig
from pr2_jax.training.embedding_tables import TableSpec
from pr2_jax.training.mesh import Schema, floats, ints


@dataclasses.dataclass(frozen=True, eq=False)
class Toy:
    """`loss = mean((w . row + frozen - label)^2)` with noise from the step's key, so that the key counts too."""

    frozen: jax.Array
    rows: int = 7
    name: str = "toy"

    @property
    def schema(self) -> Schema:
        return {"item_B": ints("B"), "label_B": floats("B")}

    def table_specs(self):
        return {"item": TableSpec(self.rows, 3), "other": TableSpec(2, 3)}

    def init(self, key):
        return {"w": jax.random.normal(key, (3,))}

    def prepare(self, frozen, batch):
        return {**batch, "offset_B": jnp.take(frozen, batch["item_B"])}

    def lookups(self, batch):
        return {"item": ("item", batch["item_B"])}

    def loss(self, params, rows, batch, rng):
        noise_B = 0.01 * jax.random.normal(rng, batch["label_B"].shape)
        error_B = rows["item"] @ params["w"] + batch["offset_B"] + noise_B - batch["label_B"]
        return jnp.square(error_B).mean(), {"bias": error_B.mean()}


OPTIM = OptimConfig(
    batch=4, learning_rate=0.05, table_learning_rate=0.05, checkpoint_every=4, seed=3, table_optimizer="adam"
)


def toy_batch(step: int) -> dict[str, np.ndarray]:
    """A pure function of the step, as every builder."""
    rng = np.random.default_rng(step)
    return {"item_B": rng.integers(0, 7, 4).astype(np.int32), "label_B": rng.normal(size=4).astype(np.float32)}


def make_toy() -> Toy:
    return Toy(jnp.linspace(-1.0, 1.0, 7))


@pytest.fixture
def toy() -> Toy:
    return make_toy()


@pytest.fixture
def batch_at():
    return toy_batch


@pytest.fixture
def optim() -> OptimConfig:
    return OPTIM


@pytest.fixture
def same():
    """Bit for bit: shapes, types and every byte of two trees."""

    def same(one, other) -> bool:
        leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
        pairs = list(zip(leaves, others, strict=True))
        return all(a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)

    return same
