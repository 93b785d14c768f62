"""Log of one simulated day, in rows of the simulation."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.simulation.queries import Queries
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.users import Responses, Users

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
