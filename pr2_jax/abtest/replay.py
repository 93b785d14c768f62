"""What experiments start from: a simulated platform at the end of its log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pr2_jax import console
from pr2_jax.abtest.experiment_metrics import LongPlays, counters_of
from pr2_jax.simulation.day_log import DayLog
from pr2_jax.simulation.world import World, WorldState

PAST_DAYS = 14
"""Of the log, for what is known of people beforehand."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """The log lived through again."""

    world: World
    state: WorldState  # as the log ended
    logs: Sequence[DayLog]
    past: Sequence[dict[str, np.ndarray]]  # counters of the log's last days
    long_plays: LongPlays

    @staticmethod
    def of(world: World, long_plays: LongPlays) -> Replay:
        state, logs, past = world.start(), [], []
        for day in console.progress(range(world.config.days), "the log's days again", unit=" days"):
            after, log = world.step_day(state)
            if day >= world.config.days - PAST_DAYS:
                past.append(counters_of(world, state, log, long_plays))
            logs.append(log)
            state = after
        return Replay(world, state, logs, past, long_plays)
