"""What happened on one simulated day, in rows of the simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pr2_jax.simulation.queries import Queries
from pr2_jax.simulation.users import Responses, Users

BEIJING_MS = 8 * 3_600_000
"""The platform's days begin at midnight of UTC+8."""

SOURCES = ("USER_INPUT", "RELATED_SEARCH", "HISTORY")


@dataclasses.dataclass(frozen=True)
class Searches:
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

    def take(self, rows: np.ndarray) -> Searches:
        return Searches(*(x.take(rows) if dataclasses.is_dataclass(x) else x[rows] for x in vars(self).values()))

    @staticmethod
    def joined(parts: Sequence[Searches]) -> Searches:
        """One after another."""
        return _joined(list(parts))


@dataclasses.dataclass(frozen=True)
class Views:
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

    def take(self, rows: np.ndarray) -> Views:
        return Views(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @staticmethod
    def joined(parts: Sequence[Views]) -> Views:
        """One after another."""
        return _joined(list(parts))


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


def _joined(parts: list[Any]) -> Any:
    """Records of the same kind, column by column."""
    kind = type(parts[0])
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return kind(*(_joined(list(c)) if dataclasses.is_dataclass(c[0]) else np.concatenate(c) for c in columns))
