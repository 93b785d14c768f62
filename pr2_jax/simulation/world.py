"""The simulated platform, stepped day by day: people search and watch, answer what they are shown, and drift.

    world = World.build(WorldConfig())
    state = world.start()
    state, log = world.step_day(state)             # served by the biased logging system
    state, log = world.step_day(state, system)     # or by any `serving.SearchSystem`

Every day draws from its own seed, and every part of a day from its own stream.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pr2_jax.config_world import WorldConfig
from pr2_jax.data.schema import DAY_MS
from pr2_jax.simulation.catalogue import Catalogue, build_catalogue
from pr2_jax.simulation.day_log import BEIJING_MS, SOURCES, DayLog, Searches, Views
from pr2_jax.simulation.queries import Queries, compose_queries, true_relevance
from pr2_jax.simulation.serving import (
    LoggingSearch,
    SearchRequests,
    SearchSystem,
    choose_feed,
    is_member,
    logging_weights,
)
from pr2_jax.simulation.tables import write_tables
from pr2_jax.simulation.users import Responses, Users, advance, build_users, respond, sample_rows, true_affinity
from pr2_jax.simulation.vocabulary import Vocabulary, build_vocabulary

_RELATED = SOURCES.index("RELATED_SEARCH")
_HOURS = (9, 5, 3, 2, 2, 3, 6, 10, 12, 13, 14, 16, 20, 18, 14, 13, 14, 16, 20, 24, 28, 29, 24, 16)  # activity by hour
_WEEKDAYS = (1.0, 0.98, 1.0, 1.02, 1.06, 1.16, 1.12)  # activity by weekday, Monday first
_VISIT = 6  # feed videos sent at once: they share a timestamp
_REAPPEAR = 0.15  # clicked results that turn up as a feed row seconds later
_ASIDE = 0.006  # feed views during which people search for something else


@dataclasses.dataclass(frozen=True)
class WorldState:
    """What one day hands to the next."""

    day: int
    users: Users
    popularity_V: np.ndarray  # float64 decayed engagements
    engaged: np.ndarray  # int64 ascending keys `user * V + video`
    next_session: int


@dataclasses.dataclass(frozen=True)
class World:
    """All that a day does not change."""

    config: WorldConfig
    vocabulary: Vocabulary
    catalogue: Catalogue
    users: Users  # as they are on the first day
    logging: LoggingSearch

    @staticmethod
    def build(config: WorldConfig) -> World:
        vocabulary = build_vocabulary(config, np.random.default_rng(_seed(config, 0)))
        catalogue = build_catalogue(config, vocabulary, _seed(config, 1))
        users = build_users(config, catalogue, vocabulary, _seed(config, 2))
        weights_WxV = logging_weights(config.logging, vocabulary, catalogue)
        return World(config, vocabulary, catalogue, users, LoggingSearch(config.logging, catalogue, weights_WxV))

    @property
    def start_ms(self) -> int:
        """Midnight of the first day, Beijing time."""
        first = datetime.datetime.fromisoformat(self.config.start).replace(tzinfo=datetime.UTC)
        return int(first.timestamp() * 1000) - BEIJING_MS

    def start(self) -> WorldState:
        return WorldState(
            0, self.users, 5.0 * np.exp(self.catalogue.fame_V.astype(np.float64)), np.zeros(0, np.int64), 1
        )

    def simulate(self, system: SearchSystem | None = None) -> Iterator[DayLog]:
        state = self.start()
        for _ in range(self.config.days):
            state, log = self.step_day(state, system)
            yield log

    def step_day(self, state: WorldState, system: SearchSystem | None = None) -> tuple[WorldState, DayLog]:
        """Returns the state after the day and the day's log. `system` None: the biased logging system serves."""
        streams = [np.random.default_rng(s) for s in _seed(self.config, 3, state.day).spawn(8)]
        feed_rng, watch_rng, ask_rng, word_rng, serve_rng, click_rng, again_rng, drift_rng = streams
        views = self._watch(state, feed_rng, watch_rng)
        searches, views = self._search(state, views, system or self.logging, ask_rng, word_rng, serve_rng, click_rng)
        views = _reappear(views, searches, again_rng)
        log = DayLog(state.day, state.users, searches, views)
        return self._tomorrow(state, log, drift_rng), log

    def respond(
        self, users: Users, queries: Queries | None, slates_BxS: np.ndarray, rng: np.random.Generator
    ) -> Responses:
        """Returns what people do with slates: `users.take(user_B)` gives one person a slate. See `users.respond`."""
        return respond(self.config.people, self.catalogue, self.vocabulary, users, queries, slates_BxS, rng)

    def true_relevance(self, queries: Queries, slates_BxS: np.ndarray) -> np.ndarray:
        return true_relevance(self.catalogue, self.vocabulary, queries, slates_BxS)

    def true_affinity(self, users: Users, slates_BxS: np.ndarray, intent_B: np.ndarray | None = None) -> np.ndarray:
        return true_affinity(self.config.people, self.catalogue, users, slates_BxS, intent_B)

    def _watch(self, state: WorldState, rng: np.random.Generator, watch_rng: np.random.Generator) -> Views:
        users, catalogue = state.users, self.catalogue
        count_rng, time_rng, choose_rng = rng.spawn(3)
        count_U = count_rng.poisson(users.feed_rate_U * self._activity(state.day))
        user_N = np.repeat(np.arange(len(users), dtype=np.int32), count_U)
        within_N = np.arange(len(user_N)) - np.repeat(np.cumsum(count_U) - count_U, count_U)
        visit_N = np.cumsum(within_N % _VISIT == 0) - 1
        time_ms_N = self._times(state.day, int(visit_N[-1]) + 1 if len(visit_N) else 0, time_rng)[visit_N]
        video_N = choose_feed(self.config.logging, catalogue, users, state.day, state.popularity_V, user_N, choose_rng)
        order_N = np.lexsort((user_N, time_ms_N))
        user_N, video_N, time_ms_N = user_N[order_N], video_N[order_N], time_ms_N[order_N]
        key_N = user_N.astype(np.int64) * len(catalogue) + video_N
        fresh_N = np.zeros(len(key_N), bool)
        fresh_N[np.unique(key_N, return_index=True)[1]] = True  # the feed shows nobody a video again that they liked
        fresh_N &= ~is_member(state.engaged, key_N)
        user_N, video_N, time_ms_N = user_N[fresh_N], video_N[fresh_N], time_ms_N[fresh_N]
        answer = self.respond(users.take(user_N), None, video_N[:, None], watch_rng)
        flag_N = watch_rng.random(len(user_N)) < _ASIDE
        return Views(
            user_N,
            video_N,
            time_ms_N,
            answer.play_ms_BxS[:, 0],
            answer.click_BxS[:, 0],
            answer.like_BxS[:, 0],
            answer.follow_BxS[:, 0],
            answer.forward_BxS[:, 0],
            flag_N,
            np.zeros(len(user_N), bool),
        )

    def _search(self, state, views, system, rng, word_rng, serve_rng, click_rng) -> tuple[Searches, Views]:
        people, users = self.config.people, state.users
        count_rng, time_rng, intent_rng, trigger_rng, source_rng = rng.spawn(5)
        count_U = count_rng.poisson(users.search_rate_U * self._activity(state.day))
        user_B = np.repeat(np.arange(len(users), dtype=np.int32), count_U)
        time_ms_B = self._times(state.day, len(user_B), time_rng)
        intent_B = self._intents(users, user_B, intent_rng)
        view_B = _trigger(views, user_B, people.trigger_share, trigger_rng)
        led_B = view_B >= 0
        time_ms_B[led_B] = views.time_ms_N[view_B[led_B]] + trigger_rng.integers(5_000, 240_000, led_B.sum())
        time_ms_B = np.minimum(time_ms_B, self.start_ms + (state.day + 1) * DAY_MS - 1)
        intent_B[led_B] = self.catalogue.subtopic_V[views.video_N[view_B[led_B]]]
        flagged_N, related_N = views.search_N.copy(), views.related_N.copy()
        flagged_N[view_B[led_B]] = related_N[view_B[led_B]] = True
        source_B = np.where(source_rng.random(len(user_B)) < 0.12, SOURCES.index("HISTORY"), 0)
        source_B = np.where(led_B & (source_rng.random(len(user_B)) < 0.6), _RELATED, source_B)
        order_B = np.lexsort((user_B, time_ms_B))
        user_B, time_ms_B, source_B = user_B[order_B], time_ms_B[order_B], source_B[order_B]
        queries = compose_queries(self.vocabulary, intent_B[order_B], people.misspelt_share, word_rng)
        requests = SearchRequests(state.day, user_B, queries.words_BxQ, time_ms_B, state.popularity_V, state.engaged)
        slates_BxS = system.search(requests, self.config.slate, serve_rng)
        answer = self.respond(users.take(user_B), queries, slates_BxS, click_rng)
        session_B = state.next_session + np.arange(len(user_B), dtype=np.int64)
        searches = Searches(session_B, user_B, time_ms_B, source_B.astype(np.int8), queries, slates_BxS, answer)
        return searches, dataclasses.replace(views, search_N=flagged_N, related_N=related_N)

    def _intents(self, users: Users, user_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns subtopics: today's mood, the person's interests, or what everyone searches."""
        people = self.config.people
        own_B = sample_rows(users.interest_UxG[user_B], rng)
        appeal_G = self._appeal()
        trend_B = rng.choice(len(appeal_G), len(user_B), p=appeal_G / appeal_G.sum())
        kind_B = rng.random(len(user_B))
        intent_B = np.where(kind_B < people.mood_share, users.mood_U[user_B], own_B)
        return np.where(kind_B > 1 - people.trend_share, trend_B, intent_B).astype(np.int32)

    def _appeal(self) -> np.ndarray:
        return np.bincount(self.catalogue.subtopic_V, minlength=self.vocabulary.subtopics) + 1.0

    def _activity(self, day: int) -> float:
        return _WEEKDAYS[(datetime.date.fromisoformat(self.config.start).weekday() + day) % 7]

    def _times(self, day: int, count: int, rng: np.random.Generator) -> np.ndarray:
        hours = np.array(_HOURS) / sum(_HOURS)
        hour_N = rng.choice(24, count, p=hours)
        return self.start_ms + day * DAY_MS + hour_N * 3_600_000 + rng.integers(0, 3_600_000, count)

    def _tomorrow(self, state: WorldState, log: DayLog, rng: np.random.Generator) -> WorldState:
        searches, views, videos = log.searches, log.views, len(self.catalogue)
        row_E, column_E = np.nonzero(searches.responses.click_BxS)
        user_E = np.concatenate([searches.user_B[row_E], views.user_N[views.click_N]]).astype(np.int64)
        video_E = np.concatenate([searches.slates_BxS[row_E, column_E], views.video_N[views.click_N]])
        fading = 0.5 ** (1.0 / self.config.logging.popularity_half_life_days)
        popularity_V = fading * state.popularity_V + np.bincount(video_E, minlength=videos)
        engaged = np.union1d(state.engaged, user_E * videos + video_E)
        users = advance(state.users, self.config.people, self._appeal(), rng)
        return WorldState(state.day + 1, users, popularity_V, engaged, state.next_session + len(searches.user_B))


def _seed(config: WorldConfig, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(entropy=config.seed, spawn_key=key)


def _trigger(views: Views, user_B: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Returns for each session the feed view of that person and day that it springs from, or -1."""
    order_N = np.argsort(views.user_N, kind="stable")
    low_B = np.searchsorted(views.user_N[order_N], user_B, side="left")
    high_B = np.searchsorted(views.user_N[order_N], user_B, side="right")
    place_B = low_B + (rng.random(len(user_B)) * (high_B - low_B)).astype(np.int64)
    led_B = (rng.random(len(user_B)) < share) & (high_B > low_B)
    view_B = np.full(len(user_B), -1, np.int64)
    view_B[led_B] = order_N[place_B[led_B]]
    return view_B


def _reappear(views: Views, searches: Searches, rng: np.random.Generator) -> Views:
    """Returns the day's views with some clicked results among them, seconds after the search, watched as there."""
    answer = searches.responses
    row_E, column_E = np.nonzero(answer.click_BxS & (rng.random(answer.click_BxS.shape) < _REAPPEAR))
    at = (row_E, column_E)
    none_E = np.zeros(len(row_E), bool)
    more = Views(
        searches.user_B[row_E],
        searches.slates_BxS[at],
        searches.time_ms_B[row_E] + rng.integers(3_000, 60_000, len(row_E)),
        answer.play_ms_BxS[at],
        answer.click_BxS[at],
        answer.like_BxS[at],
        answer.follow_BxS[at],
        answer.forward_BxS[at],
        none_E,
        none_E,
    )
    both = Views(
        *(
            np.concatenate([getattr(views, field.name), getattr(more, field.name)])
            for field in dataclasses.fields(Views)
        )
    )
    return both.take(np.lexsort((both.video_N, both.user_N, both.time_ms_N)))


def write_world(directory: Path, config: WorldConfig) -> None:
    """Simulates `config.days` and writes the log as KuaiSAR's tables; `directory` appears only when it is whole.

    Also words.csv, content.npy and content_ids.npy. Same config, same bytes. BadInput where `directory` is not empty.
    """
    world = World.build(config)
    write_tables(directory, world, list(world.simulate()), _seed(config, 4))
