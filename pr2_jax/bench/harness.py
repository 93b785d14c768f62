"""Timing of jitted steps, and lower bounds on the bytes and FLOPs that a step needs."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.extend import core

from pr2_jax.training.embedding_tables import Tables
from pr2_jax.training.loop import Task

State = TypeVar("State")
WARM_UP = 2


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of one variant of a workload at one size."""

    workload: str
    variant: str
    size: dict[str, int]
    rows: int  # units of work a step: the workload says which
    compile_s: float
    seconds: Sequence[float]  # of each repeat
    must_bytes: int  # lower bound of memory traffic a step
    must_flops: int
    note: str = ""
    peak_bytes: int = dataclasses.field(default_factory=lambda: peak_bytes())  # of the process, or the device

    @property
    def step_s(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.seconds)

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.step_s

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `--json`."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "seconds"}
        return fields | {
            "step_s": self.step_s,
            "low_s": min(self.seconds),
            "high_s": max(self.seconds),
            "repeats": len(self.seconds),
            "rows_per_s": self.rows_per_s,
            "must_bytes_per_s": self.must_bytes / self.step_s,
            "must_flops_per_s": self.must_flops / self.step_s,
            "device": jax.devices()[0].device_kind,
        }

    def line(self) -> str:
        size = " ".join(f"{name}={value:,}" for name, value in self.size.items())
        return (
            f"{self.workload:<8} {self.variant:<12} {size:<28} {self.step_s * 1e3:9.2f} ms "
            f"[{min(self.seconds) * 1e3:.2f}, {max(self.seconds) * 1e3:.2f}]  {self.rows_per_s:12,.0f} rows/s  "
            f"{self.must_bytes / self.step_s / 1e9:6.2f} GB/s  {self.must_flops / self.step_s / 1e9:7.2f} GFLOP/s  "
            f"compile {self.compile_s:.2f} s  peak {self.peak_bytes / 1e9:.2f} GB{self.note and f'  {self.note}'}"
        )


def time_steps(
    step: Callable[[State, Any], State], state: State, inputs: Sequence[Any], repeats: int
) -> tuple[float, list[float], State]:
    """(compile seconds, seconds of each repeat, the last state). Compile time is the first call less a later one.

    `step` may donate its state. Inputs are taken in turn, so that no repeat finds its rows in a cache.
    """
    state, inputs = jax.block_until_ready((state, inputs))
    _forget_peak()
    seconds = []
    for number in range(1 + WARM_UP + repeats):
        start = time.perf_counter()
        state = jax.block_until_ready(step(state, inputs[number % len(inputs)]))
        seconds.append(time.perf_counter() - start)
    timed = seconds[1 + WARM_UP :]
    return max(seconds[0] - statistics.median(timed), 0.0), timed, state


def peak_bytes() -> int:
    """Peak memory: of the device since the process began, or else of this process since `_forget_peak`."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    """Resets the high-water mark of the process's memory, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


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
                inner = getattr(inner, "jaxpr", inner)
                total += _flops(inner) if hasattr(inner, "eqns") else 0
    return total


def floats_a_row(tables: Tables, states: Mapping[str, Any]) -> dict[str, int]:
    """Floats of optimiser state for a row of each table."""
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(states[name]) if leaf.ndim) // len(table)
        for name, table in tables.items()
    }


def step_bytes(task: Task, batch: Mapping[str, np.ndarray], params: Any, memory: Mapping[str, int]) -> int:
    """Bytes that a step must move; `memory`: floats of optimiser state for a row, by table.

    A batch and each looked-up row are read once; each row's gradient is written and read; each distinct row, dense
    parameters and their optimisers' state are read and written. Activations are left out: they could stay on the chip.
    """
    specs, prepared = task.table_specs(), task.prepare(task.frozen, dict(batch))
    batch_bytes = sum(np.asarray(x).nbytes for x in batch.values())
    frozen_bytes = sum(x.nbytes for x in jax.tree.leaves(prepared)) - batch_bytes
    floats, ids = 6 * sum(x.size for x in jax.tree.leaves(params)), collections.defaultdict(list)
    for table, looked_up in task.lookups(prepared).values():
        floats += 3 * looked_up.size * specs[table].width
        ids[table].append(np.asarray(looked_up).reshape(-1))
    for table, parts in ids.items():
        floats += 2 * len(np.unique(np.concatenate(parts))) * (specs[table].width + memory[table])
    return batch_bytes + max(frozen_bytes, 0) + 4 * floats
