"""Embedding tables: their specs, lookups, and updates that touch only the rows of the batch.

A task names its lookups, `{"history": ("video", ids_BxH), ...}`, and a model gets the rows. The loss is differentiated
with respect to the *gathered* rows: one gradient an occurrence, `[N, D]`. Gradients of one id are summed, the optimiser
updates each distinct row, and the result is scattered into donated buffers. A step's cost does not grow with a table.

`leaders` finds the occurrences of one id without a sort, which takes several times as long on a CPU, and without memory
that grows with the table. Each occurrence writes its place into a hashed slot and the largest place wins. An occurrence
that finds its own id there has found its leader. Slots that two ids share are settled next round, under another hash.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from pr2_jax.config import TableConfig, TablesConfig
from pr2_jax.training.mesh import BY_ROWS, DATA, MODEL, REPLICATED, ROW_MULTIPLE

PyTree = Any
RowMemory = dict[str, Array]
"""An optimiser's state of one table: arrays that lead with the table's rows."""
Tables = dict[str, Array]
Lookups = dict[str, tuple[str, Array]]
Rows = dict[str, Array]
EXACT = TableConfig()
EPSILON = 1e-8
OUTSIDE = np.iinfo(np.int32).max
"""A row that no table has: scatters drop it."""
SLOTS_A_PLACE = 8
"""Hashed slots for each occurrence."""


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One table for `rows` ids (0 included) by `width`, float32, drawn from N(0, deviation^2)."""

    rows: int
    width: int
    deviation: float = 0.0  # 0 = 1 / sqrt(width): rows of length 1
    config: TableConfig = EXACT

    @property
    def used_rows(self) -> int:
        """Rows that ids can reach."""
        return self.config.hashed_rows or self.rows

    @property
    def padded_rows(self) -> int:
        """Rows as stored: they split evenly over 1, 2, 4, ... 512 devices."""
        return -(-self.used_rows // ROW_MULTIPLE) * ROW_MULTIPLE


def table_specs(
    sizes: Mapping[str, int], width: int, config: TablesConfig, deviations: Mapping[str, float] | None = None
) -> dict[str, TableSpec]:
    """Specs of the tables named in `sizes` (ids of each), all of one width."""
    deviations, configs = deviations or {}, vars(config)
    return {name: TableSpec(ids, width, deviations.get(name, 0.0), configs[name]) for name, ids in sizes.items()}


def init_tables(specs: dict[str, TableSpec], key: Array) -> Tables:
    """`[padded_rows, width]` each, drawn from a stream of its own. Row 0 (unknown) and the padding are zero."""

    def draw(name: str, spec: TableSpec) -> Array:
        stream = jax.random.fold_in(key, zlib.crc32(name.encode()))
        drawn = jax.random.normal(stream, (spec.padded_rows, spec.width)) * (spec.deviation or spec.width**-0.5)
        row_Vx1 = jnp.arange(spec.padded_rows)[:, None]
        return jnp.where((row_Vx1 > 0) & (row_Vx1 < spec.used_rows), drawn, 0)

    return {name: draw(name, spec) for name, spec in specs.items()}


def gather(tables: Tables, lookups: Lookups, mesh: Mesh | None = None) -> Rows:
    """Rows of shape `ids.shape + (width,)`. On a mesh each device gives the rows that it owns."""
    if mesh is None or mesh.size == 1:
        return {name: take(tables[table], ids) for name, (table, ids) in lookups.items()}

    def owned(table_RxD: Array, ids_x: Array) -> Array:
        local_x, mine_x = _local(ids_x, len(table_RxD))
        return jax.lax.psum(jnp.where(mine_x[..., None], take(table_RxD, local_x), 0), (DATA, MODEL))

    read = jax.shard_map(owned, mesh=mesh, in_specs=(BY_ROWS, REPLICATED), out_specs=REPLICATED)
    return {name: read(tables[table], ids) for name, (table, ids) in lookups.items()}


def take(array_Vx: Array, ids_x: Array) -> Array:
    """Rows of an array, `ids.shape + array.shape[1:]`. An id out of range gives the nearest row.

    Marking it in the result, as `jnp.take` does, costs another pass over every row. `astray` checks the ids instead.
    """
    return array_Vx.at[ids_x].get(mode="clip", wrap_negative_indices=False)


def resolved(specs: dict[str, TableSpec], lookups: Lookups) -> Lookups:
    """Ids as rows: those of hashed tables are hashed (0 stays 0), the others unchanged."""

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
    """Whether any row lies outside its table. The loop makes the loss of such a batch NaN, and so stops."""
    outside = [((ids < 0) | (ids >= specs[table].used_rows)).any() for table, ids in lookups.values()]
    return functools.reduce(jnp.logical_or, outside)


class TableOptimizer(Protocol):
    """Updates one table from gradients with respect to the gathered rows."""

    def init(self, table_VxD: Array) -> PyTree:
        """Fresh state; its arrays lead with the rows of the table, or are scalars."""

    def update(
        self, table_VxD: Array, state: PyTree, ids_N: Array, grad_NxD: Array, rate: Array, mesh: Mesh
    ) -> tuple[Array, PyTree]:
        """One step; ids may repeat. Row 0 (unknown) never changes."""


class SparseOptimizer(abc.ABC):
    """A TableOptimizer that touches the rows of the batch only."""

    @abc.abstractmethod
    def update_rows(self, memory: RowMemory, grad_NxD: Array) -> tuple[Array, RowMemory]:
        """The direction `[N, D]`, before the learning rate, and the new memory of the N rows touched."""

    def update(
        self, table_VxD: Array, state: RowMemory, ids_N: Array, grad_NxD: Array, rate: Array, mesh: Mesh
    ) -> tuple[Array, RowMemory]:
        one = functools.partial(_update_shard, self.update_rows, sharded=mesh.size > 1)
        if mesh.size > 1:
            specs = (BY_ROWS, BY_ROWS, REPLICATED, REPLICATED, REPLICATED)
            one = jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=(BY_ROWS, BY_ROWS))
        return one(table_VxD, state, ids_N, grad_NxD, rate)


class RowAdagrad(SparseOptimizer):
    """Row-wise Adagrad: `row -= rate * g / sqrt(sum of mean(g^2))`; its memory is one float a row."""

    def init(self, table_VxD: Array) -> RowMemory:
        return {"sum_V": jnp.zeros(len(table_VxD), jnp.float32)}

    def update_rows(self, memory: RowMemory, grad_NxD: Array) -> tuple[Array, RowMemory]:
        sum_N = memory["sum_V"] + jnp.square(grad_NxD).mean(-1)
        return grad_NxD / (jnp.sqrt(sum_N)[:, None] + EPSILON), {"sum_V": sum_N}


class LazyAdam(SparseOptimizer):
    """Adam whose moments decay, and whose bias is corrected, by how often the row itself was touched."""

    beta1, beta2 = 0.9, 0.999

    def init(self, table_VxD: Array) -> RowMemory:
        zeros = jnp.zeros_like(table_VxD)
        return {"mean_VxD": zeros, "square_VxD": jnp.zeros_like(zeros), "touched_V": jnp.zeros(len(zeros), jnp.int32)}

    def update_rows(self, memory: RowMemory, grad_NxD: Array) -> tuple[Array, RowMemory]:
        mean_NxD = self.beta1 * memory["mean_VxD"] + (1 - self.beta1) * grad_NxD
        square_NxD = self.beta2 * memory["square_VxD"] + (1 - self.beta2) * jnp.square(grad_NxD)
        touched_N = memory["touched_V"] + 1
        unbiased1, unbiased2 = (1 - beta ** touched_N[:, None].astype(jnp.float32) for beta in (self.beta1, self.beta2))
        direction_NxD = mean_NxD / unbiased1 / (jnp.sqrt(square_NxD / unbiased2) + EPSILON)
        return direction_NxD, {"mean_VxD": mean_NxD, "square_VxD": square_NxD, "touched_V": touched_N}


def init_all(optimizers: Mapping[str, TableOptimizer], tables: Tables) -> dict[str, PyTree]:
    """Fresh state of every table's optimiser."""
    return {name: optimizers[name].init(table) for name, table in tables.items()}


def update_all(
    optimizers: Mapping[str, TableOptimizer],
    tables: Tables,
    states: dict[str, PyTree],
    lookups: Lookups,
    gradients: Rows,
    rates: Mapping[str, Array],
    mesh: Mesh,
) -> tuple[Tables, dict[str, PyTree]]:
    """One step of every table that the batch looks up."""
    tables, states = dict(tables), dict(states)
    for name, table in list(tables.items()):
        mine = [key for key, (of, _) in lookups.items() if of == name]
        if mine:  # all its lookups end to end
            ids_N = jnp.concatenate([lookups[key][1].reshape(-1) for key in mine])
            grad_NxD = jnp.concatenate([gradients[key].reshape(-1, table.shape[1]) for key in mine])
            step = optimizers[name].update(table, states[name], ids_N, grad_NxD, rates[name], mesh)
            tables[name], states[name] = step
    return tables, states


def _update_shard(
    update_rows: Callable[[RowMemory, Array], tuple[Array, RowMemory]],
    table_RxD: Array,
    memory: RowMemory,
    ids_N: Array,
    grad_NxD: Array,
    rate: Array,
    *,
    sharded: bool,
) -> tuple[Array, RowMemory]:
    """Updates the R rows of one device. Ids of other devices and of row 0 are dropped."""
    size = len(table_RxD)
    local_N, mine_N = _local(ids_N, size) if sharded else (ids_N, (ids_N >= 0) & (ids_N < size))
    local_N = jnp.where(mine_N & (ids_N != 0), local_N, OUTSIDE)
    leader_N = leaders(local_N)
    summed_NxD = jnp.zeros_like(grad_NxD).at[leader_N].add(grad_NxD, mode="drop")
    # The leader stands for all occurrences of its id; the others are dropped.
    target_N = jnp.where(leader_N == jnp.arange(len(ids_N)), local_N, OUTSIDE)

    def read(array: Array) -> Array:
        return array.at[target_N].get(mode="fill", fill_value=0)

    def write(array: Array, rows: Array) -> Array:
        return array.at[target_N].set(rows, mode="drop")

    direction_NxD, rows = update_rows(jax.tree.map(read, memory), summed_NxD)
    table_RxD = table_RxD.at[target_N].add(-rate * direction_NxD, mode="drop")
    return table_RxD, jax.tree.map(write, memory, rows)


def leaders(ids_N: Array) -> Array:
    """For each occurrence the place of its id's leader, the same for all of that id; OUTSIDE stays so. O(N)."""
    count = len(ids_N)
    slots = 1 << (SLOTS_A_PLACE * count - 1).bit_length()
    place_N = jnp.arange(count, dtype=jnp.int32)

    def unsettled(carry: tuple[Array, Array]) -> Array:
        return (carry[1] < 0).any()

    def settle(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        number, leader_N = carry
        salt = number * jnp.uint32(0x9E3779B9)  # another hash each round
        hashed_N = (mixed(ids_N.astype(jnp.uint32) ^ salt) & jnp.uint32(slots - 1)).astype(jnp.int32)
        slot_N = jnp.where(leader_N < 0, hashed_N, OUTSIDE)
        winner_M = jnp.zeros(slots, jnp.int32).at[slot_N].max(place_N, mode="drop")
        winner_N = winner_M.at[slot_N].get(mode="fill", fill_value=0)
        found_N = (leader_N < 0) & (take(ids_N, winner_N) == ids_N)
        return number + 1, jnp.where(found_N, winner_N, leader_N)

    start_N = jnp.where(ids_N == OUTSIDE, OUTSIDE, -1)
    return jax.lax.while_loop(unsettled, settle, (jnp.uint32(0), start_N))[1]


def _local(ids_x: Array, size: int) -> tuple[Array, Array]:
    """Ids as rows of this device's share, and whether it owns them."""
    local_x = ids_x - jax.lax.axis_index((DATA, MODEL)) * size
    return local_x, (local_x >= 0) & (local_x < size)
