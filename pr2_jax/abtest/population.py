"""A lane: one population that lives through an experiment day by day, whoever serves it.

Each finished day is kept: what it counted, what happened (for the growing log), and the state that it left. A killed
run carries on after the last whole day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pr2_jax import artifacts
from pr2_jax.abtest.experiment_metrics import LongPlays, counters_of
from pr2_jax.abtest.live_system import Platform
from pr2_jax.abtest.retraining import RetrainedSystems
from pr2_jax.abtest.state_io import flat, load, restored, save
from pr2_jax.simulation.day_log import DayLog
from pr2_jax.simulation.logging_policies import SearchSystem
from pr2_jax.simulation.world import World, WorldState

Serve = Callable[["Population", np.ndarray | None], SearchSystem]
"""(lane, arm of each person; None = all are on control): who serves there on the lane's next day."""


@dataclasses.dataclass
class Population:
    """`directory` holds a file a finished day; without one a lane lives in memory alone."""

    world: World
    platform: Platform | RetrainedSystems | None  # None where no arm reads a log
    directory: Path | None
    long_plays: LongPlays
    serve: Serve
    state: WorldState
    days: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)  # counters, a day each

    def carry_on(self) -> int:
        """Reads the days that are finished already, and says how many."""
        if self.days or self.directory is None:
            return len(self.days)
        self.directory.mkdir(parents=True, exist_ok=True)
        while (path := self._file(len(self.days))).exists():
            with artifacts.reading(path, "pr2 abtest"):
                kept = load(path)
                self.state, log = restored(WorldState, kept, "state."), restored(DayLog, kept, "log.")
            if self.platform is not None:
                self.platform.add(log)
            self.days.append({n.removeprefix("counted."): x for n, x in kept.items() if n.startswith("counted.")})
        return len(self.days)

    def share_days(self, other: Population, days: int) -> None:
        """Takes the first days that another lane has lived as its own: they were the same."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for day in range(days):
            if not self._file(day).exists():
                artifacts.link_or_copy(other._file(day), self._file(day))

    def fork(self) -> Population:
        """Another lane with the same past, in memory; of one without a platform."""
        return dataclasses.replace(self, directory=None, days=list(self.days))

    def live(self, arm_U: np.ndarray | None) -> None:
        """One more day."""
        after, log = self.world.step_day(self.state, self.serve(self, arm_U))
        counted = counters_of(self.world, self.state, log, self.long_plays)
        if self.directory is not None:
            kept = {f"counted.{name}": value for name, value in counted.items()}
            save(self._file(len(self.days)), kept | flat(after, "state.") | flat(log, "log."))
        if self.platform is not None:
            self.platform.add(log)
        self.state = after
        self.days.append(counted)

    def _file(self, day: int) -> Path:
        return self.directory / f"day_{day:03d}.npz"
