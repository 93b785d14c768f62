"""Timing of jitted steps: compile time, the median of repeats, and rates of the bytes and FLOPs that a step needs."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

State = TypeVar("State")
WARM_UP = 2
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of one variant of a workload at one size."""

    workload: str
    variant: str
    size: dict[str, int]
    rows: int  # units of work a step: the workload says which
    compile_s: float
    seconds: Sequence[float]  # of each repeat
    must_bytes: int  # lower bound of memory traffic a step (cost_model.py)
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
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    """Resets the high-water mark of the process's memory, where Linux allows it."""
    with contextlib.suppress(OSError):
        RESET.write_text("5")
