"""Lower bounds on the cost of a training step: memory traffic, and multiply-adds of its matrix products.

The bound reads a batch once and each looked-up row once; it writes and reads each row's gradient once; it reads and
writes once each distinct row, dense parameters, and their optimisers' state. Activations are left out: they could stay
on the chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from pr2_jax.training.embedding_tables import Tables
from pr2_jax.training.loop import Task

FLOAT_BYTES = 4


def matmul_flops(fn: Callable, *args: Any) -> int:
    """Twice the multiply-adds of all matrix products in the traced function."""
    return _flops(jax.make_jaxpr(fn)(*args).jaxpr)


def _flops(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (left_sum, _), _ = equation.params["dimension_numbers"]
            summed = math.prod(equation.invars[0].aval.shape[axis] for axis in left_sum)
            total += 2 * summed * math.prod(equation.outvars[0].aval.shape)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr"):
                    inner = inner.jaxpr
                if hasattr(inner, "eqns"):
                    total += _flops(inner)
    return total


def floats_a_row(tables: Tables, states: Mapping[str, Any]) -> dict[str, int]:
    """Floats of optimiser state for a row of each table."""
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(states[name]) if leaf.ndim) // len(table)
        for name, table in tables.items()
    }


def step_bytes(task: Task, batch: Mapping[str, np.ndarray], params: Any, memory: Mapping[str, int]) -> int:
    """Bytes that a step must move; `memory`: floats of optimiser state for a row, by table."""
    specs, prepared = task.table_specs(), task.prepare(task.frozen, dict(batch))
    batch_bytes = sum(np.asarray(x).nbytes for x in batch.values())
    frozen_bytes = sum(x.nbytes for x in jax.tree.leaves(prepared)) - batch_bytes
    rows = 0
    ids: dict[str, list[np.ndarray]] = {}
    for table, looked_up in task.lookups(prepared).values():
        rows += 3 * looked_up.size * specs[table].width  # read, gradient written, gradient read
        ids.setdefault(table, []).append(np.asarray(looked_up).reshape(-1))
    for table, parts in ids.items():
        distinct = len(np.unique(np.concatenate(parts)))
        rows += 2 * distinct * (specs[table].width + memory[table])
    dense = 6 * sum(x.size for x in jax.tree.leaves(params))
    return batch_bytes + max(frozen_bytes, 0) + FLOAT_BYTES * (rows + dense)
