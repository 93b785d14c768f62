"""Embedding tables: what they are and how rows are read on one device. Models see only the rows that a batch asked for.

A task names its lookups, `{"history": ("video", ids_BxH), ...}`; this file turns them into rows. Training reads and
updates them where they are split over devices (training/sparse.py).
"""

from __future__ import annotations

import dataclasses
import zlib

import jax
import jax.numpy as jnp
from jax import Array

Tables = dict[str, Array]
Lookups = dict[str, tuple[str, Array]]
Rows = dict[str, Array]
ROW_MULTIPLE = 512
"""Tables are padded to a multiple of this many rows."""


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One table of `rows` (row 0 included) by `width`, float32, drawn from N(0, deviation^2)."""

    rows: int
    width: int
    deviation: float = 0.0  # 0 = 1 / sqrt(width): rows of length 1

    @property
    def padded_rows(self) -> int:
        """Rows as stored: they split evenly over any usual number of devices, and a checkpoint fits all of them."""
        return -(-self.rows // ROW_MULTIPLE) * ROW_MULTIPLE


def init_tables(specs: dict[str, TableSpec], key: Array) -> Tables:
    """`[padded_rows, width]` each. Each table draws from its own stream, so that adding one leaves the others as they
    were; the padding is zero."""

    def draw(name: str, spec: TableSpec) -> Array:
        stream = jax.random.fold_in(key, zlib.crc32(name.encode()))
        drawn = jax.random.normal(stream, (spec.padded_rows, spec.width)) * (spec.deviation or spec.width**-0.5)
        return jnp.where(jnp.arange(spec.padded_rows)[:, None] < spec.rows, drawn, 0)

    return {name: draw(name, spec) for name, spec in specs.items()}


def gather(tables: Tables, lookups: Lookups) -> Rows:
    """Rows of shape `ids.shape + (width,)`. Ids must be in range: one past the end gives NaN, a negative one counts
    from the end."""
    return {name: jnp.take(tables[table], ids, axis=0) for name, (table, ids) in lookups.items()}
