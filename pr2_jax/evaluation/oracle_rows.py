"""In the simulated world: the row that knows everything, to say how much of what can be gained was gained."""

from __future__ import annotations

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches.slates import Slates
from pr2_jax.evaluation.rankings import Answers, Ranking
from pr2_jax.search.system import System
from pr2_jax.simulation.oracle import Oracle, oracle_of
from pr2_jax.simulation.world import World
from pr2_jax.types import NO_VIDEO

SOURCE = "short_video_world"


def oracle_rankings(system: System, config: Config, given: Answers) -> dict[str, Ranking]:
    """`pipeline.oracle` and `slate.oracle` of a day; nothing for a real log, where nobody knows, nor for one that was
    rewritten (`world.refind_share`)."""
    if config.data.source != SOURCE or config.world.refind_share:
        return {}
    store, day = system.store, given.day
    raw_S = np.asarray(store.sessions.raw_id)
    known = Oracle.joined(_days(config, raw_S[day.all_sessions]))
    oracle = known.take(np.argsort(known.session_B))
    found = _rows_of(oracle.session_B, raw_S[day.sessions])
    ids_SxK = np.where(oracle.video_BxK[found] >= 0, store.video_rows(oracle.video_BxK[found]), NO_VIDEO)
    chance_SxK = np.where(ids_SxK > 0, oracle.chance_BxK[found], -np.inf).astype(np.float32)
    for row, seen in enumerate(day.requests.seen):  # nothing where nothing is withheld, as for every other ranking
        gone = np.isin(ids_SxK[row], seen)
        ids_SxK[row, gone], chance_SxK[row, gone] = NO_VIDEO, -np.inf
    order = np.argsort(-chance_SxK, axis=1, kind="stable")[:, : config.search.candidates]
    catalogue = Ranking(np.take_along_axis(ids_SxK, order, 1), np.take_along_axis(chance_SxK, order, 1))
    return {"pipeline.oracle": catalogue, "slate.oracle": _slates(system, oracle, given.slates, raw_S)}


def _days(config: Config, sessions: np.ndarray) -> list[Oracle]:
    world, found = World.build(config.world), []
    state = world.start()
    for _ in console.progress(range(config.world.days), "simulate again", unit=" days"):
        after, log = world.step_day(state)
        if np.isin(log.searches.session_B, sessions).any():
            found.append(oracle_of(world, state, log))
        state = after
    return found


def _rows_of(session_B: np.ndarray, wanted_S: np.ndarray) -> np.ndarray:
    return np.searchsorted(session_B, wanted_S)


def _slates(system: System, oracle: Oracle, slates: Slates, raw_S: np.ndarray) -> Ranking:
    """What was shown, by how attractive it was to this person for this search."""
    rows = _rows_of(oracle.session_B, raw_S[slates.session_N])
    shown_NxS = np.where(oracle.shown_BxS[rows] >= 0, system.store.video_rows(oracle.shown_BxS[rows]), NO_VIDEO)
    same_NxSxK = slates.video_NxS[:, :, None] == shown_NxS[:, None, :]
    score_NxS = np.where(same_NxSxK, oracle.attraction_BxS[rows][:, None, :], 0).max(-1)
    return Ranking(slates.video_NxS, score_NxS.astype(np.float32), of_shown=True)
