"""Re-finding: rewrites the simulated log so that people repeat earlier queries and click the same video again.

The simulated platform never shows a video again that the person clicked before. The log is therefore rewritten after
the simulation, and all random draws stay the same. Some searches are replaced by a search of an earlier day, with its
words and results and one click on a video clicked then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pr2_jax.simulation.counter_rng import CounterRng, sample_in_groups
from pr2_jax.simulation.day_log import DayLog, Searches
from pr2_jax.simulation.users import Responses
from pr2_jax.simulation.world import World

_STREAM = 6
_LEAST_PLAYED = 0.5
"""Share of a re-found video that is played at least."""


def with_refinds(world: World, logs: Sequence[DayLog], share: float) -> list[DayLog]:
    """Replaces this share of the searches of people who clicked a result on an earlier day."""
    out: list[DayLog] = []
    for log in logs:
        if out:
            past = Searches.joined([before.searches for before in out])
            rng = CounterRng.of(world.config.seed, _STREAM, log.day)
            log = dataclasses.replace(log, searches=_rewritten(world, past, log.searches, share, rng))
        out.append(log)
    return out


def _rewritten(world: World, past: Searches, today: Searches, share: float, rng: CounterRng) -> Searches:
    """One day's searches; `past`: the rewritten searches of all days before."""
    row_F, place_F = np.nonzero(past.responses.click_BxS)
    draw_Bx3 = rng.draw(3, today.session_B)
    find_B = sample_in_groups(past.user_B[row_F], today.user_B, draw_Bx3[:, 1])
    rows = np.flatnonzero((draw_Bx3[:, 0] < share) & (find_B >= 0))
    old, place = past.take(row_F[find_B[rows]]), place_F[find_B[rows]]
    column_S, at = np.arange(today.slates_BxS.shape[1]), (np.arange(len(rows)), place)
    answer = Responses(**{name: np.zeros_like(x) for name, x in vars(old.responses).items()})
    answer.examined_BxS[:] = column_S <= place[:, None]
    answer.click_BxS[at] = True
    played_N = _LEAST_PLAYED + (1 - _LEAST_PLAYED) * draw_Bx3[rows, 2]
    answer.play_ms_BxS[at] = world.catalogue.duration_ms_V[old.slates_BxS[at]] * played_N
    found = dataclasses.replace(today.take(rows), queries=old.queries, slates_BxS=old.slates_BxS, responses=answer)
    source_B = np.arange(len(today))
    source_B[rows] = len(today) + np.arange(len(rows))
    return Searches.joined([today, found]).take(source_B)
