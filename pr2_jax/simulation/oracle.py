"""What nobody but the simulation can know: the chance that a search of the log ended in a click on a video.

A click in the log needs two things: that the logging engine showed the video, and that this person, at that moment,
wanted it. Both are known here up to the draws of the day, so that no ranking can expect a better NDCG on this log.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.logging_policies import SearchRequests
from pr2_jax.simulation.users import attraction
from pr2_jax.simulation.world import DayLog, World, WorldState

DEPTH = 256
"""Videos of the best expected score that may be shown at all."""
DRAWS = 200
"""Of the engine's noise."""
BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Oracle(RowRecord):
    """Searches of a day in raw ids: K videos each and the chance of a click, of the whole catalogue and as shown."""

    session_B: np.ndarray  # int64
    video_BxK: np.ndarray  # int64, -1 = padding
    chance_BxK: np.ndarray  # float32, 0 for padding
    shown_BxS: np.ndarray  # int64, -1 = padding
    attraction_BxS: np.ndarray  # float32, P(click | looked at) of what was shown


def oracle_of(world: World, state: WorldState, log: DayLog) -> Oracle:
    """Of the searches of one day; `state` is what the day began with."""
    s, raw_V = log.searches, world.catalogue.raw_id_V
    requests = SearchRequests(
        log.day, s.user_B, s.queries.words_BxQ, s.time_ms_B, state.popularity_V, state.engaged, log.views
    )
    video_BxK, score_BxK = world.logging.expected(requests, DEPTH)
    glance_S = (1.0 + np.arange(world.config.slate)) ** -world.config.people.position_decay
    rng = np.random.default_rng(0)
    looked_BxK = np.concatenate(
        [
            _looked(score_BxK[start : start + BLOCK], world.config.logging.noise, glance_S, rng)
            for start in range(0, len(score_BxK), BLOCK)
        ]
    )

    def wanted(slates_BxS: np.ndarray) -> np.ndarray:
        people = log.users.take(s.user_B)
        return attraction(world.config.people, world.catalogue, world.vocabulary, people, s.queries, slates_BxS)

    def raw(rows_BxK: np.ndarray) -> np.ndarray:
        return np.where(rows_BxK >= 0, raw_V[rows_BxK], -1)

    chance_BxK = np.where(video_BxK >= 0, looked_BxK * wanted(video_BxK), 0).astype(np.float32)
    return Oracle(s.session_B, raw(video_BxK), chance_BxK, raw(s.slates_BxS), wanted(s.slates_BxS))


def _looked(score_BxK: np.ndarray, noise: float, glance_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chance that a video is shown and looked at, over the engine's noise; -inf scores are never shown."""
    total_BxK, rows_Bx1 = np.zeros(score_BxK.shape), np.arange(len(score_BxK))[:, None]
    slate = min(len(glance_S), score_BxK.shape[1])
    for _ in range(DRAWS):
        drawn_BxK = score_BxK + noise * rng.normal(size=score_BxK.shape)
        shown_BxS = np.argpartition(-drawn_BxK, slate - 1, axis=1)[:, :slate]
        order_BxS = np.argsort(-np.take_along_axis(drawn_BxK, shown_BxS, 1), axis=1)
        total_BxK[rows_Bx1, np.take_along_axis(shown_BxS, order_BxS, 1)] += glance_S[:slate]
    return np.where(np.isfinite(score_BxK), total_BxK / DRAWS, 0)
