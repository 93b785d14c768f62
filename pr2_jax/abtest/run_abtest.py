"""`pr2 abtest`: the systems of a finished work directory serve the simulated world that wrote its log, arm by arm."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax

from pr2_jax import artifacts, console, workdir
from pr2_jax.abtest import abtest_report
from pr2_jax.abtest.experiment import (
    Plan,
    analyse,
    require_people,
    run_aa_days,
    run_arm_days,
    run_crn_control,
    run_in_turn,
)
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.abtest.live_system import Platform
from pr2_jax.abtest.policies import OraclePolicy, RandomPolicy
from pr2_jax.abtest.population import Population, Replay
from pr2_jax.abtest.retraining import Retrain, RetrainedSystems
from pr2_jax.abtest.worker_process import WorkerProcess
from pr2_jax.config.loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.search.pipelines import NAMES
from pr2_jax.search.system import System, open_system
from pr2_jax.simulation.logging_policies import SearchSystem
from pr2_jax.simulation.world import World, WorldState

DIRECTORY, SCHEMA = "abtest", "abtest/2"
SOURCE = "short_video_world"
STANDALONE = ("oracle", "random", "logging")
"""Arms that read no work directory."""
ARMS = (*NAMES, *STANDALONE)
SPLIT, CRN_CONTROL = "split", "crn_control"
"""Directories of the two populations while an experiment runs."""


def open_world(place: Path, plan: Plan) -> System:
    """Opens the work directory whose systems are compared. BadInput or StaleArtifact where it cannot serve the plan."""
    for arm in plan.arms:
        if arm not in ARMS:
            raise BadInput(f"arm {arm!r}, expected one of {', '.join(ARMS)}")
    if plan.refresh and not set(plan.arms) & set(NAMES):
        raise BadInput(f"refresh = {plan.refresh}, but none of the arms {', '.join(plan.arms)} has a model to train")
    system = open_system(place)
    if system.fitted.verified:
        raise BadInput(f"{place} is a serving artifact, expected a work directory")
    if system.config.data.source != SOURCE:
        raise BadInput(f"{place}: its log is not of a simulated world, and only simulated people can answer")
    if share := system.config.world.refind_share:
        raise BadInput(
            f"{place}: world.refind_share = {share:g} rewrote its log; experiments do not simulate re-finding"
        )
    return system


def run(system: System, plan: Plan, retrain: Retrain, force: bool = False) -> Path:
    """Simulates the days that are left and writes `abtest/NAME/`."""
    place, config = system.workdir, system.config
    claim = {
        "plan": dataclasses.asdict(plan),
        "world": to_dict(config)["world"],
        "inputs": {
            name: artifacts.identity(place / name) for name in (workdir.STORE, *workdir.STAGES) if name != "eval"
        },
    }
    out = place / DIRECTORY / plan.name
    if artifacts.fresh(out, claim, SCHEMA):
        console.log("fresh, skipped")
        return out
    out.parent.mkdir(exist_ok=True)
    replay = Replay.of(World.build(config.world), system.log.long_play.label)
    people, needed = len(replay.world.users), require_people(plan, replay.past, force)
    shown = f"{100 * plan.foreseen:g} % in {METRICS[plan.decided_by].title}"
    console.log(f"{people:,} people; {needed:,} needed to show {shown}")
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        split, crn_control = _populations(plan, system, replay, partial, retrain)
        _run_days(plan, split, crn_control, place)
        abtest_report.write(partial, analyse(plan, split, crn_control, replay.past))
        for population in (SPLIT, CRN_CONTROL):
            shutil.rmtree(partial / population, ignore_errors=True)  # a killed run would have resumed from it
    return out


def _run_days(plan: Plan, split: Population, crn_control: Population | None, place: Path) -> None:
    """Runs the crn control in a worker process where each population can have a core."""
    if crn_control is None or jax.default_backend() != "cpu" or (os.cpu_count() or 1) < 2:
        run_in_turn(plan, split, crn_control)
        return
    run_aa_days(plan, split)
    crn_control.link_days(split, plan.aa_days)
    with WorkerProcess("crn control's", _run_crn_control, plan, place, crn_control.directory) as worker:
        run_arm_days(plan, split, worker.check)
        worker.wait()
    crn_control.resume()  # reads the days of the worker process


def _run_crn_control(plan: Plan, place: Path, directory: Path) -> None:
    console.silence_libraries()
    system = open_world(place, plan)
    world = World.build(system.config.world)
    run_crn_control(plan, _crn_control(plan, system, world, world.start(), directory))  # resumes from the linked days


def _populations(
    plan: Plan, system: System, replay: Replay, place: Path, retrain: Retrain
) -> tuple[Population, Population | None]:
    world, state = replay.world, replay.state
    served = {arm: number for number, arm in enumerate(plan.arms) if arm in NAMES}
    if plan.refresh and served:
        knobs = {"past": replay.logs, "alike": plan.aa_days, "every": plan.refresh}
        knobs |= {"directory": place / SPLIT / "models", "retrain": retrain}
        platform = RetrainedSystems(system, world, plan.arm_of(world), served, **knobs)
    else:
        platform = Platform(system, world) if served else None
    split = Population(world, platform, place / SPLIT, replay.long_plays, _server(plan.arms), state)
    if not plan.common_random_numbers:
        return split, None
    return split, _crn_control(plan, system, world, state, place / CRN_CONTROL)


def _crn_control(plan: Plan, system: System, world: World, state: WorldState, directory: Path) -> Population:
    """Its models are never retrained: it only serves as a covariate."""
    platform = Platform(system, world) if plan.arms[0] in NAMES else None
    return Population(world, platform, directory, system.log.long_play.label, _server(plan.arms), state)


def _server(arms: tuple[str, ...]) -> Callable[[Population, int], SearchSystem]:
    def serve(population: Population, arm: int) -> SearchSystem:
        name, world = arms[arm], population.world
        if name in NAMES:
            return population.platform.served(name)
        standalone = {"oracle": OraclePolicy(world, population.state), "random": RandomPolicy(world)}
        return standalone.get(name, world.logging)

    return serve
