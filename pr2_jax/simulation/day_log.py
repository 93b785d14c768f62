"""What happened on one simulated day, in rows of the simulation."""

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
    need_B: np.ndarray  # int32 number of the need within the day; one asked again in other words has several rows
    retry_B: np.ndarray  # int8, 0 = first asked, 1 = once again, ...


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
    """One day: the people as they were on it, and what they did."""

    day: int
    users: Users
    searches: Searches
    views: Views
    visited_U: np.ndarray  # bool, who opened the app
    need_user_M: np.ndarray  # int32, whose the day's needs to search were
    joy_M: np.ndarray  # float64, what came of them

    def of(self, kept_U: np.ndarray) -> DayLog:
        """What some of the people searched and watched; the rest is as it was."""
        searches, views = self.searches, self.views
        return dataclasses.replace(
            self,
            searches=searches.take(np.flatnonzero(kept_U[searches.user_B])),
            views=views.take(np.flatnonzero(kept_U[views.user_N])),
        )
