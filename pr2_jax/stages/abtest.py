"""`pr2 abtest`: a finished work directory of the simulated world serves it on, arm by arm."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np

from pr2_jax import artifacts, console
from pr2_jax import workdir as stages
from pr2_jax.config_loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.online.experiment import (
    Outcome,
    Plan,
    judge,
    live_shadow,
    live_split,
    live_through,
    live_together,
    require_people,
)
from pr2_jax.online.lanes import Lane
from pr2_jax.online.measures import counters_of
from pr2_jax.online.platform import Platform
from pr2_jax.online.sides import Anything, Knowing, Split
from pr2_jax.search.system import RANKERS, System, open_system
from pr2_jax.simulation.serving import SearchSystem
from pr2_jax.simulation.world import World, WorldState
from pr2_jax.stages import abtest_report

DIRECTORY, SCHEMA = "abtest", "abtest/1"
SOURCE = "short_video_world"
BY_THEMSELVES = ("oracle", "random", "logging")
"""Arms that need no work directory: who knows people's tastes, anything, and the system that wrote the log."""
ARMS = (*RANKERS, *BY_THEMSELVES)
LANES = ("split", "shadow")
PAST_DAYS = 14
"""Of the log, for what is known of people beforehand."""


def open_world(workdir: Path, plan: Plan) -> System:
    """The work directory whose systems are compared. BadInput or StaleArtifact where it cannot serve the plan."""
    for arm in plan.arms:
        if arm not in ARMS:
            raise BadInput(f"arm {arm!r}, expected one of {', '.join(ARMS)}")
    system = open_system(workdir)
    if system.exported is not None:
        raise BadInput(f"{workdir} is a serving artifact, expected a work directory")
    if system.config.data.source != SOURCE:
        raise BadInput(f"{workdir}: its log is not a simulated world's, and nobody else's people can answer")
    return system


def run(system: System, plan: Plan, force: bool = False) -> Path:
    """Lives through the plan, or through what is left of it, and writes `abtest/NAME/`."""
    workdir, config = system.workdir, system.config
    claim = {
        "plan": json.loads(json.dumps(dataclasses.asdict(plan))),
        "world": to_dict(config)["world"],
        "inputs": {
            name: artifacts.identity(workdir / name) for name in (stages.STORE, *stages.STAGES) if name != "eval"
        },
    }
    out = workdir / DIRECTORY / "+".join(arm.strip("+").replace("+", "_") for arm in plan.arms)
    if artifacts.fresh(out, claim, SCHEMA):
        console.log("fresh, skipped")
        return out
    out.parent.mkdir(exist_ok=True)
    world = World.build(config.world)
    state, past = _after_the_log(world, system)
    needed = require_people(plan, past, force)
    console.log(f"{len(world.users):,} people; {needed:,} needed to show {plan.foreseen:.0%} in {plan.decided_by}")
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        outcome = _experiment(plan, world, system, state, past, partial)
        abtest_report.write(partial, outcome)
        for lane in LANES:
            shutil.rmtree(partial / lane, ignore_errors=True)  # what a killed run would have carried on from
    return out


def _after_the_log(world: World, system: System) -> tuple[WorldState, list[dict[str, np.ndarray]]]:
    """What the log ended with, and what its last days counted."""
    state, past = world.start(), []
    for day in console.progress(range(world.config.days), "the log's days again", unit=" days"):
        after, log = world.step_day(state)
        if day >= world.config.days - PAST_DAYS:
            past.append(counters_of(world, state, log, system.reader.long_play.label))
        state = after
    return state, past


def _experiment(
    plan: Plan, world: World, system: System, state: WorldState, past: list[dict[str, np.ndarray]], place: Path
) -> Outcome:
    """Where two lanes may have a core each, the shadow is another process."""
    split = _lane(plan, system, world, place / LANES[0], state, plan.arms)
    if not plan.shared_luck:
        live_through(plan, split, None)
        return judge(plan, split, None, past)
    shadow = _lane(plan, system, world, place / LANES[1], state, plan.arms[:1])
    if jax.default_backend() != "cpu" or (os.cpu_count() or 1) < 2:
        live_through(plan, split, shadow)
        return judge(plan, split, shadow, past)
    live_together(plan, split)
    shadow.share_days(split, plan.aa_days)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
        apart = beside.submit(_live_shadow, plan, system.workdir, shadow.directory, os.getpid())
        live_split(plan, split)
        apart.result()
    shadow.carry_on()  # reads what the other process has lived
    return judge(plan, split, shadow, past)


def _live_shadow(plan: Plan, workdir: Path, directory: Path, parent: int) -> None:
    """The shadow lane in a process of its own, which ends with its parent."""
    console.silence_libraries()
    system = open_world(workdir, plan)
    world = World.build(system.config.world)
    shadow = _lane(plan, system, world, directory, world.start(), plan.arms[:1])
    for _ in live_shadow(plan, shadow):
        if os.getppid() != parent:
            return


def _lane(plan: Plan, system: System, world: World, directory: Path, state: WorldState, arms: tuple[str, ...]) -> Lane:
    def serve(lane: Lane, arm_U: np.ndarray | None) -> SearchSystem:
        arm_U = np.zeros(len(world.users), np.int8) if arm_U is None else arm_U
        return Split({n: _system(plan.arms[n], lane) for n in np.unique(arm_U).tolist()}, arm_U)

    platform = Platform(system, world) if any(arm in RANKERS for arm in arms) else None
    return Lane(world, platform, directory, system.reader.long_play.label, serve, state)


def _system(arm: str, lane: Lane) -> SearchSystem:
    world = lane.world
    if arm in RANKERS:
        return lane.platform.served(arm)
    return {"oracle": Knowing(world, lane.state), "random": Anything(world), "logging": world.logging}[arm]
