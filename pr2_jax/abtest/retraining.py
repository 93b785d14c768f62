"""Retraining during an experiment: every few days each arm's models are trained on the arm's own log.

Before the arms begin, an arm's log is that of the whole platform. Then it holds the arm's own people alone, so that a
model learns from what it showed. The last two days of that log are held out for training.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pr2_jax.abtest.live_system import Platform, Served
from pr2_jax.search.system import System
from pr2_jax.simulation.day_log import DayLog
from pr2_jax.simulation.world import World
from pr2_jax.simulation.world_tables import write_tables

Retrain = Callable[[Path, Callable[[Path], None]], System]
"""(directory, who writes a log's tables to a path): all models trained on them, opened from that directory. What is
finished there is not made again."""


@dataclasses.dataclass
class RetrainedSystems:
    """In place of one platform: one an arm, whose models follow its own log every `every` days."""

    system: System
    world: World
    arm_U: np.ndarray
    arms: Mapping[str, int]  # numbers in `arm_U` of those that models serve
    past: Sequence[DayLog]  # the log's days
    alike: int  # days after them that all arms share
    every: int
    directory: Path
    retrain: Retrain

    def __post_init__(self) -> None:
        self._days: list[DayLog] = []
        self._platforms = {arm: Platform(self.system, self.world) for arm in self.arms}
        self._trained_on = dict.fromkeys(self.arms, 0)  # days, 0 = the models that the experiment began with

    def served(self, arm: str) -> Served:
        """An arm as it stands today; trains first where it is time to."""
        apart = len(self._days) - self.alike
        due = self.alike + apart // self.every * self.every if apart >= self.every else 0
        if due != self._trained_on[arm]:
            self._renew(arm, due)
        return self._platforms[arm].served(arm)

    def add(self, log: DayLog) -> None:
        for arm, platform in self._platforms.items():
            platform.add(self._own(arm, len(self._days), log))
        self._days.append(log)

    def _own(self, arm: str, day: int, log: DayLog) -> DayLog:
        return log if day < self.alike else log.of(self.arm_U == self.arms[arm])

    def _renew(self, arm: str, days: int) -> None:
        own = [self._own(arm, day, log) for day, log in enumerate(self._days)]
        name = arm.strip("+").replace("+", "_")
        place = self.directory / f"{name}.{days:03d}"
        seed = np.random.SeedSequence(entropy=self.world.config.seed, spawn_key=(6, days))
        learnt = [*self.past, *own[:days]]
        system = self.retrain(place, lambda path: write_tables(path, self.world, learnt, seed))
        platform = Platform(system, self.world)
        for log in own[days:]:
            platform.add(log)
        self._platforms[arm], self._trained_on[arm] = platform, days
        for older in self.directory.glob(f"{name}.*"):
            if older != place:
                shutil.rmtree(older)
