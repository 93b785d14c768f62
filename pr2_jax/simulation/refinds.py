"""A log in which people look for what they found before: earlier questions asked again, and the same video clicked.

The simulated platform never shows a video again that the person clicked up to yesterday. Here the log of its days is
rewritten afterwards, so that nobody's luck changes: what people click, like and come back for is as ever, and some of
their searches become the search of an earlier day once more, with its words and its results, of which they click one
that they clicked then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.day_log import DayLog, Searches
from pr2_jax.simulation.row_records import put
from pr2_jax.simulation.users import Responses

if TYPE_CHECKING:
    from pr2_jax.simulation.world import World

_STREAM = 6
_LEAST_PLAYED = 0.5
"""Of a video that somebody came back for."""


def with_refinds(world: World, logs: Sequence[DayLog], share: float) -> list[DayLog]:
    """The days with that share of the searches of people who have found something on an earlier day made anew."""
    out: list[DayLog] = []
    for log in logs:
        if out:
            past = Searches.joined([before.searches for before in out])
            luck = CounterRng.of(world.config.seed, _STREAM, log.day)
            log = dataclasses.replace(log, searches=_again(world, past, log.searches, share, luck))
        out.append(log)
    return out


def _again(world: World, past: Searches, today: Searches, share: float, luck: CounterRng) -> Searches:
    """One day's searches; `past` are those of all days before, as they were written."""
    row_F, place_F = np.nonzero(past.responses.click_BxS)
    order_F = np.argsort(past.user_B[row_F], kind="stable")
    row_F, place_F = row_F[order_F], place_F[order_F]
    low_B, high_B = (np.searchsorted(past.user_B[row_F], today.user_B, side=side) for side in ("left", "right"))
    draw_Bx3 = luck.draw(3, today.session_B)
    asked = np.flatnonzero((draw_Bx3[:, 0] < share) & (high_B > low_B))
    find = low_B[asked] + (draw_Bx3[asked, 1] * (high_B - low_B)[asked]).astype(np.int64)
    old, place = past.take(row_F[find]), place_F[find]
    column_S, at = np.arange(today.slates_BxS.shape[1]), (np.arange(len(asked)), place)
    answer = Responses(**{name: np.zeros_like(x) for name, x in vars(old.responses).items()})
    answer.looked_BxS[:] = column_S <= place[:, None]
    answer.click_BxS[at] = True
    played_N = _LEAST_PLAYED + (1 - _LEAST_PLAYED) * draw_Bx3[asked, 2]
    answer.play_ms_BxS[at] = world.catalogue.duration_ms_V[old.slates_BxS[at]] * played_N
    return dataclasses.replace(
        today,
        queries=today.queries.put(asked, old.queries),
        slates_BxS=put(today.slates_BxS, asked, old.slates_BxS),
        responses=today.responses.put(asked, answer),
    )
