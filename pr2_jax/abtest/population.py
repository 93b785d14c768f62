"""A simulated population in an experiment: it starts where the log ends and is stepped day by day under some system.

Each finished day is saved: its counters, its log (for the growing log of the live system) and the state after it. A
killed run resumes after the last saved day.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.abtest.experiment_metrics import LongPlays, daily_counters
from pr2_jax.abtest.live_system import Platform
from pr2_jax.abtest.policies import ArmRouter
from pr2_jax.abtest.retraining import RetrainedSystems
from pr2_jax.simulation.day_log import DayLog
from pr2_jax.simulation.logging_policies import SearchSystem
from pr2_jax.simulation.world import World, WorldState

PAST_DAYS = 14
"""The log's last days, whose counters become covariates."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """The simulated platform at the end of its log."""

    world: World
    state: WorldState
    logs: Sequence[DayLog]
    past: Sequence[dict[str, np.ndarray]]  # counters of the last PAST_DAYS
    long_plays: LongPlays

    @staticmethod
    def of(world: World, long_plays: LongPlays) -> Replay:
        """Simulates the log's days again; the same seed gives the same days."""
        state, logs, past = world.start(), [], []
        for day in console.progress(range(world.config.days), "the log's days again", unit=" days"):
            after, log = world.step_day(state)
            if day >= world.config.days - PAST_DAYS:
                past.append(daily_counters(world, state, log, long_plays))
            logs.append(log)
            state = after
        return Replay(world, state, logs, past, long_plays)


@dataclasses.dataclass
class Population:
    """`directory` holds one file a finished day; without it the days are in memory alone."""

    world: World
    platform: Platform | RetrainedSystems | None  # None where no arm reads a log
    directory: Path | None
    long_plays: LongPlays
    serve: Callable[[Population, int], SearchSystem]  # (population, arm): who serves that arm on the next day
    state: WorldState
    days: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)  # counters by day

    def resume(self) -> int:
        """Reads the saved days and returns their number."""
        if self.days or self.directory is None:
            return len(self.days)
        self.directory.mkdir(parents=True, exist_ok=True)
        while (path := self._file(len(self.days))).exists():
            with artifacts.reading(path, "pr2 abtest"):
                saved = load(path)
                self.state, log = from_arrays(WorldState, saved, "state."), from_arrays(DayLog, saved, "log.")
            if self.platform is not None:
                self.platform.add(log)
            self.days.append({n.removeprefix("counters."): x for n, x in saved.items() if n.startswith("counters.")})
        return len(self.days)

    def link_days(self, other: Population, days: int) -> None:
        """Takes over another population's first days, in which both were served alike."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for day in range(days):
            if not self._file(day).exists():
                artifacts.link_or_copy(other._file(day), self._file(day))

    def fork(self) -> Population:
        """Another population with the same past, in memory; only of one without a platform."""
        return dataclasses.replace(self, directory=None, days=list(self.days))

    def step(self, arm_U: np.ndarray | None = None) -> None:
        """Simulates one more day. `arm_U`: everybody's arm; None = all on control."""
        arm_U = np.zeros(len(self.world.users), np.int8) if arm_U is None else arm_U
        router = ArmRouter({arm: self.serve(self, arm) for arm in np.unique(arm_U).tolist()}, arm_U)
        after, log = self.world.step_day(self.state, router)
        counters = daily_counters(self.world, self.state, log, self.long_plays)
        if self.directory is not None:
            save(self._file(len(self.days)), to_arrays({"counters": counters, "state": after, "log": log}))
        if self.platform is not None:
            self.platform.add(log)
        self.state = after
        self.days.append(counters)

    def _file(self, day: int) -> Path:
        return self.directory / f"day_{day:03d}.npz"


Record = TypeVar("Record")


def to_arrays(record: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays by dotted field name of a dataclass or dictionary; nested ones are flattened."""
    out = {}
    for name, value in (record if isinstance(record, dict) else vars(record)).items():
        nested = isinstance(value, dict) or dataclasses.is_dataclass(value)
        out |= to_arrays(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": np.asarray(value)}
    return out


def from_arrays(kind: type[Record], arrays: dict[str, np.ndarray], prefix: str = "") -> Record:
    """The record of this kind that `to_arrays` flattened."""
    values = {}
    for name, inner in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(inner):
            values[name] = from_arrays(inner, arrays, f"{prefix}{name}.")
        else:
            value = arrays[f"{prefix}{name}"]
            values[name] = value if inner is np.ndarray else inner(value)
    return kind(**values)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the file atomically."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a saved file."""
    with path.open("rb") as file, np.load(file) as arrays:  # opened here: NumPy would leave a damaged one open
        return {name: arrays[name] for name in arrays.files}
