"""What each part earns: every variant of a file trained and judged with several seeds, beside the whole system.

A variant is a work directory of its own, in which every stage that it shares with the whole system of the same seed is
a link to that one. Rankers of one seed share what they have in common in `shared/`: the features of their slates, and
the base ranker. Once judged, only a variant's values of sessions and its costs are kept (`judged/`), so that a run cut
short carries on with what is missing, and a changed config or file judges just what changed.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pr2_jax import artifacts, console
from pr2_jax import workdir as stages
from pr2_jax.config import Config, ablation_config
from pr2_jax.config.ablation_config import WHOLE, Ablation
from pr2_jax.config.loader import to_dict
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.evaluation.rankings import rank_catalogue, rank_day, searchers_of, session_metrics
from pr2_jax.metrics import per_session
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.search.system import System
from pr2_jax.stages import train_qin
from pr2_jax.studies.ablation_tables import Result, write_tables
from pr2_jax.training.training_curve import PACE

Body = Callable[[Path, Config, Path], None]
Make = Callable[[str, Path, Config, Body | None], None]
"""(stage, work directory, config, body or None for the stage's own): makes one stage there, unless it is fresh."""
DIRECTORY, SHARED = "ablations", "shared"
DAYS = ("validation", "test")
JUDGED, COSTS = "judged", "costs.json"
TIMED_SESSIONS = 64
"""Searches of the test day over which the time to answer one is taken."""


def run(workdir: Path, config: Config, file: Path, seeds: int, make: Make) -> None:
    """Judges what is not judged yet, then writes `ablations/table_{test,validation}.{txt,md}` and `ablations.json`."""
    stages.require_inputs("eval", workdir, config)
    asked = [WHOLE, *ablation_config.load(file, config)]
    # One rule for all, or variants would be judged by other clicks than the whole: the index of each decides anew.
    served = System.open(workdir, config)
    withhold, before = (
        served.fitted.choices.withholds_clicked,
        {name: day_of(served, *days_of(served)[name]) for name in DAYS},
    )
    results = []
    for number in range(seeds):
        seeded = ablation_config.seeded(config, number)
        for ablation in asked:
            place = workdir / DIRECTORY / f"seed_{number}" / ablation.directory
            console.log(f"{ablation.title}, seed {number}")
            _judge(workdir, place, ablation, ablation.config(seeded), make, withhold=withhold)
            results.append(_read(place, ablation))
    notes = {name: day.refinding.note for name, day in before.items()}
    write_tables(results, config.evaluation, workdir / DIRECTORY, notes)


def print_table(workdir: Path) -> None:
    """The test day's table, to stdout."""
    print((workdir / DIRECTORY / "table_test.txt").read_text(), end="")


def days_of(system: System) -> dict[str, tuple[int, int]]:
    """When each of `DAYS` begins and ends."""
    cuts = system.store.cuts
    return {"validation": (cuts.validation_ms, cuts.test_ms), "test": (cuts.test_ms, cuts.end_ms)}


def _judge(workdir: Path, place: Path, ablation: Ablation, config: Config, make: Make, *, withhold: bool) -> None:
    """Trains what this variant does not share, judges it on both days, and drops what was trained."""
    claim = {"store": artifacts.identity(workdir / stages.STORE), "config": to_dict(config), "ranked": ablation.ranked}
    claim["withhold"] = withhold
    whole = place.parent / WHOLE.directory
    if artifacts.fresh(place / JUDGED, claim, stages.SCHEMA):
        _drop(place, whole)  # what a kill may have left
        return
    _make_stages(place, config, ablation.ranked, [workdir, whole], make)
    system = System.open(place, config)
    with artifacts.writing(place / JUDGED, claim, stages.SCHEMA) as out:
        for name in DAYS:
            day = day_of(system, *days_of(system)[name], withhold=withhold)
            found = session_metrics(system, rank_day(system, config, day, ("pr2",) if ablation.ranked else ()))
            per_session.save(out / f"{name}.npz", found)
        costs = _costs(system, config, day, ablation.ranked)
        artifacts.write_json(out / COSTS, costs)
    _drop(place, whole)


def _drop(place: Path, whole: Path) -> None:
    """The stages of a judged variant, but not those of the whole system, which lends them to the others."""
    for name in () if place == whole else (stages.STORE, *stages.STAGES):
        shutil.rmtree(place / name, ignore_errors=True)
        shutil.rmtree(place / f"{name}.partial", ignore_errors=True)


def _make_stages(place: Path, config: Config, ranked: bool, lenders: Sequence[Path], make: Make) -> None:
    """Every stage up to the ranker, or up to the index: linked where somebody has it, else made."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / stages.STORE).exists():
        artifacts.link_tree(lenders[0] / stages.STORE, place / stages.STORE)
    for name in stages.STAGES:
        if name == "eval" or (name == "qin" and not ranked):
            continue
        claim = stages.fingerprint(name, place, config)
        if artifacts.fresh(place / name, claim, stages.SCHEMA):
            continue
        lender = next((one for one in lenders if artifacts.fresh(one / name, claim, stages.SCHEMA)), None)
        if lender is None:
            make(name, place, config, functools.partial(_train_rankers, claim) if name == "qin" else None)
        else:
            shutil.rmtree(place / name, ignore_errors=True)
            artifacts.link_tree(lender / name, place / name)


def _train_rankers(claim: dict[str, Any], place: Path, config: Config, out: Path) -> None:
    """Trains the rankers of a variant with what others of its seed have made already; `claim` is the stage's."""
    kept = {name: value for name, value in claim["config"].items() if name not in ("qin", "base")}
    slates = {name: vars(config.qin)[name] for name in ("slate", "sampled_negatives")}
    seed, shared = {"seed": config.qin.optim.seed}, place.parent / SHARED

    def directory(name: str, facts: dict[str, Any]) -> Path:
        return shared / f"{name}_{artifacts.digest([claim['inputs'], kept, facts | seed])}"

    features, base = directory("slates", slates), directory("base", {"base": to_dict(config.base)})
    features.mkdir(parents=True, exist_ok=True)
    if base.exists() and not (out / "base").exists():
        (out / "base").mkdir()
        artifacts.link_tree(base, out / "base" / "params")
    train_qin.train(place, config, out, features)
    if not base.exists():
        artifacts.link_tree(out / "base" / "params", base)


def _costs(system: System, config: Config, day: Day, ranked: bool) -> dict[str, float]:
    """Milliseconds that a training step took and that a search of the day takes; megabytes of parameters."""
    models = {"pdr": "pdr"} | ({"qin": "qin/qin"} if ranked else {})
    out = {}
    for name, part in models.items():
        trained = system.workdir / part
        if (trained / PACE).exists():  # a run of very few steps has none
            out[f"{name}_step_ms"] = json.loads((trained / PACE).read_text())["seconds_a_step"] * 1e3
        files = [path for path in (trained / "params").rglob("*") if path.is_file()]
        out[f"{name}_megabytes"] = sum(path.stat().st_size for path in files) / 1e6
    some = day.sample(TIMED_SESSIONS)
    for name, pipelines in {"retrieve_ms": (), **({"search_ms": ("pr2",)} if ranked else {})}.items():
        searchers, seconds = searchers_of(system, some, pipelines), []
        for _ in range(3):  # the first compiles
            started = time.perf_counter()
            rank_catalogue(system, config, some, searchers)
            seconds.append(time.perf_counter() - started)
        out[name] = 1e3 * min(seconds[1:]) / max(1, len(some.sessions))
    return out


def _read(place: Path, ablation: Ablation) -> Result:
    found: dict[str, dict[str, PerSession]] = {name: per_session.load(place / JUDGED / f"{name}.npz") for name in DAYS}
    return Result(ablation, found, json.loads((place / JUDGED / COSTS).read_text()))
