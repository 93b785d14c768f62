"""World: the simulated platform, stepped day by day. People search, watch, respond to what is shown, and drift.

    world = World.build(WorldConfig())
    state = world.start()
    state, log = world.step_day(state)             # served by the biased logging system
    state, log = world.step_day(state, system)     # or by any `logging_policies.SearchSystem`

People's random draws depend on the day, the person and the occasion alone (counter_rng.py). Whether people return
depends on what they got (loyalty.py). All other draws have their own stream by day and purpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.day_log import DayLog, day_start_ms
from pr2_jax.simulation.feed_day import FeedDay
from pr2_jax.simulation.logging_policies import LoggingSearch, SearchRequests, SearchSystem, logging_weights, merged
from pr2_jax.simulation.loyalty import Loyalty, tomorrow, visit_chance
from pr2_jax.simulation.search_day import SearchDay
from pr2_jax.simulation.users import ClickModel, Users, build_users, drift, feedback
from pr2_jax.simulation.vocabulary import build_vocabulary
from pr2_jax.simulation.world_catalogue import build_catalogue


@dataclasses.dataclass(frozen=True)
class WorldState:
    """The state between two days."""

    day: int
    users: Users
    loyalty: Loyalty
    popularity_V: np.ndarray  # float64 decayed engagements
    engaged: np.ndarray  # int64 ascending keys `user * V + video`
    next_session: int


@dataclasses.dataclass(frozen=True)
class World(ClickModel):
    """The fixed part of the platform."""

    users: Users  # as they are on the first day
    logging: LoggingSearch

    @staticmethod
    def build(config: WorldConfig) -> World:
        vocabulary = build_vocabulary(config, np.random.default_rng(seed_of(config, 0)))
        catalogue = build_catalogue(config, vocabulary, seed_of(config, 1))
        users = build_users(config, catalogue, vocabulary, seed_of(config, 2))
        weights_WxV = logging_weights(config.logging, vocabulary, catalogue)
        return World(config, vocabulary, catalogue, users, LoggingSearch(config.logging, catalogue, weights_WxV))

    @property
    def start_ms(self) -> int:
        """Midnight of the first day, Beijing time."""
        return day_start_ms(self.config, 0)

    def start(self) -> WorldState:
        famous_V = 5.0 * np.exp(self.catalogue.fame_V.astype(np.float64))
        loyalty = Loyalty.start(self.config.loyalty, self.users)
        return WorldState(0, self.users, loyalty, famous_V, np.zeros(0, np.int64), 1)

    def simulate(self) -> Iterator[DayLog]:
        state = self.start()
        for _ in range(self.config.days):
            state, log = self.step_day(state)
            yield log

    def step_day(self, state: WorldState, system: SearchSystem | None = None) -> tuple[WorldState, DayLog]:
        """Returns the state after the day and the day's log. `system` None: the logging system serves."""
        visit_rng, feed_rng, search_rng, leave_rng = (
            CounterRng.of(self.config.seed, 3, state.day, n) for n in range(4)
        )
        serve_rng, drift_rng = (np.random.default_rng(s) for s in seed_of(self.config, 4, state.day).spawn(2))
        users, loyalty, config = state.users, state.loyalty, self.config
        feed, search = FeedDay(self, state.day, feed_rng), SearchDay(self, state.day, search_rng)
        everyone = np.arange(len(users))
        visited_U = visit_rng.draw(1, everyone)[:, 0] < visit_chance(config.loyalty, users, loyalty)
        views = feed.watch(users, visited_U, state.popularity_V, state.engaged)
        needs, views = search.needs(users, loyalty, visited_U, views, self._appeal())

        def serve(user_B: np.ndarray, words_BxQ: np.ndarray, time_ms_B: np.ndarray) -> np.ndarray:
            requests = SearchRequests(state.day, user_B, words_BxQ, time_ms_B, state.popularity_V, state.engaged, views)
            return (system or self.logging).search(requests, config.slate, serve_rng)

        searches = search.searches(users, needs, serve, state.next_session)
        joy_M = search.joys(needs, searches)
        log = DayLog(state.day, users, searches, feed.reappear(views, searches), visited_U, needs.user_M, joy_M)
        leave_U = leave_rng.draw(1, everyone)[:, 0]
        loyalty = tomorrow(config.loyalty, loyalty, visited_U, needs.user_M, joy_M, leave_U)
        return self._tomorrow(state, log, loyalty, drift_rng), log

    def _appeal(self) -> np.ndarray:
        return np.bincount(self.catalogue.subtopic_V, minlength=self.vocabulary.subtopics) + 1.0

    def _tomorrow(self, state: WorldState, log: DayLog, loyalty: Loyalty, rng: np.random.Generator) -> WorldState:
        searches, views, videos = log.searches, log.views, len(self.catalogue)
        row_E, _ = at = np.nonzero(searches.responses.click_BxS)
        user_E = np.concatenate([searches.user_B[row_E], views.user_N[views.click_N]]).astype(np.int64)
        video_E = np.concatenate([searches.slates_BxS[at], views.video_N[views.click_N]])
        play_ms_E = np.concatenate([searches.responses.play_ms_BxS[at], views.play_ms_N[views.click_N]])
        fading = 0.5 ** (1.0 / self.config.logging.popularity_half_life_days)
        popularity_V = fading * state.popularity_V + np.bincount(video_E, minlength=videos)
        engaged = merged(state.engaged, user_E * videos + video_E)
        users = feedback(state.users, self.config.loyalty, self.catalogue, user_E, video_E, play_ms_E)
        users = drift(users, self.config.people, self._appeal(), rng)
        sessions = state.next_session + len(searches.user_B)
        return WorldState(state.day + 1, users, loyalty, popularity_V, engaged, sessions)


def seed_of(config: WorldConfig, *key: int) -> np.random.SeedSequence:
    """The seed of one sequential stream of draws."""
    return np.random.SeedSequence(entropy=config.seed, spawn_key=key)
