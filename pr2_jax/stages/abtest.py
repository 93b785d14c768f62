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
from pr2_jax.config_loader import to_dict
from pr2_jax.errors import BadInput
from pr2_jax.online.beside import Beside
from pr2_jax.online.experiment import (
    Plan,
    judge,
    live_shadow,
    live_split,
    live_through,
    live_together,
    require_people,
)
from pr2_jax.online.ground import Ground
from pr2_jax.online.lanes import Lane, Serve
from pr2_jax.online.measures import METRICS
from pr2_jax.online.platform import Platform
from pr2_jax.online.refresh import RefreshedPlatforms, Retrain
from pr2_jax.online.sides import Anything, Knowing, Split
from pr2_jax.search.pipelines import NAMES
from pr2_jax.search.system import System, open_system
from pr2_jax.simulation.serving import SearchSystem
from pr2_jax.simulation.world import World, WorldState
from pr2_jax.stages import abtest_report

DIRECTORY, SCHEMA = "abtest", "abtest/1"
SOURCE = "short_video_world"
BY_THEMSELVES = ("oracle", "random", "logging")
"""Arms that need no work directory: who knows people's tastes, anything, and the system that wrote the log."""
ARMS = (*NAMES, *BY_THEMSELVES)
LANES = ("split", "shadow")


def open_world(workdir: Path, plan: Plan) -> System:
    """The work directory whose systems are compared. BadInput or StaleArtifact where it cannot serve the plan."""
    for arm in plan.arms:
        if arm not in ARMS:
            raise BadInput(f"arm {arm!r}, expected one of {', '.join(ARMS)}")
    if plan.refresh and not set(plan.arms) & set(NAMES):
        raise BadInput(f"refresh = {plan.refresh}, but none of the arms {', '.join(plan.arms)} has a model to train")
    system = open_system(workdir)
    if system.fitted.verified:
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
    ground = Ground.of(World.build(config.world), system.log.long_play.label)
    people, needed = len(ground.world.users), require_people(plan, ground.past, force)
    shown = f"{100 * plan.foreseen:g} % in {METRICS[plan.decided_by].title}"
    console.log(f"{people:,} people; {needed:,} needed to show {shown}")
    with artifacts.writing(out, claim, SCHEMA, keep_partial=True) as partial:
        split, shadow = _lanes(plan, system, ground, partial, retrain)
        _live(plan, split, shadow, workdir)
        abtest_report.write(partial, judge(plan, split, shadow, ground.past))
        for lane in LANES:
            shutil.rmtree(partial / lane, ignore_errors=True)  # what a killed run would have carried on from
    return out


def _live(plan: Plan, split: Lane, shadow: Lane | None, workdir: Path) -> None:
    """Where two lanes may have a core each, the shadow is another process."""
    if shadow is None or jax.default_backend() != "cpu" or (os.cpu_count() or 1) < 2:
        live_through(plan, split, shadow)
        return
    live_together(plan, split)
    shadow.share_days(split, plan.aa_days)
    with Beside("shadow lane's", _live_shadow, plan, workdir, shadow.directory) as beside:
        live_split(plan, split, beside.check)
        beside.wait()
    shadow.carry_on()  # reads what the other process has lived


def _live_shadow(plan: Plan, workdir: Path, directory: Path) -> None:
    console.silence_libraries()
    system = open_world(workdir, plan)
    world = World.build(system.config.world)
    live_shadow(plan, _shadow(plan, system, world, world.start(), directory))  # the state of its last day is read there


def _lanes(plan: Plan, system: System, ground: Ground, place: Path, retrain: Retrain) -> tuple[Lane, Lane | None]:
    world, state = ground.world, ground.state
    served = {arm: number for number, arm in enumerate(plan.arms) if arm in NAMES}
    if plan.refresh and served:
        knobs = {"past": ground.logs, "alike": plan.aa_days, "every": plan.refresh}
        knobs |= {"directory": place / LANES[0] / "models", "retrain": retrain}
        platform = RefreshedPlatforms(system, world, plan.arm_of(world), served, **knobs)
    else:
        platform = Platform(system, world) if served else None
    split = Lane(world, platform, place / LANES[0], ground.long_plays, _server(plan.arms), state)
    return split, _shadow(plan, system, world, state, place / LANES[1]) if plan.shared_luck else None


def _shadow(plan: Plan, system: System, world: World, state: WorldState, directory: Path) -> Lane:
    """Its models stay as they are: what it is for is people's luck."""
    platform = Platform(system, world) if plan.arms[0] in NAMES else None
    return Lane(world, platform, directory, system.log.long_play.label, _server(plan.arms[:1]), state)


def _server(arms: tuple[str, ...]) -> Serve:
    def serve(lane: Lane, arm_U: np.ndarray | None) -> SearchSystem:
        arm_U = np.zeros(len(lane.world.users), np.int8) if arm_U is None else arm_U
        return Split({n: _system(arms[n], lane) for n in np.unique(arm_U).tolist()}, arm_U)

    return serve


def _system(arm: str, lane: Lane) -> SearchSystem:
    world = lane.world
    if arm in NAMES:
        return lane.platform.served(arm)
    return {"oracle": Knowing(world, lane.state), "random": Anything(world), "logging": world.logging}[arm]
