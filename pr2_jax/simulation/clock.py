"""Clock of the simulated platform: days, activity by hour and weekday."""

from __future__ import annotations

import datetime

import numpy as np

from pr2_jax.config import WorldConfig
from pr2_jax.data.schema import DAY_MS
from pr2_jax.simulation.counter_rng import choose
from pr2_jax.simulation.day_log import BEIJING_MS

HOUR_MS = 3_600_000
_HOURS = np.array((9, 5, 3, 2, 2, 3, 6, 10, 12, 13, 14, 16, 20, 18, 14, 13, 14, 16, 20, 24, 28, 29, 24, 16.0))
_WEEKDAYS = (1.0, 0.98, 1.0, 1.02, 1.06, 1.16, 1.12)  # activity by weekday, Monday first


def day_start_ms(config: WorldConfig, day: int) -> int:
    """Midnight of a day, Beijing time; day 0 is the first."""
    first = datetime.datetime.fromisoformat(config.start).replace(tzinfo=datetime.UTC)
    return int(first.timestamp() * 1000) - BEIJING_MS + day * DAY_MS


def activity(config: WorldConfig, day: int) -> float:
    """Factor of the weekday on what people do; 1 on a Monday."""
    return _WEEKDAYS[(datetime.date.fromisoformat(config.start).weekday() + day) % 7]


def moments(config: WorldConfig, day: int, draw_Nx2: np.ndarray) -> np.ndarray:
    """int64 [N] ms: times within a day, from two draws each."""
    hour_N = choose(_HOURS, draw_Nx2[:, 0]) + draw_Nx2[:, 1]
    return day_start_ms(config, day) + (hour_N * HOUR_MS).astype(np.int64)
