"""`pr2 abtest --validate N`: N A/A and planted-effect runs on the world of a work directory's config."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest

from pr2_jax import artifacts, console
from pr2_jax.abtest.abtest_report import DRAWS
from pr2_jax.abtest.estimators import CONFIDENCE
from pr2_jax.abtest.experiment import Plan
from pr2_jax.abtest.experiment_metrics import METRICS, LongPlays
from pr2_jax.abtest.population import Replay
from pr2_jax.abtest.run_abtest import DIRECTORY
from pr2_jax.abtest.validation import AMONG, PLANTED_SHARE, run, summarise
from pr2_jax.abtest.worker_process import WorkerProcess
from pr2_jax.config import WorldConfig
from pr2_jax.config.loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.search.system import System
from pr2_jax.simulation.world import World

NAME, SCHEMA = "trial", "abtest-trial/3"
READ = ("days", "aa_days", "warm_up", "salt", "decided_by", "foreseen")
"""Fields of the plan that a validation follows."""
RUNS, TABLE, NUMBERS = "runs", "table.txt", "trial.json"
LEAST_RUNS = 2


def validate(system: System, plan: Plan, runs: int) -> Path:
    """Simulates the runs that are left, one a core at a time, and writes `abtest/trial/` (with the plan's fields that
    differ from their defaults in the name).

    Finished runs are kept, also more than are requested.
    """
    if runs < LEAST_RUNS:
        raise BadInput(f"--validate {runs}, expected {LEAST_RUNS} or more")
    claim = {
        "plan": {name: getattr(plan, name) for name in READ},
        "world": to_dict(system.config)["world"],
        "long_play_ms": system.log.long_play.thresholds_ms.tolist(),
        "planted": [PLANTED_SHARE, AMONG],
    }
    out = system.workdir / DIRECTORY / (NAME + plan.non_defaults(READ))
    out.parent.mkdir(exist_ok=True)
    finished = _read(out / RUNS) if artifacts.fresh(out, claim, SCHEMA) else {}
    if set(range(runs)) <= finished.keys() and all((out / name).exists() for name in (TABLE, NUMBERS)):
        console.log("fresh, skipped")
        return out
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        (partial / RUNS).mkdir(exist_ok=True)
        for number, one in finished.items():
            _write(partial / RUNS, number, one)
        _simulate(system, plan, sorted(set(range(runs)) - _read(partial / RUNS).keys()), partial / RUNS)
        found = [one for _, one in sorted(_read(partial / RUNS).items())]
        (partial / TABLE).write_text(text_of(found, plan))
        artifacts.write_json(partial / NUMBERS, json_of(found, plan))
    return out


def _simulate(system: System, plan: Plan, left: list[int], directory: Path) -> None:
    """Simulates the runs that are left in worker processes."""
    workers = min(os.cpu_count() or 1, len(left))
    told = (system.config.world, system.log.long_play.label, plan)
    with contextlib.ExitStack() as stack, console.Bar("validation", len(left), " runs") as bar:
        processes = [
            stack.enter_context(WorkerProcess("validation's", _work, *told, left[worker::workers], directory))
            for worker in range(workers)
        ]
        seen = len(_read(directory))
        while any(process.is_alive() for process in processes):
            time.sleep(1)
            seen, before = len(_read(directory)), seen
            bar.advance(seen - before)
        for process in processes:
            process.wait()


def _work(world: WorldConfig, long_plays: LongPlays, plan: Plan, numbers: Sequence[int], directory: Path) -> None:
    """A worker process writes one file a run."""
    console.silence_libraries()
    replay = Replay.of(World.build(world), long_plays)
    for number in numbers:
        _write(directory, number, run(replay, plan, number))


def _write(directory: Path, number: int, one: dict[str, Any]) -> None:
    artifacts.write_text(directory / f"{number:04d}.json", json.dumps(one) + "\n")  # may hold NaN


def _read(directory: Path) -> dict[int, dict[str, Any]]:
    """The finished runs by number."""
    return {int(path.stem): json.loads(path.read_text()) for path in directory.glob("*.json")}


def aa_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """False-positive rates of all A/A runs whose metric could be counted: with one look at the end and with daily
    looks. BadInput where there is no such run."""
    aa = [splits for one in runs for splits in one["aa"] if np.isfinite(splits[-1]["p"])]
    if not aa:
        raise BadInput("the deciding metric could be counted in no run: choose another with --decided-by")
    p_AxD = np.array([[day["p"] for day in days] for days in aa])
    return {
        "runs": len(aa),
        "below": float(np.mean(p_AxD[:, -1] < 1 - CONFIDENCE)),
        "uniform_p": float(kstest(p_AxD[:, -1], "uniform").pvalue),
        "ever_below": float(np.mean(np.nanmin(p_AxD, axis=1) < 1 - CONFIDENCE)),
        "ever_left_0": float(np.mean([any(day["left_0"] for day in days) for days in aa])),
    }


def json_of(runs: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    """The content of trial.json."""
    planted = {kind: {n: dataclasses.asdict(one) for n, one in summarise(runs, kind).items()} for kind in DRAWS}
    told = {name: getattr(plan, name) for name in READ} | {"share": PLANTED_SHARE, "among": AMONG}
    return {"plan": told, "runs": len(runs), "aa": aa_of(runs), "planted": planted}


def text_of(runs: Sequence[Mapping[str, Any]], plan: Plan) -> str:
    """The text of table.txt."""
    aa = aa_of(runs)
    lines = [
        f"{len(runs)} runs of {plan.days} counted days, each with other random draws and another split",
        "",
        f"A/A, {aa['runs']} runs, {METRICS[plan.decided_by].title}: p < 0.05 in {aa['below']:.1%} "
        f"(uniform: p = {aa['uniform_p']:.2f})",
        f"  daily looks that stop at p < 0.05 are wrong in {aa['ever_below']:.1%}; "
        f"with the always-valid interval in {aa['ever_left_0']:.1%}",
        "",
        f"Planted: in {PLANTED_SHARE:.0%} of searches the best of the first {AMONG} comes first. Truth: everybody "
        "planted over everybody control, mean of the runs",
    ]
    for kind, title in DRAWS.items():
        lines += ["", f"{title:<40}{'truth':>8}{'found':>8}{'covered':>9}{'error':>8}{'spread':>8}"]
        lines += [
            f"{METRICS[name].title:<40}{one.truth:>+8.2%}{one.found:>8.0%}{one.covered:>9.1%}"
            f"{one.error:>8.2%}{one.spread:>8.2%}"
            for name, one in summarise(runs, kind).items()
        ]
    return "\n".join(lines) + "\n"
