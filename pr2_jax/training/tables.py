"""Embedding tables: who owns the rows. Models see only the rows that a batch asked for.

A task names its lookups, `{"history": ("video", ids_BxH), ...}`; this file turns them into rows. The plain version
here differentiates through the gather; a sharded, sparsely updated one can take its place without touching a model.
"""

from __future__ import annotations

import dataclasses
import math
import zlib

import jax
import jax.numpy as jnp
from jax import Array

Tables = dict[str, Array]
Lookups = dict[str, tuple[str, Array]]
Rows = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One table of `rows` (row 0 included) by `width`, float32, drawn from N(0, deviation^2)."""

    rows: int
    width: int
    deviation: float = 0.0  # 0 = 1 / sqrt(width): rows of length 1


def init_tables(specs: dict[str, TableSpec], key: Array) -> Tables:
    """Each table draws from its own stream, so that adding one leaves the others as they were."""

    def draw(name: str, spec: TableSpec) -> Array:
        stream = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return jax.random.normal(stream, (spec.rows, spec.width)) * (spec.deviation or 1 / math.sqrt(spec.width))

    return {name: draw(name, spec) for name, spec in specs.items()}


def gather(tables: Tables, lookups: Lookups) -> Rows:
    """Rows of shape `ids.shape + (width,)`. Ids must be in range: one past the end gives NaN, a negative one counts
    from the end."""
    return {name: jnp.take(tables[table], ids, axis=0) for name, (table, ids) in lookups.items()}
