"""Log of one simulated day, in rows of the simulation, and the clock: days, activity by hour and weekday."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
from scipy.stats import poisson

from pr2_jax.config import WorldConfig
from pr2_jax.data.schema import DAY_MS
from pr2_jax.simulation.counter_rng import CounterRng, choose
from pr2_jax.simulation.queries import Queries
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.users import ClickModel, Responses, Users

BEIJING_MS = 8 * 3_600_000
"""The platform's days begin at midnight of UTC+8."""

SOURCES = ("USER_INPUT", "RELATED_SEARCH", "HISTORY")


@dataclasses.dataclass(frozen=True)
class Searches(RowRecord):
    """B search sessions of a day, ascending in time; slate S."""

    session_B: np.ndarray  # int64 ids
    user_B: np.ndarray  # int32
    time_ms_B: np.ndarray  # int64
    source_B: np.ndarray  # int8, row of SOURCES
    queries: Queries
    slates_BxS: np.ndarray  # int32, -1 = nothing shown
    responses: Responses
    need_B: np.ndarray  # int32 number of the need within the day; a reformulated one has several rows
    retry_B: np.ndarray  # int8, number of the reformulation, 0 = first query


@dataclasses.dataclass(frozen=True)
class Views(RowRecord):
    """N feed views of a day, ascending in time."""

    user_N: np.ndarray  # int32
    video_N: np.ndarray  # int32
    time_ms_N: np.ndarray  # int64
    play_ms_N: np.ndarray  # int64
    click_N: np.ndarray  # bool, as the five below
    like_N: np.ndarray
    follow_N: np.ndarray
    forward_N: np.ndarray
    search_N: np.ndarray
    related_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class DayLog:
    """One day: the state of the people and their actions."""

    day: int
    users: Users
    searches: Searches
    views: Views
    visited_U: np.ndarray  # bool, opened the app
    need_user_M: np.ndarray  # int32, the person of each need to search
    joy_M: np.ndarray  # float64, the joy of each need

    def of(self, kept_U: np.ndarray) -> DayLog:
        """The day with the searches and views of some people only."""
        searches, views = self.searches, self.views
        return dataclasses.replace(
            self,
            searches=searches.take(np.flatnonzero(kept_U[searches.user_B])),
            views=views.take(np.flatnonzero(kept_U[views.user_N])),
        )


HOUR_MS = 3_600_000
_HOURS = np.array((9, 5, 3, 2, 2, 3, 6, 10, 12, 13, 14, 16, 20, 18, 14, 13, 14, 16, 20, 24, 28, 29, 24, 16.0))
_WEEKDAYS = (1.0, 0.98, 1.0, 1.02, 1.06, 1.16, 1.12)  # activity by weekday, Monday first


def day_start_ms(config: WorldConfig, day: int) -> int:
    """Midnight of a day, Beijing time; day 0 is the first."""
    first = datetime.datetime.fromisoformat(config.start).replace(tzinfo=datetime.UTC)
    return int(first.timestamp() * 1000) - BEIJING_MS + day * DAY_MS


@dataclasses.dataclass(frozen=True)
class SimulatedDay:
    """What the feed and the searches of a day share. The first child of `rng` counts the occasions."""

    model: ClickModel
    day: int
    rng: CounterRng

    def occasions(self, rate_U: np.ndarray, visited_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Person (int32 [N]) and number within that person's day (int64 [N]) of each occasion. `rate_U`: the expected
        number on a Monday with a visit."""
        monday = datetime.date.fromisoformat(self.model.config.start).weekday()
        activity, people = _WEEKDAYS[(monday + self.day) % 7], np.arange(len(rate_U))
        count_U = poisson.ppf(self.rng.child(0).draw(1, people)[:, 0], rate_U * activity * visited_U).astype(np.int64)
        user_N = np.repeat(people.astype(np.int32), count_U)
        return user_N, np.arange(len(user_N)) - np.repeat(np.cumsum(count_U) - count_U, count_U)

    def moments(self, draw_Nx2: np.ndarray) -> np.ndarray:
        """int64 [N] ms: times within the day, from two draws each."""
        hour_N = choose(_HOURS, draw_Nx2[:, 0]) + draw_Nx2[:, 1]
        return day_start_ms(self.model.config, self.day) + (hour_N * HOUR_MS).astype(np.int64)
