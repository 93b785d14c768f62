"""`pr2 abtest --trial N`: N runs of the experiment with a known answer, on the world of a work directory's config."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kstest

from pr2_jax import artifacts, console
from pr2_jax.config_loader import to_dict
from pr2_jax.config_world import WorldConfig
from pr2_jax.online.experiment import Plan
from pr2_jax.online.ground import Ground
from pr2_jax.online.lifts import CONFIDENCE
from pr2_jax.online.measures import METRICS, LongPlays
from pr2_jax.online.trial import AMONG, PLANTED_SHARE, run, verdicts
from pr2_jax.search.system import System
from pr2_jax.simulation.world import World
from pr2_jax.stages.abtest import DIRECTORY

NAME, SCHEMA = "trial", "abtest-trial/1"
RUNS = "runs.jsonl"


def tried(system: System, plan: Plan, runs: int) -> Path:
    """Lives through what is left of the runs, one a core at a time, and writes `abtest/trial/`."""
    claim = {
        "plan": json.loads(json.dumps(dataclasses.asdict(plan))),
        "world": to_dict(system.config)["world"],
        "long_play_ms": system.reader.long_play.thresholds_ms.tolist(),
        "planted": [PLANTED_SHARE, AMONG],
    }
    out = system.workdir / DIRECTORY / NAME
    out.parent.mkdir(exist_ok=True)
    finished = _lines(out / RUNS) if artifacts.reason_stale(out, claim, SCHEMA) is None else []
    if len(finished) == runs:
        console.log("fresh, skipped")
        return out
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        done = {one["run"]: one for one in [*finished, *_lines(partial / RUNS)] if one["run"] < runs}
        with (partial / RUNS).open("w") as file:
            for one in done.values():
                file.write(json.dumps(one) + "\n")
            for one in console.progress(_more(system, plan, runs, done), "trial", unit=" runs", total=runs - len(done)):
                done[one["run"]] = one
                file.write(json.dumps(one) + "\n")
                file.flush()
        found = [done[number] for number in range(runs)]
        (partial / "table.txt").write_text(text_of(found, plan))
        artifacts.write_json(partial / "trial.json", json_of(found))
    return out


def _more(system: System, plan: Plan, runs: int, done: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    left = [number for number in range(runs) if number not in done]
    workers = min(os.cpu_count() or 1, len(left))
    ground = (system.config.world, system.reader.long_play.label)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _stand, ground) as pool:
        yield from pool.map(functools.partial(_run, plan), left)


_ground: Ground | None = None
"""Of a worker process."""


def _stand(world: WorldConfig, long_plays: LongPlays) -> None:
    global _ground
    _ground = Ground.of(World.build(world), long_plays)


def _run(plan: Plan, number: int) -> dict[str, Any]:
    return run(_ground, plan, number)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may be missing or end in half a line."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def aa_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of all A/A runs: shares called different, by one look at the end and by looking every day."""
    aa = [splits for one in runs for splits in one["aa"]]
    last = np.array([days[-1]["p"] for days in aa])
    return {
        "runs": len(aa),
        "below": float(np.mean(last < 1 - CONFIDENCE)),
        "uniform_p": float(kstest(last, "uniform").pvalue),
        "ever_below": float(np.mean([min(day["p"] for day in days) < 1 - CONFIDENCE for days in aa])),
        "ever_left_0": float(np.mean([any(day["left_0"] for day in days) for days in aa])),
    }


def json_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything in numbers."""
    planted = {
        kind: {name: dataclasses.asdict(one) for name, one in verdicts(runs, kind).items() if np.isfinite(one.error)}
        for kind in ("shared", "own")
    }
    return {"runs": len(runs), "aa": aa_of(runs), "planted": planted}


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
        for name, one in verdicts(runs, kind).items():
            if one.error > 0:  # not of what could not be counted
                lines.append(
                    f"{METRICS[name].title:<40}{one.truth:>+8.2%}{one.found:>8.0%}{one.covered:>9.1%}"
                    f"{one.error:>8.2%}{one.spread:>8.2%}"
                )
    return "\n".join(lines) + "\n"
