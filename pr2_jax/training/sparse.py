"""Updates that touch only the rows of the batch: a step's cost does not depend on how many rows a table has.

`optax` sees whole arrays, and so does a gradient with respect to a table: a dense Adam step over ten million rows
moves gigabytes for a batch that asked for some thousands. Here the loss is differentiated with respect to the
*gathered* rows; what comes back is one gradient an occurrence, `[N, D]`. Occurrences of one id are summed exactly once,
the optimiser updates each distinct row, and the result is scattered into donated buffers.

Occurrences find each other without sorting: each table keeps a scratch column of one int32 a row, zero between steps.
Every occurrence writes its place there (the largest wins), reads back who won, and the winner's place is where the
gradients of that id are added up. Three scatters of N integers, O(N) on any table; a sort of N = 55,000 ids takes 80
times as long on a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from pr2_jax.training.mesh import BY_ROWS, DATA, MODEL, REPLICATED
from pr2_jax.training.tables import Lookups, Rows, Tables

PyTree = Any
EPSILON = 1e-8


class RowOptimizer(Protocol):
    """What happens to a row that has a gradient. Arrays lead with the rows touched."""

    def init(self, table_VxD: Array) -> dict[str, Array]:
        """What is remembered a row, one leading row a row of the table."""
        ...

    def update(self, memory: dict[str, Array], grad_NxD: Array) -> tuple[Array, dict[str, Array]]:
        """The direction to be multiplied by the learning rate, `[N, D]`, and the new memory."""
        ...


class RowAdagrad(flax.struct.PyTreeNode):
    """Row-wise Adagrad: `row -= rate * g / sqrt(sum of mean(g^2))`; one float a row is remembered."""

    start: float = flax.struct.field(pytree_node=False, default=0.0)

    def init(self, table_VxD: Array) -> dict[str, Array]:
        return {"sum_V": jnp.full(len(table_VxD), self.start, jnp.float32)}

    def update(self, memory: dict[str, Array], grad_NxD: Array) -> tuple[Array, dict[str, Array]]:
        sum_N = memory["sum_V"] + jnp.square(grad_NxD).mean(-1)
        return grad_NxD / (jnp.sqrt(sum_N)[:, None] + EPSILON), {"sum_V": sum_N}


class LazyAdam(flax.struct.PyTreeNode):
    """Adam whose moments decay only when a row is touched; two floats a parameter are remembered.

    The bias of the moments is corrected by how often the row itself was touched: a rare row's first step is as long as
    any other's.
    """

    beta1: float = flax.struct.field(pytree_node=False, default=0.9)
    beta2: float = flax.struct.field(pytree_node=False, default=0.999)

    def init(self, table_VxD: Array) -> dict[str, Array]:
        zeros = jnp.zeros_like(table_VxD)
        return {"mean_VxD": zeros, "square_VxD": jnp.zeros_like(zeros), "touched_V": jnp.zeros(len(zeros), jnp.int32)}

    def update(self, memory: dict[str, Array], grad_NxD: Array) -> tuple[Array, dict[str, Array]]:
        mean_NxD = self.beta1 * memory["mean_VxD"] + (1 - self.beta1) * grad_NxD
        square_NxD = self.beta2 * memory["square_VxD"] + (1 - self.beta2) * jnp.square(grad_NxD)
        touched_N = memory["touched_V"] + 1
        unbiased1, unbiased2 = (1 - beta ** touched_N[:, None].astype(jnp.float32) for beta in (self.beta1, self.beta2))
        direction_NxD = mean_NxD / unbiased1 / (jnp.sqrt(square_NxD / unbiased2) + EPSILON)
        return direction_NxD, {"mean_VxD": mean_NxD, "square_VxD": square_NxD, "touched_V": touched_N}


class RowState(flax.struct.PyTreeNode):
    """Beside one table: the optimiser's memory, and scratch that is zero between steps."""

    memory: dict[str, Array]
    scratch_V: Array  # int32


def gather(tables: Tables, lookups: Lookups, mesh: Mesh) -> Rows:
    """As `tables.gather`, of tables that are split by rows over a mesh: each device gives the rows that it owns."""
    if mesh.size == 1:
        return {name: jnp.take(tables[table], ids, axis=0) for name, (table, ids) in lookups.items()}

    def owned(table_RxD: Array, ids_x: Array) -> Array:
        local_x, mine_x = _local(ids_x, len(table_RxD))
        rows = jnp.take(table_RxD, jnp.where(mine_x, local_x, 0), axis=0)
        return jax.lax.psum(jnp.where(mine_x[..., None], rows, 0), (DATA, MODEL))

    read = jax.shard_map(owned, mesh=mesh, in_specs=(BY_ROWS, REPLICATED), out_specs=REPLICATED)
    rows = {name: read(tables[table], ids) for name, (table, ids) in lookups.items()}
    # An id outside the table belongs to nobody, and must not pass for a row of zeros.
    return {
        name: jnp.where(((ids >= 0) & (ids < len(tables[table])))[..., None], rows[name], jnp.nan)
        for name, (table, ids) in lookups.items()
    }


class TableOptimizer(Protocol):
    """Updates whole dictionaries of tables from gradients with respect to the gathered rows."""

    def init(self, tables: Tables) -> PyTree:
        """Fresh state; its arrays lead with the rows of their table, or are scalars."""
        ...

    def update(
        self, tables: Tables, state: PyTree, lookups: Lookups, gradients: Rows, rate: Array, mesh: Mesh
    ) -> tuple[Tables, PyTree]:
        """One step. Row 0 (unknown) never changes."""
        ...


@dataclasses.dataclass(frozen=True)
class SparseTables:
    """Touches the rows of the batch only."""

    rows: RowOptimizer

    def init(self, tables: Tables) -> dict[str, RowState]:
        return {
            name: RowState(self.rows.init(table), jnp.zeros(len(table), jnp.int32)) for name, table in tables.items()
        }

    def update(
        self, tables: Tables, state: dict[str, RowState], lookups: Lookups, gradients: Rows, rate: Array, mesh: Mesh
    ) -> tuple[Tables, dict[str, RowState]]:
        tables, state = dict(tables), dict(state)
        for name, (ids_N, grad_NxD) in _by_table(tables, lookups, gradients).items():
            one = functools.partial(_update_shard, self.rows, sharded=mesh.size > 1)
            if mesh.size > 1:
                specs = (BY_ROWS, BY_ROWS, REPLICATED, REPLICATED, REPLICATED)
                one = jax.shard_map(one, mesh=mesh, in_specs=specs, out_specs=(BY_ROWS, BY_ROWS))
            tables[name], state[name] = one(tables[name], state[name], ids_N, grad_NxD, rate)
        return tables, state


@dataclasses.dataclass(frozen=True)
class DenseTables:
    """Plain Adam over whole tables: the reference, and the right thing for small ones."""

    def init(self, tables: Tables) -> PyTree:
        return optax.scale_by_adam().init(tables)

    def update(
        self, tables: Tables, state: PyTree, lookups: Lookups, gradients: Rows, rate: Array, mesh: Mesh
    ) -> tuple[Tables, PyTree]:
        dense = {name: jnp.zeros_like(table) for name, table in tables.items()}
        for name, (ids_N, grad_NxD) in _by_table(tables, lookups, gradients).items():
            kept_NxD = jnp.where((ids_N != 0)[:, None], grad_NxD, 0)
            dense[name] = dense[name].at[ids_N].add(kept_NxD, mode="drop")
        direction, state = optax.scale_by_adam().update(dense, state)
        return jax.tree.map(lambda table, step: table - rate * step, tables, direction), state


def _by_table(tables: Tables, lookups: Lookups, gradients: Rows) -> dict[str, tuple[Array, Array]]:
    """Ids `[N]` and their gradients `[N, D]` of each table that is looked up, all lookups end to end."""
    out = {}
    for name, table in tables.items():
        mine = [key for key, (of, _) in lookups.items() if of == name]
        if mine:
            ids_N = jnp.concatenate([lookups[key][1].reshape(-1) for key in mine])
            out[name] = ids_N, jnp.concatenate([gradients[key].reshape(-1, table.shape[1]) for key in mine])
    return out


def _update_shard(
    optimizer: RowOptimizer,
    table_RxD: Array,
    state: RowState,
    ids_N: Array,
    grad_NxD: Array,
    rate: Array,
    *,
    sharded: bool,
) -> tuple[Array, RowState]:
    """The rows of one device, R of them; ids of other devices and of row 0 fall outside and are dropped."""
    size, count = len(table_RxD), len(ids_N)
    local_N, mine_N = _local(ids_N, size) if sharded else (ids_N, (ids_N >= 0) & (ids_N < size))
    outside = jnp.iinfo(jnp.int32).max
    local_N = jnp.where(mine_N & (ids_N != 0), local_N, outside)
    place_N = jnp.arange(count, dtype=jnp.int32)
    scratch_R = state.scratch_V.at[local_N].max(place_N + 1, mode="drop")
    winner_N = scratch_R.at[local_N].get(mode="fill", fill_value=0) - 1
    scratch_R = scratch_R.at[local_N].set(0, mode="drop")
    summed_NxD = jnp.zeros_like(grad_NxD).at[jnp.where(winner_N < 0, outside, winner_N)].add(grad_NxD, mode="drop")
    # One occurrence of each id speaks for all; the others are sent outside.
    target_N = jnp.where(winner_N == place_N, local_N, outside)

    def read(array: Array) -> Array:
        return array.at[target_N].get(mode="fill", fill_value=0)

    def write(array: Array, rows: Array) -> Array:
        return array.at[target_N].set(rows, mode="drop")

    direction_NxD, memory = optimizer.update(jax.tree.map(read, state.memory), summed_NxD)
    table_RxD = table_RxD.at[target_N].add(-rate * direction_NxD, mode="drop")
    return table_RxD, RowState(jax.tree.map(write, state.memory, memory), scratch_R)


def _local(ids_x: Array, size: int) -> tuple[Array, Array]:
    """Ids as rows of this device's share, and which of them it owns."""
    local_x = ids_x - jax.lax.axis_index((DATA, MODEL)) * size
    return local_x, (local_x >= 0) & (local_x < size)
