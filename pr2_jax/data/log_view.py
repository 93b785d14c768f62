"""A view of the log, and what depends on the log alone: histories, counters and video attributes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from pr2_jax.config import DataConfig
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.history.counters import Counters
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import seen
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.history.video_attributes import VideoNumbers, catalogue_arrays, query_words
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.types import Requests


@dataclasses.dataclass(frozen=True, eq=False)
class LogView:
    """One view of the log; each piece is made on first use."""

    store: LogStore
    config: DataConfig
    long_play: LongPlay  # fitted on the training days, whatever the view holds

    @classmethod
    def of(cls, store: LogStore, config: DataConfig) -> LogView:
        return cls(store, config, LongPlay.fit(store, store.cuts.validation_ms, config))

    @functools.cached_property
    def reader(self) -> EventReader:
        return EventReader(self.store, self.long_play)

    @functools.cached_property
    def counters(self) -> Counters:
        return Counters(self.store)

    @functools.cached_property
    def numbers(self) -> VideoNumbers:
        return VideoNumbers(self.store)

    @functools.cached_property
    def catalogue(self) -> dict[str, np.ndarray]:
        """Video attributes as of the validation cut."""
        return catalogue_arrays(self.store, self.store.cuts.validation_ms, self.config)

    def requests(self, sessions_N: np.ndarray, *, withhold: bool) -> Requests:
        """The requests of some sessions. `withhold`: keep videos that the person clicked before out of retrieval."""
        sessions = self.store.sessions
        user, time_ms, query = (np.asarray(x)[sessions_N] for x in (sessions.user, sessions.time_ms, sessions.query))
        gone = seen(self.store, user, time_ms) if withhold else ()
        return Requests(user, time_ms, query_words(self.store, query, self.config), gone, query)

    def requests_of(self, slates: Slates, rows: slice | np.ndarray = slice(None)) -> Requests:
        """The requests of slates, or of some of them, for ranking: nothing is withheld."""
        query = slates.query_N[rows]
        words = query_words(self.store, query, self.config)
        return Requests(slates.user_N[rows], slates.time_ms_N[rows], words, query_B=query)
