"""Feed views of one simulated day."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.simulation.counter_rng import choose, sample_in_groups
from pr2_jax.simulation.day_log import Searches, SimulatedDay, Views
from pr2_jax.simulation.logging_policies import is_member
from pr2_jax.simulation.users import RESPONSE_DRAWS, Users, sample_rows

_VISIT = 6  # feed videos sent at once: they share a timestamp
_REAPPEAR = 0.15  # share of clicked search results that appear in the feed seconds later
_ASIDE = 0.006  # share of feed views during which people search for something else
_OUTCOMES = ("play_ms_BxS", "click_BxS", "like_BxS", "follow_BxS", "forward_BxS")  # in the order of Views


@dataclasses.dataclass(frozen=True)
class FeedDay(SimulatedDay):
    """The feed of one day."""

    def watch(self, users: Users, visited_U: np.ndarray, popularity_V: np.ndarray, engaged: np.ndarray) -> Views:
        """Feed views of the visitors. Nobody is shown a video twice or one that they engaged with before."""
        time_rng, choose_rng, watch_rng, aside_rng = (self.rng.child(n) for n in range(1, 5))
        user_N, number_N = self.occasions(users.feed_rate_U / users.visit_U, visited_U)
        time_ms_N = self.moments(time_rng.draw(2, user_N, number_N // _VISIT))
        video_N = self._chosen(users, popularity_V, user_N, choose_rng.draw(4, user_N, number_N))
        order_N = np.lexsort((number_N, user_N, time_ms_N))
        key_N = (user_N.astype(np.int64) * len(self.model.catalogue) + video_N)[order_N]
        fresh_N = np.zeros(len(key_N), bool)
        fresh_N[np.unique(key_N, return_index=True)[1]] = True
        kept_N = order_N[fresh_N & ~is_member(engaged, key_N)]
        user_N, video_N, time_ms_N, number_N = (x[kept_N] for x in (user_N, video_N, time_ms_N, number_N))
        draw_NxD = watch_rng.draw(RESPONSE_DRAWS, user_N, number_N)
        answer = self.model.respond(users.take(user_N), None, video_N[:, None], draw_NxD)
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

    def _chosen(self, users: Users, popularity_V: np.ndarray, user_N: np.ndarray, draw_Nx4: np.ndarray) -> np.ndarray:
        """Returns int32 [N]: the feed's choice for each view: a popular video, one of the person's interests, one of a
        favourite creator, or a random one."""
        catalogue, logging = self.model.catalogue, self.model.config.logging
        source_N, within_N, which_N, interest_N = draw_Nx4.T
        open_V = (catalogue.upload_day_V <= self.day).astype(np.float64)
        weight_V = popularity_V * open_V
        popular_N, random_N = choose(weight_V, which_N), choose(open_V, which_N)
        subtopic_N = sample_rows(users.interest_UxG[user_N], interest_N)
        interest_N = sample_in_groups(catalogue.subtopic_V, subtopic_N, which_N, weight_V)
        place_N = (within_N * users.favourites_UxA.shape[1]).astype(np.int64)
        creator_N = users.favourites_UxA[user_N, place_N]
        favourite_N = sample_in_groups(catalogue.creator_V, creator_N, which_N, weight_V)
        shares = np.cumsum([logging.feed_popular, logging.feed_interest, logging.feed_favourite])
        source_N = np.searchsorted(shares, source_N, side="right")
        chosen_N = np.choose(source_N, [popular_N, interest_N, favourite_N, random_N])
        return np.where(chosen_N >= 0, chosen_N, popular_N).astype(np.int32)
