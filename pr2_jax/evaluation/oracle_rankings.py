"""Oracle rankings of a simulated log: an oracle policy ranks by the true click probability."""

from __future__ import annotations

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.evaluation.rankings import Ranking, Rankings
from pr2_jax.search.system import System
from pr2_jax.simulation.oracle import Oracle, oracle_of
from pr2_jax.simulation.world import World
from pr2_jax.types import NO_VIDEO


def oracle_rankings(system: System, config: Config, rankings: Rankings) -> dict[str, Ranking]:
    """`pipeline.oracle` and `slate.oracle` of a day; empty for a real log, which has no oracle, and for a log that was
    rewritten (`world.refind_share`)."""
    if config.data.source != "short_video_world" or config.world.refind_share:
        return {}
    store, day, slates = system.store, rankings.day, rankings.slates
    raw_S = np.asarray(store.sessions.raw_id)
    oracle = _simulated(config, raw_S[day.all_sessions])
    found = np.searchsorted(oracle.session_B, raw_S[day.sessions])
    ids_SxK = np.where(oracle.video_BxK[found] >= 0, store.video_rows(oracle.video_BxK[found]), NO_VIDEO)
    chance_SxK = np.where(ids_SxK > 0, oracle.chance_BxK[found], -np.inf).astype(np.float32)
    for row, seen in enumerate(day.requests.seen):  # empty where nothing is withheld, as for every other ranking
        gone = np.isin(ids_SxK[row], seen)
        ids_SxK[row, gone], chance_SxK[row, gone] = NO_VIDEO, -np.inf
    order = np.argsort(-chance_SxK, axis=1, kind="stable")[:, : config.search.candidates]
    catalogue = Ranking(np.take_along_axis(ids_SxK, order, 1), np.take_along_axis(chance_SxK, order, 1))

    # Shown results are ranked by attraction: P(click | examined).
    rows = np.searchsorted(oracle.session_B, raw_S[slates.session_N])
    shown_NxS = np.where(oracle.shown_BxS[rows] >= 0, store.video_rows(oracle.shown_BxS[rows]), NO_VIDEO)
    same_NxSxK = slates.video_NxS[:, :, None] == shown_NxS[:, None, :]
    score_NxS = np.where(same_NxSxK, oracle.attraction_BxS[rows][:, None, :], 0).max(-1)
    slate = Ranking(slates.video_NxS, score_NxS.astype(np.float32), of_shown=True)
    return {"pipeline.oracle": catalogue, "slate.oracle": slate}


def _simulated(config: Config, sessions: np.ndarray) -> Oracle:
    """The oracle of the days with any of these sessions, sorted: the world is stepped again from its seed."""
    world, found = World.build(config.world), []
    state = world.start()
    for _ in console.progress(range(config.world.days), "simulate again", unit=" days"):
        after, log = world.step_day(state)
        if np.isin(log.searches.session_B, sessions).any():
            found.append(oracle_of(world, state, log))
        state = after
    joined = Oracle.joined(found)
    return joined.take(np.argsort(joined.session_B))
