"""Checks and timings of one lent accelerator in minutes: `bash launch/accelerator.sh` (docs/devices.md).

Parts run one after the other, the checks first. What a part has found is written at once, so that a kill loses nothing
finished; once `BUDGET_S` are used, the parts left are named as skipped. Needs no more than a bare image has: jax, flax,
optax, orbax, numpy.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax

from pr2_jax.bench import (
    ceiling_workload,
    exact_search_workload,
    feed_workload,
    float64_checks,
    qrcf_workload,
    step_workloads,
    synthetic,
    table_workload,
)
from pr2_jax.bench.accelerator_report import Report
from pr2_jax.bench.harness import Measured
from pr2_jax.config import PdrConfig, QinConfig
from pr2_jax.training.embedding_tables import TableSpec, init_all, init_tables
from pr2_jax.training.loop import TABLE_OPTIMIZERS
from pr2_jax.training.mesh import single

BUDGET_S = 420.0
"""No part begins later ..."""
LIMIT_S = 460.0
"""... and none runs on: what is still running is cut off, and the process ends."""
COMPUTES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of everything that is run. The defaults are those of `pr2 bench`, and more."""

    repeats: int = 20
    slates: tuple[int, ...] = step_workloads.SLATES
    checked_rows: int = 256
    ceiling: tuple[int, int] = (1 << 28, 8_192)  # floats copied, side of the matrices
    search_videos: int = 7_000_000
    tables: tuple[int, ...] = (*table_workload.SIZES, 100_000_000)
    sizes: synthetic.Sizes = synthetic.Sizes()  # noqa: RUF009  frozen
    pdr: PdrConfig = dataclasses.field(default_factory=synthetic.pdr_config)
    qin: QinConfig = dataclasses.field(default_factory=synthetic.qin_config)
    qrcf: qrcf_workload.Sizes = qrcf_workload.Sizes()  # noqa: RUF009
    log: feed_workload.Log = feed_workload.Log()  # noqa: RUF009


def small() -> Scale:
    """Sizes for a CPU: all parts, about a minute."""
    pdr, qin = synthetic.pdr_config(), synthetic.qin_config()
    pdr_optim, qin_optim = (dataclasses.replace(config.optim, batch=64) for config in (pdr, qin))
    pdr = dataclasses.replace(pdr, history=20, uniform_negatives=64, optim=pdr_optim)
    qin = dataclasses.replace(qin, history=100, keep_query=20, keep_video=10, realtime=10, optim=qin_optim)
    return Scale(
        repeats=3,
        slates=(2,),
        checked_rows=64,
        ceiling=(1 << 20, 512),
        search_videos=100_000,
        tables=(10_000, 100_000),
        sizes=synthetic.Sizes(videos=20_000, words=5_000, authors=2_000, slate=2),
        pdr=pdr,
        qin=qin,
        qrcf=qrcf_workload.Sizes(requests=32, history=200, videos=20_000),
        log=feed_workload.Log(users=200, events_a_user=100, sessions=2_000, pdr=pdr, qin=qin),
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of the run: what it finds, as JSON objects, one at a time."""

    name: str
    run: Callable[[], Iterator[dict[str, Any]]]
    needs_bytes: int = 0  # of device memory; 0 = little


def parts(scale: Scale) -> Iterator[Part]:
    """All parts in order: checks, what is asked first, and the largest tables last."""
    yield Part("checks", lambda: (check.to_dict() for check in float64_checks.run(scale.checked_rows)))
    floats, side = scale.ceiling
    yield _timed("ceiling", lambda: ceiling_workload.run(scale.repeats, floats, side))
    search = exact_search_workload.run
    yield _timed("exact search", lambda: search(scale.repeats, scale.search_videos), 12 * 64 * scale.search_videos)
    *usual, largest = sorted(scale.tables)
    for size in usual:
        yield from _tables(scale, size)
    for name, workload, config in (("pdr", _pdr, scale.pdr), ("qin", _qin, scale.qin)):
        for compute in COMPUTES:
            chosen = dataclasses.replace(config, compute=compute)
            run = _with_compute(compute, lambda of=workload, c=chosen: of(scale, c))
            yield Part(f"{name} {compute}", run)
    yield _timed("qrcf", lambda: qrcf_workload.run(scale.repeats, scale.qrcf))
    log = dataclasses.replace(scale.log, pdr=scale.pdr, qin=scale.qin)
    feed = _with_compute(scale.pdr.compute, lambda: feed_workload.run(scale.repeats, scale.sizes, log))
    yield Part("feed", feed)
    yield from _tables(scale, largest)


def _pdr(scale: Scale, config: PdrConfig) -> Iterator[Measured]:
    return step_workloads.pdr(scale.repeats, scale.sizes, config)


def _qin(scale: Scale, config: QinConfig) -> Iterator[Measured]:
    for slate in scale.slates:
        yield step_workloads.qin_slate(scale.repeats, dataclasses.replace(scale.sizes, slate=slate), config)


def _tables(scale: Scale, size: int) -> Iterator[Part]:
    for name in TABLE_OPTIMIZERS:
        if name != "adam" or size <= table_workload.DENSE_LIMIT:
            yield _timed(f"tables {name} V={size:,}", _table(name, size, scale.repeats), table_bytes(name, size))


def _table(name: str, size: int, repeats: int) -> Callable[[], Iterator[Measured]]:
    return lambda: iter([table_workload.measure(name, size, repeats, single())])


def table_bytes(name: str, size: int) -> int:
    """Bytes of a table with its optimiser's memory, and of one more table while it is drawn."""

    def fresh(key: jax.Array) -> tuple:
        tables = init_tables({"video": TableSpec(size, table_workload.WIDTH)}, key)
        return tables, tables, init_all({"video": TABLE_OPTIMIZERS[name]}, tables)

    leaves = jax.tree.leaves(jax.eval_shape(fresh, jax.random.key(0)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _timed(name: str, run: Callable[[], Iterator[Measured]], needs_bytes: int = 0) -> Part:
    return Part(name, _with_compute("float32", run), needs_bytes)


def _with_compute(compute: str, run: Callable[[], Iterator[Measured]]) -> Callable[[], Iterator[dict[str, Any]]]:
    return lambda: ({"compute": compute, **measured.to_dict()} for measured in run())


def free_bytes() -> int | None:
    """Free memory of the device, or of the host where that is the device; None where neither is told."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def run(scale: Scale, directory: Path, budget_s: float = BUDGET_S) -> int:
    """Runs all parts and writes `accelerator.json` and `accelerator.md` in `directory`.

    Returns 1 where a check does not hold or a part failed, else 0: what the time or the memory does not allow is
    skipped.
    """
    planned = list(parts(scale))
    report = Report(directory, [part.name for part in planned], budget_s)
    clock = threading.Timer(LIMIT_S, _cut_off, [report])
    clock.daemon = True
    clock.start()
    try:
        for part in planned:
            free = free_bytes() if part.needs_bytes else None
            if report.elapsed_s() >= budget_s:
                report.skip(part.name, f"{budget_s:.0f} s were used")
            elif free is not None and part.needs_bytes > free:
                said = f"needs {part.needs_bytes / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
                report.skip(part.name, said)
            else:
                _run_part(report, part)
    finally:
        clock.cancel()
    report.finish()
    return report.status


def _run_part(report: Report, part: Part) -> None:
    report.begin(part.name)
    try:
        for found in part.run():
            report.add(part.name, found)
    except Exception as error:  # the others are still worth their time
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if "RESOURCE_EXHAUSTED" in said:
            report.skip(part.name, f"out of memory: {said}")
        else:
            report.fail(part.name, said)
    else:
        report.end(part.name)


def _cut_off(report: Report) -> NoReturn:
    """From another thread: a program that compiles or runs hears no exception."""
    report.cut_off(f"{LIMIT_S:.0f} s were used")
    sys.stdout.flush()
    os._exit(report.status)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        self.exit(2, f"accelerator: error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit status of the command."""
    parser = _Parser(prog="accelerator", description="Checks and times this machine's first device.")
    default = Path(os.environ.get("OUT") or "work/accelerator")
    parser.add_argument("out", nargs="?", type=Path, default=default, help="directory for results (default: $OUT)")
    parser.add_argument("--small", action="store_true", help="small sizes, for a CPU")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{options.out}: {error.strerror}: name a directory that can be written")
    if options.small:
        jax.config.update(
            "jax_disable_most_optimizations", True
        )  # compiling is nearly all of it, and times tell nothing
    return run(small() if options.small else Scale(), options.out)


if __name__ == "__main__":
    sys.exit(main())
