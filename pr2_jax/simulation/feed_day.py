"""Feed views of one simulated day."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import poisson

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.day_log import Searches, Views, activity, moments
from pr2_jax.simulation.logging_policies import FEED_DRAWS, choose_feed, is_member
from pr2_jax.simulation.users import RESPONSE_DRAWS, Users, respond
from pr2_jax.simulation.vocabulary import Vocabulary
from pr2_jax.simulation.world_catalogue import Catalogue

_VISIT = 6  # feed videos sent at once: they share a timestamp
_REAPPEAR = 0.15  # share of clicked search results that appear in the feed seconds later
_ASIDE = 0.006  # share of feed views during which people search for something else
_OUTCOMES = ("play_ms_BxS", "click_BxS", "like_BxS", "follow_BxS", "forward_BxS")  # in the order of Views


@dataclasses.dataclass(frozen=True)
class FeedDay:
    """The feed of one day."""

    config: WorldConfig
    catalogue: Catalogue
    vocabulary: Vocabulary
    day: int
    rng: CounterRng

    def watch(self, users: Users, visited_U: np.ndarray, popularity_V: np.ndarray, engaged: np.ndarray) -> Views:
        """Feed views of the visitors. Nobody is shown a video twice or one that they engaged with before."""
        config, people = self.config, np.arange(len(users))
        count_rng, time_rng, choose_rng, watch_rng, aside_rng = (self.rng.child(n) for n in range(5))
        rate_U = users.feed_rate_U / users.visit_U * activity(config, self.day) * visited_U
        count_U = poisson.ppf(count_rng.draw(1, people)[:, 0], rate_U).astype(np.int64)
        user_N = np.repeat(people.astype(np.int32), count_U)
        number_N = np.arange(len(user_N)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
        time_ms_N = moments(config, self.day, time_rng.draw(2, user_N, number_N // _VISIT))
        draw_NxF = choose_rng.draw(FEED_DRAWS, user_N, number_N)
        video_N = choose_feed(config.logging, self.catalogue, users, self.day, popularity_V, user_N, draw_NxF)
        order_N = np.lexsort((number_N, user_N, time_ms_N))
        key_N = (user_N.astype(np.int64) * len(self.catalogue) + video_N)[order_N]
        fresh_N = np.zeros(len(key_N), bool)
        fresh_N[np.unique(key_N, return_index=True)[1]] = True
        kept_N = order_N[fresh_N & ~is_member(engaged, key_N)]
        user_N, video_N, time_ms_N, number_N = (x[kept_N] for x in (user_N, video_N, time_ms_N, number_N))
        draw_NxD = watch_rng.draw(RESPONSE_DRAWS, user_N, number_N)
        viewers, slates_Nx1 = users.take(user_N), video_N[:, None]
        answer = respond(config.people, self.catalogue, self.vocabulary, viewers, None, slates_Nx1, draw_NxD)
        aside_N = aside_rng.draw(1, user_N, number_N)[:, 0] < _ASIDE
        outcomes = (getattr(answer, name)[:, 0] for name in _OUTCOMES)
        return Views(user_N, video_N, time_ms_N, *outcomes, search_N=aside_N, related_N=np.zeros(len(user_N), bool))

    def reappear(self, views: Views, searches: Searches) -> Views:
        """Adds some clicked search results to the day's views, seconds after the search and with its outcome."""
        row_E, _ = at = np.nonzero(searches.responses.click_BxS)
        user_E, video_E = searches.user_B[row_E], searches.slates_BxS[at]
        draw_Ex2 = self.rng.child(5).draw(2, user_E, video_E)
        time_ms_E = searches.time_ms_B[row_E] + 3_000 + (draw_Ex2[:, 1] * 57_000).astype(np.int64)
        outcomes = (getattr(searches.responses, name)[at] for name in _OUTCOMES)
        none_E = np.zeros(len(row_E), bool)
        clicked = Views(user_E, video_E, time_ms_E, *outcomes, search_N=none_E, related_N=none_E)
        both = Views.joined([views, clicked.take(np.flatnonzero(draw_Ex2[:, 0] < _REAPPEAR))])
        return both.take(np.lexsort((both.video_N, both.user_N, both.time_ms_N)))
