"""Live system: a finished work directory serves the simulated platform; its log grows, its models stay fixed."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pr2_jax.data.history.labels import popularity
from pr2_jax.data.history.video_attributes import padded_words
from pr2_jax.data.store.appendable_log import AppendableLog, NewSearches, NewViews
from pr2_jax.data.store.assembled import rows_of
from pr2_jax.encoders.batching import REQUEST_BLOCK
from pr2_jax.errors import BadInput
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.pipelines import Pipeline, pipelines
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System
from pr2_jax.simulation.day_log import SOURCES, DayLog, Searches, Views, day_start_ms
from pr2_jax.simulation.logging_policies import SearchRequests
from pr2_jax.simulation.world import World
from pr2_jax.types import Requests

LEAST_REQUESTS = 32
"""Fewer are padded: each number of requests, up to a power of two, has programs of its own to compile."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of the simulation, which start at 0, as rows of a store."""

    user_U: np.ndarray  # int32
    video_V: np.ndarray  # int32
    word_W: np.ndarray  # int32, 0 = the log never held it
    source: np.ndarray  # int32 by row of SOURCES

    @staticmethod
    def of(system: System, world: World) -> Rows:
        """BadInput where the work directory's log is not of this world."""
        store = system.store
        user_U = rows_of(store.users.raw_id, world.users.raw_id_U)
        video_V = rows_of(store.videos.raw_id, world.catalogue.raw_id_V)
        if not (user_U.all() and video_V.all() and store.counts.users == len(user_U) + 1):
            raise BadInput(
                f"{system.workdir}: its log is not of the simulated world that its config describes "
                f"({store.counts.users - 1:,} people in the log, {len(user_U):,} in the world)"
            )
        names = {name: row for row, name in enumerate(store.source_names, start=1)}
        source = np.array([names.get(name, 0) for name in SOURCES], np.int32)
        return Rows(user_U, video_V, rows_of(store.words.raw_id, np.arange(len(world.vocabulary.text))), source)


@dataclasses.dataclass
class Today:
    """What is open on one day: the log up to midnight and the day's views, and searchers by pipeline."""

    day: int
    view: System
    start_ms: int
    searchers: dict[str, Searcher] = dataclasses.field(default_factory=dict)
    similarity: ItemSimilarity | None = None  # until somebody walks
    walking: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Platform:
    """What some lane of an experiment knows: one growing log, and searchers over it that are opened anew every day.

    Its arms may be asked side by side, in threads.
    """

    def __init__(self, system: System, world: World) -> None:
        self._system, self._world, self._rows = system, world, Rows.of(system, world)
        self._log = AppendableLog(system.store)
        self._index = {name: system.fitted.index(name) for name in ("dr", "pdr")}
        self._pipelines = pipelines(system.config)
        self._video_of_row = np.full(system.store.counts.videos, -1, np.int32)
        self._video_of_row[self._rows.video_V] = np.arange(len(world.catalogue), dtype=np.int32)
        self._today: Today | None = None
        self._opening = threading.Lock()
        self._ahead = ThreadPoolExecutor(1)  # what somebody walked on today will be walked on tomorrow
        self._tomorrow: tuple[int, Future[ItemSimilarity]] | None = None

    def served(self, pipeline: str) -> Served:
        return Served(self, pipeline)

    def add(self, log: DayLog) -> None:
        self._log.add(self._views(log.views), self._searches(log.searches))
        walked = self._today is not None and self._today.similarity is not None
        self._today = self._tomorrow = None
        if walked:
            start_ms = day_start_ms(self._world.config, log.day + 1)
            known = self._system.over(self._log.store(end_ms=start_ms))
            self._tomorrow = start_ms, self._ahead.submit(known.similarity_as_of, start_ms)

    def searcher(self, pipeline: str, requests: SearchRequests) -> tuple[System, Searcher]:
        """As it stands on the day of the requests: what was counted up to midnight, and people's views so far."""
        with self._opening:
            if self._today is None or self._today.day != requests.day:
                start_ms = day_start_ms(self._world.config, requests.day)
                views = None if requests.views is None else self._views(requests.views)
                known = self._system.over(self._log.store(views, end_ms=start_ms))
                self._today = Today(requests.day, known, start_ms)
            today = self._today
        if pipeline not in today.searchers:
            today.searchers[pipeline] = self._searcher(today, self._pipelines[pipeline])
        return today.view, today.searchers[pipeline]

    def search(self, pipeline: str, requests: SearchRequests, slate: int) -> np.ndarray:
        """Video rows of the simulation `[B, slate]`, best first, padded with -1."""
        count = len(requests.user_B)
        if not count:
            return np.zeros((0, slate), np.int32)
        if count < LEAST_REQUESTS:
            requests = requests.take(np.resize(np.arange(count), LEAST_REQUESTS))
        view, searcher = self.searcher(pipeline, requests)
        rows = self._rows
        words = [rows.word_W[words_Q[words_Q > 0]] for words_Q in requests.words_BxQ]
        words_BxQ = padded_words(words, view.config.data)
        user_B, time_ms_B = rows.user_U[requests.user_B], requests.time_ms_B
        asked = Requests(user_B, time_ms_B, words_BxQ, view.withheld(user_B, time_ms_B), self._log.query_rows(words))
        depth = max(view.config.search.candidates, slate)

        def block(start: int) -> np.ndarray:
            part = view.encode(asked.slice(start, start + REQUEST_BLOCK))
            merged = searcher.candidates(part, searcher.retrieve(part), depth)
            ids_BxK = searcher.rank(part, merged).ids_BxK[:, :slate]
            return np.pad(ids_BxK, ((0, 0), (0, slate - ids_BxK.shape[1])), constant_values=-1)

        with ThreadPoolExecutor() as pool:  # array work, which does not hold the other blocks
            ids_BxS = np.concatenate([*pool.map(block, range(0, len(words), REQUEST_BLOCK))])[:count]
        return np.where(ids_BxS > 0, self._video_of_row[np.maximum(ids_BxS, 0)], -1)

    def _searcher(self, today: Today, pipeline: Pipeline) -> Searcher:
        view, start_ms, similarity = today.view, today.start_ms, None
        if not pipeline.impersonal:
            with today.walking:
                if today.similarity is None:
                    ahead = self._tomorrow is not None and self._tomorrow[0] == start_ms
                    today.similarity = self._tomorrow[1].result() if ahead else view.similarity_as_of(start_ms)
            similarity = today.similarity
        snapshot = Snapshot(similarity, popularity(view.store, start_ms))
        channels = view.channels(snapshot, pipeline.channels, index=self._index.__getitem__)
        return Searcher.open(view, snapshot, pipeline.name, channels=channels)

    def _views(self, views: Views) -> NewViews:
        video_N, rows = views.video_N, self._rows
        return NewViews(
            rows.user_U[views.user_N],
            rows.video_V[video_N],
            views.time_ms_N,
            views.click_N,
            views.like_N,
            views.follow_N,
            views.forward_N,
            views.play_ms_N,
            self._world.catalogue.duration_ms_V[video_N],
        )

    def _searches(self, searches: Searches) -> NewSearches:
        rows, shown_BxS = self._rows, searches.slates_BxS
        words = [rows.word_W[words_Q[words_Q > 0]] for words_Q in searches.queries.words_BxQ]
        return NewSearches(
            searches.session_B,
            rows.user_U[searches.user_B],
            words,
            searches.time_ms_B,
            rows.source[searches.source_B],
            np.where(shown_BxS >= 0, rows.video_V[np.maximum(shown_BxS, 0)], 0),
            searches.responses.click_BxS.astype(np.int32),
        )


@dataclasses.dataclass(frozen=True)
class Served:
    """One pipeline of a platform, as the simulation asks it."""

    platform: Platform
    pipeline: str

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        return self.platform.search(self.pipeline, requests, slate)
