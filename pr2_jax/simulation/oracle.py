"""Oracle: the true probability that a search of the log ended in a click on a video.

A click needs two events: the logging system showed the video, and this person wanted it at that moment. Both
probabilities are known here up to the day's random draws, so no ranking can expect a better NDCG on this log.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.simulation.logging_policies import SearchRequests
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.world import DayLog, World, WorldState

DEPTH = 256
"""Videos of a search that are considered, by score without noise."""
DRAWS = 200
"""Monte Carlo draws of the logging system's noise."""
BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Oracle(RowRecord):
    """Click probabilities of a day's searches, in raw ids: of K candidates and of the shown results."""

    session_B: np.ndarray  # int64
    video_BxK: np.ndarray  # int64, -1 = padding
    chance_BxK: np.ndarray  # float32, 0 for padding
    shown_BxS: np.ndarray  # int64, -1 = padding
    attraction_BxS: np.ndarray  # float32, P(click | examined) of the shown results


def oracle_of(world: World, state: WorldState, log: DayLog) -> Oracle:
    """The oracle of one day's searches; `state`: as the day began."""
    s, raw_V = log.searches, world.catalogue.raw_id_V
    video_BxK, score_BxK = world.logging.expected(requests_of(state, log), DEPTH)
    glance_S = (1.0 + np.arange(world.config.slate)) ** -world.config.people.position_decay
    rng = np.random.default_rng(0)
    blocks = np.split(score_BxK, range(BLOCK, len(score_BxK), BLOCK))
    examined_BxK = np.concatenate([_examined(x, world.config.logging.noise, glance_S, rng) for x in blocks])
    people = log.users.take(s.user_B)

    def raw(rows_BxK: np.ndarray) -> np.ndarray:
        return np.where(rows_BxK >= 0, raw_V[rows_BxK], -1)

    attraction_BxK = world.attraction(people, s.queries, video_BxK)
    chance_BxK = np.where(video_BxK >= 0, examined_BxK * attraction_BxK, 0).astype(np.float32)
    shown_attraction_BxS = world.attraction(people, s.queries, s.slates_BxS)
    return Oracle(s.session_B, raw(video_BxK), chance_BxK, raw(s.slates_BxS), shown_attraction_BxS)


def requests_of(state: WorldState, log: DayLog) -> SearchRequests:
    """The requests of a finished day, as the logging system received them."""
    s, known = log.searches, (state.popularity_V, state.engaged, log.views)
    return SearchRequests(log.day, s.user_B, s.queries.words_BxQ, s.time_ms_B, *known)


def _examined(score_BxK: np.ndarray, noise: float, glance_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """P(shown and examined) over the logging system's noise; videos of score -inf are never shown."""
    total_BxK, rows_Bx1 = np.zeros(score_BxK.shape), np.arange(len(score_BxK))[:, None]
    slate = min(len(glance_S), score_BxK.shape[1])
    for _ in range(DRAWS):
        drawn_BxK = score_BxK + noise * rng.normal(size=score_BxK.shape)
        shown_BxS = np.argpartition(-drawn_BxK, slate - 1, axis=1)[:, :slate]
        order_BxS = np.argsort(-np.take_along_axis(drawn_BxK, shown_BxS, 1), axis=1)
        total_BxK[rows_Bx1, np.take_along_axis(shown_BxS, order_BxS, 1)] += glance_S[:slate]
    return np.where(np.isfinite(score_BxK), total_BxK / DRAWS, 0)
