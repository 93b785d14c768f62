"""Metrics of an experiment: ratios of counters per person and day."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pr2_jax.abtest.estimators import Ratio
from pr2_jax.simulation.day_log import DayLog
from pr2_jax.simulation.logging_policies import is_member
from pr2_jax.simulation.world import World, WorldState

TOP = 10
"""Results of a search that are counted."""
RETENTION_DAYS = (1, 7, 28)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A ratio of two counters, each summed over days and people."""

    title: str
    numerator: str
    denominator: str
    unit: str = ""
    better: int = 1  # -1 = less is better, 0 = neither
    lag_days: int = 0  # days until the metric of a day is known


METRICS = {
    "ctr": Metric(f"CTR@{TOP}", "clicks", "shown"),
    "watch": Metric("watch time per query", "watched_s", "searches", "s"),
    "long_play": Metric("long plays per click", "long_plays", "clicks"),
    "like": Metric("likes per click", "likes", "clicks"),
    "no_click": Metric("searches without a click", "unclicked", "searches", better=-1),
    "reformulated": Metric("searches asked again", "retries", "searches", better=-1),
    "searches": Metric("searches per person and day", "searches", "days"),
    "active": Metric("daily actives", "visits", "days"),
    **{f"day_{k}": Metric(f"day-{k} retention", f"returns_{k}", f"leavers_{k}", lag_days=k) for k in RETENTION_DAYS},
    "authors": Metric(f"distinct authors in the top {TOP}", "distinct_authors", "shown", better=0),
    "categories": Metric(f"distinct categories in the top {TOP}", "distinct_categories", "shown", better=0),
    "novelty": Metric("results by authors new to the person", "new_authors", "shown", better=0),
    "breadth": Metric("interests, effective number", "breadth", "days", better=0),
    "relevance": Metric("true relevance of what is shown", "relevance", "shown"),
    "joy": Metric("joy of a need", "joy", "needs"),
}
"""In the order of tables."""

LongPlays = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(play_ms, duration_ms): which plays are long."""


def daily_counters(world: World, state: WorldState, log: DayLog, long_plays: LongPlays) -> dict[str, np.ndarray]:
    """float64 [U] each: a day's counters except retention, which takes several days. `state`: as the day began."""
    s, people = log.searches, len(log.users)
    top_BxS = s.slates_BxS[:, :TOP]
    shown_BxS = top_BxS >= 0
    click_BxS = s.responses.click_BxS[:, :TOP] & shown_BxS
    play_ms_BxS = s.responses.play_ms_BxS[:, :TOP]
    long_BxS = click_BxS & long_plays(play_ms_BxS, world.catalogue.duration_ms_V[top_BxS])
    relevance_BxS = world.true_relevance(s.queries, s.slates_BxS)[:, :TOP]

    def per_person(value_B: np.ndarray) -> np.ndarray:
        return np.bincount(s.user_B, value_B, people)

    return {
        "days": np.ones(people),
        "visits": log.visited_U.astype(np.float64),
        "searches": per_person(np.ones(len(s.user_B))),
        "needs": per_person(s.retry_B == 0),
        "retries": per_person(s.retry_B > 0),
        "shown": per_person(shown_BxS.sum(axis=1)),
        "clicks": per_person(click_BxS.sum(axis=1)),
        "watched_s": per_person(np.where(click_BxS, play_ms_BxS, 0).sum(axis=1) / 1000),
        "long_plays": per_person(long_BxS.sum(axis=1)),
        "likes": per_person((s.responses.like_BxS[:, :TOP] & click_BxS).sum(axis=1)),
        "unclicked": per_person(~click_BxS.any(axis=1)),
        "distinct_authors": per_person(distinct(world.catalogue.creator_V[top_BxS], shown_BxS)),
        "distinct_categories": per_person(distinct(world.catalogue.subtopic_V[top_BxS], shown_BxS)),
        "new_authors": per_person((new_authors(world, state, s.user_B, top_BxS) & shown_BxS).sum(axis=1)),
        "breadth": effective_number(state.users.interest_UxG),
        "relevance": per_person(relevance_BxS.sum(axis=1)),
        "joy": np.bincount(log.need_user_M, log.joy_M, people),
    }


def distinct(value_BxS: np.ndarray, real_BxS: np.ndarray) -> np.ndarray:
    """int64 [B]: the number of different values in each row, padding left out."""
    sorted_BxS = np.sort(np.where(real_BxS, value_BxS, -1), axis=1)
    opens_BxS = np.concatenate([sorted_BxS[:, :1] >= 0, sorted_BxS[:, 1:] > sorted_BxS[:, :-1]], axis=1)
    return (opens_BxS & (sorted_BxS >= 0)).sum(axis=1)


def new_authors(world: World, state: WorldState, user_B: np.ndarray, video_BxS: np.ndarray) -> np.ndarray:
    """bool [B, S]: videos of authors of whom the person had watched nothing when the day began."""
    creators, videos = len(world.catalogue.creator_raw_C), len(world.catalogue)
    known = np.sort(state.engaged // videos * creators + world.catalogue.creator_V[state.engaged % videos])
    return ~is_member(known, user_B.astype(np.int64)[:, None] * creators + world.catalogue.creator_V[video_BxS])


def effective_number(interest_UxG: np.ndarray) -> np.ndarray:
    """float64 [U]: effective number of interests: the exponential of their entropy."""
    share_UxG = interest_UxG.astype(np.float64)
    share_UxG /= share_UxG.sum(axis=1, keepdims=True)
    return np.exp(-(share_UxG * np.log(np.maximum(share_UxG, 1e-12))).sum(axis=1))


def retention(visits_DxU: np.ndarray, first: int = 0) -> dict[str, np.ndarray]:
    """float64 [U] each: `leavers_k` counts visits that have a day k later, `returns_k` those with a visit on that day.

    The later day is row `first` or after it. Short experiments have none for large k.
    """
    out = {}
    for k in RETENTION_DAYS:
        later_DxU = visits_DxU[max(first, k) :] > 0
        came_DxU = visits_DxU[max(first - k, 0) :][: len(later_DxU)] > 0
        out[f"leavers_{k}"] = came_DxU.sum(axis=0).astype(np.float64)
        out[f"returns_{k}"] = (came_DxU & later_DxU).sum(axis=0).astype(np.float64)
    return out


def ratios(days: Sequence[Mapping[str, np.ndarray]], lead: Sequence[Mapping[str, np.ndarray]] = ()) -> dict[str, Ratio]:
    """Every metric over some days, person by person. `lead`: the days just before, whose visitors may return."""
    total = {name: np.sum([day[name] for day in days], axis=0) for name in days[0]}
    total |= retention(np.stack([day["visits"] for day in (*lead, *days)]), len(lead))
    return {name: Ratio(total[metric.numerator], total[metric.denominator]) for name, metric in METRICS.items()}
