"""What the loop needs to know of a model."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.training.embedding_tables import Lookups, Rows, TableSpec

Params = Any
Batch = dict[str, Array]
Frozen = Any
Metrics = dict[str, Array]


class Task(Protocol):
    """A model as the loop sees it. `loss` gets rows, never tables, so that where rows live is not its business."""

    name: str
    frozen: Frozen
    """Arrays that no gradient reaches (content vectors, video attributes). Passed to the jitted step as an argument:
    closed over, they would be baked into the program as constants."""

    def table_specs(self) -> dict[str, TableSpec]:
        """The tables, by name."""
        ...

    def init(self, key: Array) -> Params:
        """Dense parameters."""
        ...

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        """What depends on no parameter: joins frozen vectors, runs the search units."""
        ...

    def lookups(self, batch: Batch) -> Lookups:
        """Which ids of the prepared batch index which table."""
        ...

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        """Mean loss of the batch and scalars worth logging."""
        ...


def sample_of(frozen: Frozen) -> Frozen:
    """Two rows of zeros for each frozen array: all that `init` needs to know, where the arrays themselves would become
    constants of the program."""
    return jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), frozen)
