"""What people watch in the feed on one day."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import poisson

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.clock import activity, moments
from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.day_log import Searches, Views
from pr2_jax.simulation.logging_policies import FEED_DRAWS, choose_feed, is_member
from pr2_jax.simulation.users import RESPONSE_DRAWS, Users, respond
from pr2_jax.simulation.vocabulary import Vocabulary
from pr2_jax.simulation.world_catalogue import Catalogue

_VISIT = 6  # feed videos sent at once: they share a timestamp
_REAPPEAR = 0.15  # clicked results that turn up as a feed row seconds later
_ASIDE = 0.006  # feed views during which people search for something else


@dataclasses.dataclass(frozen=True)
class FeedDay:
    """The feed of one day, by the luck of its people."""

    config: WorldConfig
    catalogue: Catalogue
    vocabulary: Vocabulary
    day: int
    luck: CounterRng

    def watch(self, users: Users, visited_U: np.ndarray, popularity_V: np.ndarray, engaged: np.ndarray) -> Views:
        """Who came watches; nobody is shown again what they liked."""
        config, people = self.config, np.arange(len(users))
        count_luck, time_luck, choose_luck, watch_luck, aside_luck = (self.luck.child(n) for n in range(5))
        rate_U = users.feed_rate_U / users.visit_U * activity(config, self.day) * visited_U
        count_U = poisson.ppf(count_luck.draw(1, people)[:, 0], rate_U).astype(np.int64)
        user_N = np.repeat(people.astype(np.int32), count_U)
        number_N = np.arange(len(user_N)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
        time_ms_N = moments(config, self.day, time_luck.draw(2, user_N, number_N // _VISIT))
        draw_NxF = choose_luck.draw(FEED_DRAWS, user_N, number_N)
        video_N = choose_feed(config.logging, self.catalogue, users, self.day, popularity_V, user_N, draw_NxF)
        order_N = np.lexsort((number_N, user_N, time_ms_N))
        user_N, video_N, time_ms_N, number_N = (x[order_N] for x in (user_N, video_N, time_ms_N, number_N))
        key_N = user_N.astype(np.int64) * len(self.catalogue) + video_N
        fresh_N = np.zeros(len(key_N), bool)
        fresh_N[np.unique(key_N, return_index=True)[1]] = True
        fresh_N &= ~is_member(engaged, key_N)
        user_N, video_N, time_ms_N, number_N = (x[fresh_N] for x in (user_N, video_N, time_ms_N, number_N))
        draw_NxD = watch_luck.draw(RESPONSE_DRAWS, user_N, number_N)
        slates_Nx1 = video_N[:, None]
        answer = respond(config.people, self.catalogue, self.vocabulary, users.take(user_N), None, slates_Nx1, draw_NxD)
        return Views(
            user_N,
            video_N,
            time_ms_N,
            answer.play_ms_BxS[:, 0],
            answer.click_BxS[:, 0],
            answer.like_BxS[:, 0],
            answer.follow_BxS[:, 0],
            answer.forward_BxS[:, 0],
            aside_luck.draw(1, user_N, number_N)[:, 0] < _ASIDE,
            np.zeros(len(user_N), bool),
        )

    def reappear(self, views: Views, searches: Searches) -> Views:
        """Returns the day's views with some clicked results among them, seconds after the search, watched as there."""
        answer, luck = searches.responses, self.luck.child(5)
        row_E, column_E = np.nonzero(answer.click_BxS)
        at = (row_E, column_E)
        draw_Ex2 = luck.draw(2, searches.user_B[row_E], searches.slates_BxS[at])
        none_E = np.zeros(len(row_E), bool)
        more = Views(
            searches.user_B[row_E],
            searches.slates_BxS[at],
            searches.time_ms_B[row_E] + 3_000 + (draw_Ex2[:, 1] * 57_000).astype(np.int64),
            answer.play_ms_BxS[at],
            answer.click_BxS[at],
            answer.like_BxS[at],
            answer.follow_BxS[at],
            answer.forward_BxS[at],
            none_E,
            none_E,
        )
        both = Views.joined([views, more.take(np.flatnonzero(draw_Ex2[:, 0] < _REAPPEAR))])
        return both.take(np.lexsort((both.video_N, both.user_N, both.time_ms_N)))
