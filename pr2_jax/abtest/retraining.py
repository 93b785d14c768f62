"""Retraining during an experiment: every few days each arm's models are trained on the arm's own log.

Before the arms begin, an arm's log is that of the whole platform. Then it holds the arm's own people alone, so that a
model learns from what it showed. The last two days of that log are held out for training.
"""

from __future__ import annotations

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


class RetrainedSystems:
    """In place of one platform: one an arm, whose models follow its own log every `every` days."""

    def __init__(
        self,
        system: System,
        world: World,
        arm_U: np.ndarray,
        arms: Mapping[str, int],
        *,
        past: Sequence[DayLog],
        alike: int,
        every: int,
        directory: Path,
        retrain: Retrain,
    ) -> None:
        """`arms`: numbers in `arm_U` of those that models serve; `past`: the log's days; `alike`: days after them that
        all arms share."""
        self._world, self._arm_U, self._arms = world, arm_U, dict(arms)
        self._past, self._alike, self._every = list(past), alike, every
        self._directory, self._retrain = directory, retrain
        self._days: list[DayLog] = []
        self._platforms = {arm: Platform(system, world) for arm in arms}
        self._trained_on = dict.fromkeys(arms, 0)  # days, 0 = the models that the experiment began with

    def served(self, arm: str) -> Served:
        """An arm as it stands today; trains first where it is time to."""
        apart = len(self._days) - self._alike
        due = self._alike + apart // self._every * self._every if apart >= self._every else 0
        if due != self._trained_on[arm]:
            self._renew(arm, due)
        return self._platforms[arm].served(arm)

    def add(self, log: DayLog) -> None:
        for arm, platform in self._platforms.items():
            platform.add(self._own(arm, len(self._days), log))
        self._days.append(log)

    def _own(self, arm: str, day: int, log: DayLog) -> DayLog:
        return log if day < self._alike else log.of(self._arm_U == self._arms[arm])

    def _renew(self, arm: str, days: int) -> None:
        own = [self._own(arm, day, log) for day, log in enumerate(self._days)]
        name = arm.strip("+").replace("+", "_")
        place = self._directory / f"{name}.{days:03d}"
        seed = np.random.SeedSequence(entropy=self._world.config.seed, spawn_key=(6, days))
        learnt = [*self._past, *own[:days]]
        system = self._retrain(place, lambda path: write_tables(path, self._world, learnt, seed))
        platform = Platform(system, self._world)
        for log in own[days:]:
            platform.add(log)
        self._platforms[arm], self._trained_on[arm] = platform, days
        for older in self._directory.glob(f"{name}.*"):
            if older != place:
                shutil.rmtree(older)
