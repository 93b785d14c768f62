"""Embedding tables: what they are and how rows are read on one device. Models see only the rows that a batch asked for.

A task names its lookups, `{"history": ("video", ids_BxH), ...}`; this file turns them into rows. Training reads and
updates them where they are split over devices (training/row_updates.py).
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.config import TableConfig, TablesConfig

Tables = dict[str, Array]
Lookups = dict[str, tuple[str, Array]]
Rows = dict[str, Array]
EXACT = TableConfig()
ROW_MULTIPLE = 512
"""Tables are padded to a multiple of this many rows."""


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One table for `rows` ids (0 included) by `width`, float32, drawn from N(0, deviation^2)."""

    rows: int
    width: int
    deviation: float = 0.0  # 0 = 1 / sqrt(width): rows of length 1
    config: TableConfig = EXACT

    @property
    def used_rows(self) -> int:
        """Rows that some id can have."""
        return self.config.hashed_rows or self.rows

    @property
    def padded_rows(self) -> int:
        """Rows as stored: they split evenly over 1, 2, 4, ... 512 devices, and a checkpoint fits all of them."""
        return -(-self.used_rows // ROW_MULTIPLE) * ROW_MULTIPLE


def table_specs(
    sizes: Mapping[str, int], width: int, config: TablesConfig, deviations: Mapping[str, float] | None = None
) -> dict[str, TableSpec]:
    """Specs of the tables named in `sizes` (ids of each), all of one width."""
    entries = vars(config)
    return {
        name: TableSpec(ids, width, (deviations or {}).get(name, 0.0), entries[name]) for name, ids in sizes.items()
    }


def init_tables(specs: dict[str, TableSpec], key: Array) -> Tables:
    """`[padded_rows, width]` each. Each table draws from its own stream, so that adding one leaves the others as they
    were. Row 0 (unknown) and the padding are zero: they say nothing."""

    def draw(name: str, spec: TableSpec) -> Array:
        stream = jax.random.fold_in(key, zlib.crc32(name.encode()))
        drawn = jax.random.normal(stream, (spec.padded_rows, spec.width)) * (spec.deviation or spec.width**-0.5)
        row_Vx1 = jnp.arange(spec.padded_rows)[:, None]
        return jnp.where((row_Vx1 > 0) & (row_Vx1 < spec.used_rows), drawn, 0)

    return {name: draw(name, spec) for name, spec in specs.items()}


def gather(tables: Tables, lookups: Lookups) -> Rows:
    """Rows of shape `ids.shape + (width,)`."""
    return {name: take(tables[table], ids) for name, (table, ids) in lookups.items()}


def take(array_Vx: Array, ids_x: Array) -> Array:
    """Rows of an array, `ids.shape + array.shape[1:]`. Ids must be in range; the nearest row answers for any other.

    To mark a wrong id in the result, as `jnp.take` does, costs another pass over every row. `astray` looks at the ids.
    """
    return array_Vx.at[ids_x].get(mode="clip", wrap_negative_indices=False)


def resolved(specs: dict[str, TableSpec], lookups: Lookups) -> Lookups:
    """Ids as rows: those of hashed tables are hashed (0 stays 0), the others are what they were."""

    def rows(table: str, ids: Array) -> Array:
        hashed_rows = specs[table].config.hashed_rows
        if not hashed_rows:
            return ids
        row = jnp.where(ids == 0, 0, 1 + (mixed(ids) % (hashed_rows - 1)).astype(jnp.int32))
        return jnp.where((ids < 0) | (ids >= specs[table].rows), -1, row)  # for `astray` to see

    return {name: (table, rows(table, ids)) for name, (table, ids) in lookups.items()}


def mixed(ids_x: Array) -> Array:
    """A hash of each id, uint32: the finaliser of MurmurHash3."""
    x = ids_x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def astray(specs: dict[str, TableSpec], lookups: Lookups) -> Array:
    """Whether any row lies outside its table. The loop reports the loss of such a batch as NaN, and so stops there."""
    outside = [((ids < 0) | (ids >= specs[table].used_rows)).any() for table, ids in lookups.values()]
    return functools.reduce(jnp.logical_or, outside)
