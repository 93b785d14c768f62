"""Searches of one simulated day: needs, queries, responses and reformulations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pr2_jax.data.schema import DAY_MS
from pr2_jax.simulation.counter_rng import choose, sample_in_groups
from pr2_jax.simulation.day_log import SOURCES, Searches, SimulatedDay, Views, day_start_ms
from pr2_jax.simulation.loyalty import Loyalty, joy, searches_a_visit
from pr2_jax.simulation.queries import QUERY_DRAWS, compose_queries
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.users import RESPONSE_DRAWS, Users, sample_rows

_RELATED, _TYPED_BEFORE = SOURCES.index("RELATED_SEARCH"), SOURCES.index("HISTORY")
_OFFERED = 0.6  # share of the searches triggered by a feed view that use its suggested query
_FROM_HISTORY = 0.12
_AFTER_VIEW_MS, _AFTER_SEARCH_MS = (5_000, 240_000), (8_000, 60_000)

Serve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(user_B, words_BxQ, time_ms_B): slates_BxS."""


@dataclasses.dataclass(frozen=True)
class Needs(RowRecord):
    """M needs to search on one day, ascending in time."""

    user_M: np.ndarray  # int32
    number_M: np.ndarray  # int64, counts the person's needs of the day
    time_ms_M: np.ndarray  # int64
    intent_M: np.ndarray  # int32 subtopic
    source_M: np.ndarray  # int8, row of SOURCES


@dataclasses.dataclass(frozen=True)
class SearchDay(SimulatedDay):
    """The searches of one day."""

    def needs(
        self, users: Users, loyalty: Loyalty, visited_U: np.ndarray, views: Views, appeal_G: np.ndarray
    ) -> tuple[Needs, Views]:
        """The day's needs, and the views with those marked that triggered one."""
        config = self.model.config
        time_rng, intent_rng, led_rng, source_rng = (self.rng.child(n) for n in range(1, 5))
        user_M, number_M = self.occasions(searches_a_visit(config.loyalty, users, loyalty), visited_U)
        time_ms_M = self.moments(time_rng.draw(2, user_M, number_M))
        intent_M = self._intents(users, user_M, appeal_G, intent_rng.draw(3, user_M, number_M))
        draw_Mx3 = led_rng.draw(3, user_M, number_M)
        view_M = sample_in_groups(views.user_N, user_M, draw_Mx3[:, 0])  # the feed view that triggered the need, or -1
        led_M = (view_M >= 0) & (draw_Mx3[:, 1] < config.people.trigger_share)
        trigger = view_M[led_M]
        time_ms_M[led_M] = views.time_ms_N[trigger] + _between(_AFTER_VIEW_MS, draw_Mx3[led_M, 2])
        intent_M[led_M] = self.model.catalogue.subtopic_V[views.video_N[trigger]]
        flagged_N, related_N = views.search_N.copy(), views.related_N.copy()
        flagged_N[trigger] = related_N[trigger] = True
        draw_Mx2 = source_rng.draw(2, user_M, number_M)
        source_M = np.where(draw_Mx2[:, 0] < _FROM_HISTORY, _TYPED_BEFORE, 0)
        source_M = np.where(led_M & (draw_Mx2[:, 1] < _OFFERED), _RELATED, source_M).astype(np.int8)
        needs = Needs(user_M, number_M, self._today(time_ms_M), intent_M, source_M)
        in_order = needs.take(np.lexsort((number_M, user_M, time_ms_M)))
        return in_order, dataclasses.replace(views, search_N=flagged_N, related_N=related_N)

    def searches(self, users: Users, needs: Needs, serve: Serve, first_session: int) -> Searches:
        """Queries and reformulations until a click or the end of patience. `serve` is called once a round."""
        loyalty = self.model.config.loyalty
        rounds, open_M, time_ms_B = [], np.arange(len(needs)), needs.time_ms_M
        for retry in range(loyalty.retries + 1):
            if retry and not len(open_M):
                break
            found = self._round(users, needs, open_M, time_ms_B, retry, serve)
            rounds.append(found)
            draw_Bx2 = self.rng.child(8).draw(2, found.user_B, needs.number_M[open_M], np.full(len(open_M), retry))
            again_B = ~found.responses.click_BxS.any(axis=1) & (draw_Bx2[:, 0] < loyalty.retry_share)
            time_ms_B = self._today(found.time_ms_B + _between(_AFTER_SEARCH_MS, draw_Bx2[:, 1]))
            open_M, time_ms_B = open_M[again_B], time_ms_B[again_B]
        both = Searches.joined(rounds)
        both = both.take(np.lexsort((both.retry_B, both.need_B, both.user_B, both.time_ms_B)))
        return dataclasses.replace(both, session_B=first_session + np.arange(len(both.user_B), dtype=np.int64))

    def joys(self, needs: Needs, searches: Searches) -> np.ndarray:
        """float64 [M]: joy of each need."""
        answer, need_B, count = searches.responses, searches.need_B, len(needs)

        def total(x_BxS: np.ndarray) -> np.ndarray:
            return np.bincount(need_B, x_BxS.sum(axis=1), count)

        retries_M = np.bincount(need_B, minlength=count) - 1
        passed_M = total(answer.examined_BxS & ~answer.click_BxS)
        return joy(
            self.model.config.loyalty, total(answer.play_ms_BxS), total(answer.like_BxS) > 0, passed_M, retries_M
        )

    def _round(
        self, users: Users, needs: Needs, row_B: np.ndarray, time_ms_B: np.ndarray, retry: int, serve: Serve
    ) -> Searches:
        user_B = needs.user_M[row_B]
        occasion = (user_B, needs.number_M[row_B], np.full(len(row_B), retry))
        draw_BxQ = self.rng.child(6).draw(QUERY_DRAWS, *occasion)
        misspelt = self.model.config.people.misspelt_share
        queries = compose_queries(self.model.vocabulary, needs.intent_M[row_B], misspelt, draw_BxQ)
        slates_BxS = serve(user_B, queries.words_BxQ, time_ms_B)
        draw_BxD = self.rng.child(7).draw(RESPONSE_DRAWS * slates_BxS.shape[1], *occasion)
        return Searches(
            session_B=np.zeros(len(row_B), np.int64),  # numbered when the day is complete
            user_B=user_B,
            time_ms_B=time_ms_B,
            source_B=needs.source_M[row_B] if retry == 0 else np.zeros(len(row_B), np.int8),
            queries=queries,
            slates_BxS=slates_BxS,
            responses=self.model.respond(users.take(user_B), queries, slates_BxS, draw_BxD),
            need_B=row_B.astype(np.int32),
            retry_B=np.full(len(row_B), retry, np.int8),
        )

    def _intents(self, users: Users, user_M: np.ndarray, appeal_G: np.ndarray, draw_Mx3: np.ndarray) -> np.ndarray:
        """Returns subtopics: the person's mood of the day, an interest, or a trend."""
        people = self.model.config.people
        own_M = sample_rows(users.interest_UxG[user_M], draw_Mx3[:, 0])
        trend_M = choose(appeal_G, draw_Mx3[:, 1])
        intent_M = np.where(draw_Mx3[:, 2] < people.mood_share, users.mood_U[user_M], own_M)
        return np.where(draw_Mx3[:, 2] > 1 - people.trend_share, trend_M, intent_M).astype(np.int32)

    def _today(self, time_ms_M: np.ndarray) -> np.ndarray:
        return np.minimum(time_ms_M, day_start_ms(self.model.config, self.day) + DAY_MS - 1)


def _between(bounds_ms: tuple[int, int], point_N: np.ndarray) -> np.ndarray:
    low, high = bounds_ms
    return low + (point_N * (high - low)).astype(np.int64)
