"""What only the simulation knows: true relevance and affinity of every shown result, for an oracle row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from pr2_jax.simulation.users import attraction
from pr2_jax.simulation.world import DayLog, World


@dataclasses.dataclass(frozen=True)
class ShownTruth:
    """N shown results in the order of src_inter.csv (other types left out), in raw ids."""

    session_N: np.ndarray  # int64
    item_N: np.ndarray  # int64
    relevance_N: np.ndarray  # float32 in [0, 1]
    affinity_N: np.ndarray  # float32 in (0, 1)
    attraction_N: np.ndarray  # float32, P(click | looked at) = relevance x affinity x quality


def shown_truth(world: World, logs: Iterable[DayLog]) -> ShownTruth:
    """The truth of all results shown on these days; `world.simulate()` gives the days of a written log again."""
    parts = []
    for log in logs:
        searches = log.searches
        users, slates_BxS = log.users.take(searches.user_B), searches.slates_BxS
        values = (
            world.true_relevance(searches.queries, slates_BxS),
            world.true_affinity(users, slates_BxS, searches.queries.intent_B),
            attraction(world.config.people, world.catalogue, world.vocabulary, users, searches.queries, slates_BxS),
        )
        at = np.nonzero(slates_BxS >= 0)
        parts.append((searches.session_B[at[0]], world.catalogue.raw_id_V[slates_BxS[at]], *(v[at] for v in values)))
    return ShownTruth(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True)
class WorldReport:
    """Counts, rates and the slate NDCG@10 of orders that only the truth knows (sessions with a click)."""

    sessions: int
    shown: int
    views: int
    clicks_per_session: float
    sessions_with_click: float
    clicked_by_day: tuple[int, ...]
    feed_click_rate: float
    like_rate: float
    follow_rate: float
    ndcg_random: float
    ndcg_relevance: float
    ndcg_affinity: float
    ndcg_relevance_affinity: float
    ndcg_attraction: float

    def __str__(self) -> str:
        lines = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lines.append(f"{field.name:>24}  {value:.3f}" if isinstance(value, float) else f"{field.name:>24}  {value}")
        return "\n".join(lines)


def describe(world: World, logs: Iterable[DayLog]) -> WorldReport:
    """Returns how a simulated log looks and how much there is to gain by knowing people."""
    logs = list(logs)
    truth = shown_truth(world, logs)
    slates_BxS = np.concatenate([log.searches.slates_BxS for log in logs])
    click_BxS = np.concatenate([log.searches.responses.click_BxS for log in logs])
    feed_click_N = np.concatenate([log.views.click_N for log in logs])
    random_N = np.random.default_rng(0).random(len(truth.item_N))
    quality = {}
    for name, score_N in (
        ("random", random_N),
        ("relevance", truth.relevance_N),
        ("affinity", truth.affinity_N),
        ("relevance_affinity", truth.relevance_N * truth.affinity_N),
        ("attraction", truth.attraction_N),
    ):
        score_BxS = np.full(slates_BxS.shape, -np.inf)
        score_BxS[slates_BxS >= 0] = score_N
        quality[f"ndcg_{name}"] = slate_ndcg(score_BxS, click_BxS)
    return WorldReport(
        sessions=len(click_BxS),
        shown=len(truth.item_N),
        views=len(feed_click_N),
        clicks_per_session=float(click_BxS.sum(axis=1).mean()),
        sessions_with_click=float(click_BxS.any(axis=1).mean()),
        clicked_by_day=tuple(int(log.searches.responses.click_BxS.any(axis=1).sum()) for log in logs),
        feed_click_rate=float(feed_click_N.mean()),
        like_rate=float(np.concatenate([log.views.like_N for log in logs]).mean()),
        follow_rate=float(np.concatenate([log.views.follow_N for log in logs]).mean()),
        **quality,
    )


def slate_ndcg(score_BxS: np.ndarray, click_BxS: np.ndarray) -> float:
    """Returns NDCG of the whole slates reordered by score, over those with a click. Scores are taken as distinct."""
    order_BxS = np.argsort(-score_BxS, axis=1, kind="stable")
    discount_S = 1 / np.log2(np.arange(2, click_BxS.shape[1] + 2))
    gain_B = (np.take_along_axis(click_BxS, order_BxS, axis=1) * discount_S).sum(axis=1)
    ideal_B = np.concatenate([[0.0], np.cumsum(discount_S)])[click_BxS.sum(axis=1)]
    return float((gain_B[ideal_B > 0] / ideal_B[ideal_B > 0]).mean())
