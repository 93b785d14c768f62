"""`pr2 abtest --trial N`: N runs of the experiment with a known answer, on the world of a work directory's config."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest

from pr2_jax import artifacts, console
from pr2_jax.abtest.estimators import CONFIDENCE
from pr2_jax.abtest.experiment import Plan
from pr2_jax.abtest.experiment_metrics import METRICS, LongPlays
from pr2_jax.abtest.replay import Replay
from pr2_jax.abtest.run_abtest import DIRECTORY
from pr2_jax.abtest.validation import AMONG, PLANTED_SHARE, run, verdicts
from pr2_jax.abtest.worker_process import WorkerProcess
from pr2_jax.config import WorldConfig
from pr2_jax.config.loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.search.system import System
from pr2_jax.simulation.world import World

NAME, SCHEMA = "trial", "abtest-trial/2"
READ = ("days", "aa_days", "warm_up", "salt", "decided_by", "foreseen")
"""What of a plan a trial goes by; it has arms and luck of its own."""
RUNS, TABLE, NUMBERS = "runs.jsonl", "table.txt", "trial.json"
LEAST_RUNS = 2


def tried(system: System, plan: Plan, runs: int) -> Path:
    """Lives through what is left of the runs, one a core at a time, and writes `abtest/trial/` (a plan that is not as
    usual has its place beside it).

    Runs that are there already stay, also more than are asked for.
    """
    if runs < LEAST_RUNS:
        raise BadInput(f"--trial {runs}, expected {LEAST_RUNS} or more")
    claim = {
        "plan": {name: getattr(plan, name) for name in READ},
        "world": to_dict(system.config)["world"],
        "long_play_ms": system.reader.long_play.thresholds_ms.tolist(),
        "planted": [PLANTED_SHARE, AMONG],
    }
    out = system.workdir / DIRECTORY / (NAME + plan.unusual(READ))
    out.parent.mkdir(exist_ok=True)
    finished = _read([out / RUNS]) if artifacts.reason_stale(out, claim, SCHEMA) is None else {}
    if set(range(runs)) <= finished.keys() and all((out / name).exists() for name in (TABLE, NUMBERS)):
        console.log("fresh, skipped")
        return out
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        parts = sorted(partial.glob("runs*.jsonl"))
        done = finished | _read(parts)
        _write(partial / RUNS, done.values())
        for part in parts:
            if part.name != RUNS:
                part.unlink()
        done |= _lived(system, plan, [number for number in range(runs) if number not in done], partial)
        found = [done[number] for number in sorted(done)]
        (partial / TABLE).write_text(text_of(found, plan))
        artifacts.write_json(partial / NUMBERS, json_of(found, plan))
        _write(partial / RUNS, found)
        for part in partial.glob("runs.*.jsonl"):
            part.unlink()
    return out


def _lived(system: System, plan: Plan, left: list[int], partial: Path) -> dict[int, dict[str, Any]]:
    """The runs that are left, each process with a file of its own."""
    workers = min(os.cpu_count() or 1, len(left))
    paths = [partial / f"runs.{worker}.jsonl" for worker in range(workers)]
    told = (system.config.world, system.reader.long_play.label, plan)
    with contextlib.ExitStack() as stack, console.Bar("trial", len(left), " runs") as bar:
        processes = [
            stack.enter_context(WorkerProcess("trial's", _live, *told, left[worker::workers], path))
            for worker, path in enumerate(paths)
        ]
        seen = 0
        while any(process.alive for process in processes):
            time.sleep(1)
            seen, before = len(_read(paths)), seen
            bar.advance(seen - before)
        for process in processes:
            process.wait()
    return _read(paths)


def _live(world: WorldConfig, long_plays: LongPlays, plan: Plan, numbers: Sequence[int], path: Path) -> None:
    """In a process of its own: a line a run."""
    console.silence_libraries()
    ground = Replay.of(World.build(world), long_plays)
    with path.open("a") as file:
        for number in numbers:
            file.write(json.dumps(run(ground, plan, number)) + "\n")
            file.flush()


def _write(path: Path, runs: Iterable[dict[str, Any]]) -> None:
    artifacts.write_text(path, "".join(json.dumps(one) + "\n" for one in runs))


def _read(paths: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """By number: whole lines of files that may be missing or end in half a line."""
    lines = (line for path in paths if path.exists() for line in path.read_text().splitlines(keepends=True))
    runs = [json.loads(line) for line in lines if line.endswith("\n")]
    return {one["run"]: one for one in runs}


def aa_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of all A/A runs whose metric could be counted: shares called different, by one look at the end and by looking
    every day. BadInput where there is none."""
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
    """Everything in numbers."""
    planted = {
        kind: {name: dataclasses.asdict(one) for name, one in verdicts(runs, kind).items()}
        for kind in ("shared", "own")
    }
    told = {name: getattr(plan, name) for name in READ} | {"share": PLANTED_SHARE, "among": AMONG}
    return {"plan": told, "runs": len(runs), "aa": aa_of(runs), "planted": planted}


def text_of(runs: Sequence[Mapping[str, Any]], plan: Plan) -> str:
    """The table, plain."""
    aa = aa_of(runs)
    lines = [
        f"{len(runs)} runs of {plan.days} counted days, each with other luck and another split",
        "",
        f"A/A, {aa['runs']} runs, {METRICS[plan.decided_by].title}: p < 0.05 in {aa['below']:.1%} "
        f"(uniform: p = {aa['uniform_p']:.2f})",
        f"  who looks every day and stops at p < 0.05 is wrong in {aa['ever_below']:.1%}; "
        f"with the always-valid interval in {aa['ever_left_0']:.1%}",
        "",
        f"Planted: in {PLANTED_SHARE:.0%} of searches the best of the first {AMONG} comes first. Truth: everybody "
        "planted over everybody control, mean of the runs",
    ]
    for kind, title in (("shared", "luck shared with a shadow on control"), ("own", "everybody's luck their own")):
        lines += ["", f"{title:<40}{'truth':>8}{'found':>8}{'covered':>9}{'error':>8}{'spread':>8}"]
        lines += [
            f"{METRICS[name].title:<40}{one.truth:>+8.2%}{one.found:>8.0%}{one.covered:>9.1%}"
            f"{one.error:>8.2%}{one.spread:>8.2%}"
            for name, one in verdicts(runs, kind).items()
        ]
    return "\n".join(lines) + "\n"
