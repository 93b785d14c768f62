"""Replay of the log's days: the state, log and counters from which experiments start."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pr2_jax import console
from pr2_jax.abtest.experiment_metrics import LongPlays, daily_counters
from pr2_jax.simulation.day_log import DayLog
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
