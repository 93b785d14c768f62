"""The stages in order. A stage runs only if its inputs or its config have changed, and says why."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pr2_jax import artifacts, console, workdir
from pr2_jax.abtest import run_abtest as experiment
from pr2_jax.abtest import run_validation
from pr2_jax.abtest.experiment import Plan
from pr2_jax.config import Config
from pr2_jax.config.loader import to_dict
from pr2_jax.data.exchange.log_builder import Kuaisar
from pr2_jax.data.ingest.ingest import fingerprint as log_fingerprint
from pr2_jax.data.ingest.ingest import ingest as ingest_log
from pr2_jax.data.ingest.ingest import reason_stale
from pr2_jax.data.logs.quarantine import QUARANTINE_FILE
from pr2_jax.evaluation import evaluate as evaluation
from pr2_jax.evaluation import raw_leak_probe
from pr2_jax.search.system import System, open_system
from pr2_jax.simulation.world_builder import ShortVideoWorld
from pr2_jax.stages import build_index as indexing
from pr2_jax.stages import train_content, train_pdr, train_preference, train_qin
from pr2_jax.studies import ablations, qrcf_sweep, sweep_report
from pr2_jax.studies.diagnose import diagnose as diagnosis
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import CHECKPOINTS
from pr2_jax.training.mesh import check_sizes

BODIES: dict[str, Callable[[Path, Config, Path], None]] = {
    "content": train_content.train,
    "preference": train_preference.train,
    "pdr": train_pdr.train,
    "index": indexing.build,
    "qin": train_qin.train,
    "eval": evaluation.run,
}
BUILDERS = {"kuaisar": Kuaisar, "short_video_world": ShortVideoWorld}
SWEEPS = {"qrcf": qrcf_sweep.Grid}
"""Default grids of the sweeps."""
TRAINED = ("content", "preference", "pdr", "qin")


def run(directory: Path, config: Config, input_path: Path | None) -> None:
    """All stages; fresh ones are skipped."""
    with console.timed(f"; results in {directory / 'eval'}"):
        _agree(config)
        distributed.first(lambda: ingest(directory, config, input_path))
        for name in BODIES:
            _make(name, directory, config)
    distributed.first(lambda: evaluation.print_table(directory))


def ingest(directory: Path, config: Config, input_path: Path | None) -> None:
    """The log into the store, and the config beside it. The simulated world needs no input."""
    with console.stage("ingest"):
        builder = BUILDERS[config.data.source]
        workdir.refuse_foreign_config(directory)
        claim = log_fingerprint(input_path, config)
        why = reason_stale(directory, claim)
        if not _runs(why):
            workdir.keep_config(directory, config)
            return
        with console.timed():
            report = ingest_log(input_path, config, directory, builder)
            for line in report.lines():
                console.log(line)
            if any(count.quarantined for count in report.tables.values()):
                console.log(f"bad rows are in {directory / 'store' / QUARANTINE_FILE}")
            workdir.keep_config(directory, config)


def train(directory: Path, config: Config, which: str) -> None:
    """One model; its inputs must be fresh."""
    _agree(config)
    _make(which, directory, config, alone=True)


def index(directory: Path, config: Config) -> None:
    """The retrieval indices and snapshots."""
    _make("index", directory, config, alone=True)


def evaluate(directory: Path, config: Config) -> None:
    """Run files, metrics and the table."""
    _make("eval", directory, config, alone=True)
    evaluation.print_table(directory)


def ablate(directory: Path, config: Config, file: Path, seeds: int) -> None:
    """Each variant of a file against the whole system (studies/ablations.py)."""
    with console.stage("ablations"):
        ablations.run(directory, config, file, seeds, _make)
    ablations.print_table(directory)


def sweep(directory: Path, config: Config, what: str, grid: qrcf_sweep.Grid | None = None) -> None:
    """A study of a part's settings on the validation day: table and picture in the work directory. `what`: `qrcf`."""
    grid = grid or SWEEPS[what]()
    check_sizes(config.mesh, config.split_batches)
    with console.stage("sweep"):
        out = directory / qrcf_sweep.DIRECTORY
        claim = qrcf_sweep.fingerprint(directory, config, grid)
        why = artifacts.reason_stale(out, claim, qrcf_sweep.SCHEMA)
        if _runs(why):
            writing = artifacts.writing(out, claim, qrcf_sweep.SCHEMA, keep_partial=True)
            with console.timed(f"; picture in {out / 'frontier.png'}"), writing as partial:
                sweep_report.write(partial, *qrcf_sweep.judge(directory, config, partial, grid), config)
    print((out / "table.txt").read_text(), end="")


def diagnose(directory: Path, config: Config) -> None:
    """Diagnostics of a finished work directory (studies/diagnose/diagnose.py)."""
    check_sizes(config.mesh, config.split_batches)
    with console.stage("diagnose"), console.timed():
        diagnosis.run(directory, config)
    diagnosis.print_text(directory)


def raw_probe(directory: Path, config: Config, input_path: Path) -> None:
    """The leak probe from the raw files of the log (evaluation/raw_leak_probe.py)."""
    check_sizes(config.mesh, config.split_batches)
    with console.stage("raw probe"), console.timed():
        raw_leak_probe.run(directory, config, input_path)


def abtest(directory: Path, plan: Plan, force: bool, validation_runs: int | None = None) -> None:
    """An A/B test on the simulated platform (abtest/run_abtest.py), or that many validation runs of it."""
    with console.stage("abtest"):
        started = time.monotonic()
        system = experiment.open_world(directory, plan)
        with artifacts.locked(directory):
            if validation_runs:
                out = run_validation.validate(system, plan, validation_runs)
            else:
                out = experiment.run(system, plan, lambda place, write: _retrained(system.config, place, write), force)
        console.log(f"done in {console.duration(time.monotonic() - started)}; results in {out}")
    with artifacts.reading(out, "pr2 abtest"):
        print((out / "table.txt").read_text(), end="")


def _retrained(config: Config, place: Path, write: Callable[[Path], None]) -> System:
    """Models trained on the tables of `write`, in a work directory of their own."""
    tables, directory = place / "tables", place / "work"
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, source="kuaisar"))
    if not tables.exists():
        write(tables)
    ingest(directory, config, tables)
    for name in BODIES:
        if name != "eval":
            _make(name, directory, config)
    return open_system(directory, config)


def _agree(config: Config) -> None:
    """Checks that all processes have one version and one config, which fits the devices."""
    distributed.agree(lambda: {"config": to_dict(config), "versions": artifacts.versions()})
    check_sizes(config.mesh, config.split_batches)


def _make(
    name: str, directory: Path, config: Config, body: ablations.Body | None = None, *, alone: bool = False
) -> None:
    """Makes a stage unless it is fresh, by `body` if one is given. `alone`: its inputs must be fresh already.

    Of several processes the first decides and publishes the result; all take part in training.
    """
    with console.stage(name):
        if alone:
            distributed.first(lambda: workdir.require_inputs(name, directory, config))
            distributed.first(lambda: workdir.keep_config(directory, config))  # what the next command takes up
        claim = distributed.agree(lambda: workdir.fingerprint(name, directory, config))
        why = distributed.first(lambda: artifacts.reason_stale(directory / name, claim, workdir.SCHEMA))
        if not _runs(why):
            return
        together = name in TRAINED
        with console.timed(), contextlib.ExitStack() as stack:
            writing = artifacts.writing(directory / name, claim, workdir.SCHEMA, keep_partial=together)
            out = Path(distributed.first(lambda: str(stack.enter_context(writing))))
            make = body or BODIES[name]
            if together:
                make(directory, config, out)
            else:
                distributed.first(lambda: make(directory, config, out))
        distributed.first(lambda: _drop_checkpoints(directory / name))


def _runs(why: str | None) -> bool:
    """Whether a stage is stale; logs why."""
    console.log("fresh, skipped" if why is None else f"running: {why}")
    return why is not None


def _drop_checkpoints(stage: Path) -> None:
    """A finished stage needs its parameters alone; checkpoints hold the optimiser's state three times."""
    for kept in [*stage.rglob(CHECKPOINTS), *stage.rglob(train_pdr.HARD_FILE)]:
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
