"""What a training step must cost, counted: bytes through memory and multiply-adds of its matrix products.

Not what the compiled program does, but what a program does that wastes nothing: a batch is read once, each looked-up
row once, its gradient is written and read once, each distinct row and what its optimiser remembers are read and
written once, dense parameters and their two moments likewise. What lies between (activations) is left out: a program
could keep it on the chip.
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
    """Two a multiply-add, over every matrix product in the traced function, those of its gradients included."""
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


def remembered_floats(tables: Tables, states: Mapping[str, Any]) -> dict[str, int]:
    """Numbers that the optimiser of each table keeps of a row."""
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(states[name]) if leaf.ndim) // len(table)
        for name, table in tables.items()
    }


def step_bytes(task: Task, batch: Mapping[str, np.ndarray], params: Any, remembered: Mapping[str, int]) -> int:
    """Bytes that a step must move; `remembered`: floats that the optimiser keeps of a row, by table."""
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
        rows += 2 * distinct * (specs[table].width + remembered[table])
    dense = 6 * sum(x.size for x in jax.tree.leaves(params))
    return batch_bytes + max(frozen_bytes, 0) + FLOAT_BYTES * (rows + dense)
