"""`pr2 abtest`: a finished work directory of the simulated world serves it on, arm by arm."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np

from pr2_jax import artifacts, console
from pr2_jax import workdir as stages
from pr2_jax.abtest import abtest_report
from pr2_jax.abtest.experiment import (
    Plan,
    judge,
    live_shadow,
    live_split,
    live_through,
    live_together,
    require_people,
)
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.abtest.live_system import Platform
from pr2_jax.abtest.policies import ArmRouter, OraclePolicy, RandomPolicy
from pr2_jax.abtest.population import Population, Serve
from pr2_jax.abtest.replay import Replay
from pr2_jax.abtest.retraining import Retrain, RetrainedSystems
from pr2_jax.abtest.worker_process import WorkerProcess
from pr2_jax.config.loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.search.system import RANKERS, System, open_system
from pr2_jax.simulation.logging_policies import SearchSystem
from pr2_jax.simulation.world import World, WorldState

DIRECTORY, SCHEMA = "abtest", "abtest/1"
SOURCE = "short_video_world"
BY_THEMSELVES = ("oracle", "random", "logging")
"""Arms that need no work directory: who knows people's preferences, anything, and the system that wrote the log."""
ARMS = (*RANKERS, *BY_THEMSELVES)
POPULATIONS = ("split", "shadow")


def open_world(workdir: Path, plan: Plan) -> System:
    """The work directory whose systems are compared. BadInput or StaleArtifact where it cannot serve the plan."""
    for arm in plan.arms:
        if arm not in ARMS:
            raise BadInput(f"arm {arm!r}, expected one of {', '.join(ARMS)}")
    if plan.refresh and not set(plan.arms) & set(RANKERS):
        raise BadInput(f"refresh = {plan.refresh}, but none of the arms {', '.join(plan.arms)} has a model to train")
    system = open_system(workdir)
    if system.exported is not None:
        raise BadInput(f"{workdir} is a serving artifact, expected a work directory")
    if system.config.data.source != SOURCE:
        raise BadInput(f"{workdir}: its log is not a simulated world's, and nobody else's people can answer")
    if share := system.config.world.refind_share:
        raise BadInput(
            f"{workdir}: world.refind_share = {share:g} rewrote its log; people in an experiment do no such thing"
        )
    return system


def run(system: System, plan: Plan, retrain: Retrain, force: bool = False) -> Path:
    """Lives through the plan, or through what is left of it, and writes `abtest/NAME/`."""
    workdir, config = system.workdir, system.config
    claim = {
        "plan": dataclasses.asdict(plan),
        "world": to_dict(config)["world"],
        "inputs": {
            name: artifacts.identity(workdir / name) for name in (stages.STORE, *stages.STAGES) if name != "eval"
        },
    }
    out = workdir / DIRECTORY / plan.name
    if artifacts.fresh(out, claim, SCHEMA):
        console.log("fresh, skipped")
        return out
    out.parent.mkdir(exist_ok=True)
    ground = Replay.of(World.build(config.world), system.reader.long_play.label)
    people, needed = len(ground.world.users), require_people(plan, ground.past, force)
    shown = f"{100 * plan.foreseen:g} % in {METRICS[plan.decided_by].title}"
    console.log(f"{people:,} people; {needed:,} needed to show {shown}")
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        split, shadow = _lanes(plan, system, ground, partial, retrain)
        _live(plan, split, shadow, workdir)
        abtest_report.write(partial, judge(plan, split, shadow, ground.past))
        for lane in POPULATIONS:
            shutil.rmtree(partial / lane, ignore_errors=True)  # what a killed run would have carried on from
    return out


def _live(plan: Plan, split: Population, shadow: Population | None, workdir: Path) -> None:
    """Where two lanes may have a core each, the shadow is another process."""
    if shadow is None or jax.default_backend() != "cpu" or (os.cpu_count() or 1) < 2:
        live_through(plan, split, shadow)
        return
    live_together(plan, split)
    shadow.share_days(split, plan.aa_days)
    with WorkerProcess("shadow lane's", _live_shadow, plan, workdir, shadow.directory) as beside:
        live_split(plan, split, beside.check)
        beside.wait()
    shadow.carry_on()  # reads what the other process has lived


def _live_shadow(plan: Plan, workdir: Path, directory: Path) -> None:
    """The shadow lane in a process of its own."""
    console.silence_libraries()
    system = open_world(workdir, plan)
    world = World.build(system.config.world)
    live_shadow(plan, _shadow(plan, system, world, world.start(), directory))  # the state of its last day is read there


def _lanes(
    plan: Plan, system: System, ground: Replay, place: Path, retrain: Retrain
) -> tuple[Population, Population | None]:
    world, state = ground.world, ground.state
    served = {arm: number for number, arm in enumerate(plan.arms) if arm in RANKERS}
    if plan.refresh and served:
        knobs = {"past": ground.logs, "alike": plan.aa_days, "every": plan.refresh}
        knobs |= {"directory": place / POPULATIONS[0] / "models", "retrain": retrain}
        platform = RetrainedSystems(system, world, plan.arm_of(world), served, **knobs)
    else:
        platform = Platform(system, world) if served else None
    split = Population(world, platform, place / POPULATIONS[0], ground.long_plays, _server(plan.arms), state)
    return split, _shadow(plan, system, world, state, place / POPULATIONS[1]) if plan.common_random_numbers else None


def _shadow(plan: Plan, system: System, world: World, state: WorldState, directory: Path) -> Population:
    """Its models stay as they are: what it is for is people's luck."""
    platform = Platform(system, world) if plan.arms[0] in RANKERS else None
    return Population(world, platform, directory, system.reader.long_play.label, _server(plan.arms[:1]), state)


def _server(arms: tuple[str, ...]) -> Serve:
    def serve(lane: Population, arm_U: np.ndarray | None) -> SearchSystem:
        arm_U = np.zeros(len(lane.world.users), np.int8) if arm_U is None else arm_U
        return ArmRouter({n: _system(arms[n], lane) for n in np.unique(arm_U).tolist()}, arm_U)

    return serve


def _system(arm: str, lane: Population) -> SearchSystem:
    world = lane.world
    if arm in RANKERS:
        return lane.platform.served(arm)
    return {"oracle": OraclePolicy(world, lane.state), "random": RandomPolicy(world), "logging": world.logging}[arm]
