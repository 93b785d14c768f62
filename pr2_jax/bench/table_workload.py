"""`tables`: lookup, gradient and update of embedding tables of growing size. A row is one looked-up id.

The memory traffic that a step needs is counted as in cost_model.py; it does not grow with the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.bench.cost_model import floats_a_row
from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.training.embedding_tables import TableSpec, gather, init_all, init_tables, update_all
from pr2_jax.training.loop import TABLE_OPTIMIZERS
from pr2_jax.training.mesh import Mesh, single

BATCH, HISTORY, WIDTH = 512, 100, 32
SIZES = (100_000, 1_000_000, 10_000_000)
DENSE_LIMIT = 1_000_000
"""Rows up to which whole-table Adam is measured."""


def run(repeats: int, sizes: tuple[int, ...] | None = None, mesh: Mesh | None = None) -> Iterator[Measured]:
    """Every optimiser at every size."""
    for name in TABLE_OPTIMIZERS:
        for size in sizes or SIZES:
            if name != "adam" or size <= DENSE_LIMIT:
                yield measure(name, size, repeats, mesh or single())


def measure(name: str, size: int, repeats: int, mesh: Mesh) -> Measured:
    """One optimiser at one size."""
    optimizers = {"video": TABLE_OPTIMIZERS[name]}
    rng, count = np.random.default_rng(0), BATCH * HISTORY
    inputs = [jnp.asarray(rng.integers(1, size, (BATCH, HISTORY)), jnp.int32) for _ in range(4)]

    def fresh(key):
        tables = init_tables({"video": TableSpec(size, WIDTH)}, key)
        return tables, init_all(optimizers, tables)

    def step(state, ids_BxH):
        tables, memory = state
        lookups = {"history": ("video", ids_BxH)}

        def loss(rows):
            return jnp.square(rows["history"].sum(1)).mean()

        gradient = jax.grad(loss)(gather(tables, lookups, mesh))
        return update_all(optimizers, tables, memory, lookups, gradient, {"video": jnp.float32(1e-3)}, mesh)

    state = jax.jit(fresh)(jax.random.key(0))
    memory = floats_a_row(*state)["video"]
    compile_s, seconds, _ = time_steps(jax.jit(step, donate_argnums=0), state, inputs, repeats)
    distinct = int(np.mean([len(np.unique(ids)) for ids in inputs]))
    must_bytes = 4 * (3 * count * WIDTH + 2 * distinct * (WIDTH + memory))
    must_flops = count * WIDTH * 3 + distinct * WIDTH * 4
    return Measured("tables", name, {"V": size, "ids": count}, count, compile_s, seconds, must_bytes, must_flops)
