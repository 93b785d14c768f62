"""An appendable log: a `LogStore` in memory that grows by a day of a live system.

Histories, counters and item similarity read the added rows. Training does not: its cuts stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from pr2_jax.data.columns import (
    CLICK,
    EVERYTHING,
    FEED_SURFACE,
    PLAY,
    RESULT_OUTCOMES,
    SEARCH_SURFACE,
    Events,
    Impressions,
    Queries,
    Sessions,
)
from pr2_jax.data.outcomes import result_known_ms, times
from pr2_jax.data.store.log_store import LogStore

Columns = TypeVar("Columns", Sessions, Impressions, Events)


@dataclasses.dataclass(frozen=True)
class NewViews:
    """N feed views with all outcomes, ascending in time for each person; ids are rows of the store.

    Views of one person with one time are a batch, watched one after the other.
    """

    user_N: np.ndarray  # int32
    video_N: np.ndarray  # int32
    time_ms_N: np.ndarray  # int64, when the batch was served
    click_N: np.ndarray  # bool, as the three below
    like_N: np.ndarray
    follow_N: np.ndarray
    forward_N: np.ndarray
    play_ms_N: np.ndarray  # int64
    duration_ms_N: np.ndarray  # int64


@dataclasses.dataclass(frozen=True)
class NewSearches:
    """B searches, ascending by (time, raw id), not before any session of the log; ids are rows of the store."""

    raw_id_B: np.ndarray  # int64
    user_B: np.ndarray  # int32
    words: Sequence[np.ndarray]  # B of int32 word rows, 0 = unknown
    time_ms_B: np.ndarray  # int64
    source_B: np.ndarray  # int32
    shown_BxS: np.ndarray  # int32 distinct videos by position, 0 or -1 = none
    clicks_BxS: np.ndarray  # int32
    outcomes: Mapping[str, np.ndarray] | None = None  # RESULT_OUTCOMES, [B, S] each, if the log has them


class AppendableLog:
    """A finished store and the days added since."""

    def __init__(self, store: LogStore) -> None:
        self._base = store
        self._query_row = dict(store.query_of_words)
        self._query_words: list[np.ndarray] = []
        self._events = [store.events]
        self._sessions = [store.sessions]
        self._impressions = [store.impressions]

    def add(self, views: NewViews, searches: NewSearches) -> None:
        at = row, column = np.nonzero(searches.shown_BxS > 0)
        query_B = np.array([self._row_of(words_Q) for words_Q in searches.words], np.int32)
        first = np.concatenate([[0], np.cumsum((searches.shown_BxS > 0).sum(axis=1))]).astype(np.int64)
        user_B, source_B = searches.user_B.astype(np.int32), searches.source_B.astype(np.int32)
        self._sessions.append(Sessions(searches.raw_id_B, user_B, query_B, searches.time_ms_B, source_B, first))
        of_results = searches.shown_BxS[at], column, searches.clicks_BxS[at]
        video_R, position_R, clicks_R = (x.astype(np.int32) for x in of_results)
        self._impressions.append(Impressions(video_R, position_R, clicks_R, **self._outcomes(searches, at)))
        self._events += [_watched(views), _clicked(searches, query_B, row[clicks_R > 0], column[clicks_R > 0])]

    def _outcomes(self, searches: NewSearches, at: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """Outcomes of results, if the log has any; without `searches.outcomes` only clicks are told."""
        columns = {name: getattr(self._base.impressions, name) for name in RESULT_OUTCOMES}
        if columns["told"] is None:
            return {}
        given = searches.outcomes
        if given is None:
            untold = {name: np.zeros(len(at[0]), column.dtype) for name, column in columns.items()}
            return untold | {"told": np.full(len(at[0]), CLICK, np.uint8)}
        return {name: given[name][at].astype(column.dtype) for name, column in columns.items()}

    def store(self, views: NewViews | None = None, end_ms: int | None = None) -> LogStore:
        """The log so far, `views` of the current day included. `end_ms`: the new end of the log, for the cuts."""
        base = self._base
        events = _joined(Events, self._events if views is None else [*self._events, _watched(views)])
        # Feed views before searches at equal times, as in the store.
        order = np.lexsort((events.surface, events.time_ms, events.user))
        events = Events(**{name: column[order] for name, column in vars(events).items()})
        first_event = np.searchsorted(events.user, np.arange(base.counts.users + 1)).astype(np.int64)
        sessions = _joined(Sessions, self._sessions, first="first_impression")
        impressions = _joined(Impressions, self._impressions)
        queries = self._queries()
        sizes = {"events": len(events.user), "sessions": len(sessions.user), "impressions": len(impressions.video)}
        counts = dataclasses.replace(base.counts, **sizes, queries=len(queries.first_word) - 1)
        return dataclasses.replace(
            base,
            users=dataclasses.replace(base.users, first_event=first_event),
            events=events,
            sessions=sessions,
            impressions=impressions,
            queries=queries,
            counts=counts,
            cuts=base.cuts if end_ms is None else dataclasses.replace(base.cuts, end_ms=end_ms),
            fingerprint=f"{base.fingerprint}+{len(events.user)}",
        )

    def query_rows(self, words: Sequence[np.ndarray]) -> np.ndarray:
        """int32 rows of queries by their words; 0 for a query that is not in the log so far."""
        return np.array([self._query_row.get(np.asarray(one, np.int32).tobytes(), 0) for one in words], np.int32)

    def _row_of(self, words_Q: np.ndarray) -> int:
        words = np.asarray(words_Q, np.int32)
        key = words.tobytes()
        if key not in self._query_row:
            self._query_row[key] = len(self._query_row)
            self._query_words.append(words)
        return self._query_row[key]

    def _queries(self) -> Queries:
        base, length = self._base.queries, [len(words) for words in self._query_words]
        first = np.asarray(base.first_word)
        return Queries(
            np.concatenate([first, first[-1] + np.cumsum(length, dtype=np.int64)]),
            np.concatenate([np.asarray(base.words, np.int32), *self._query_words]),
        )


def _watched(views: NewViews) -> Events:
    count = len(views.user_N)
    began_N, ended_N = times(views.user_N, views.time_ms_N, views.play_ms_N)
    return Events(
        user=views.user_N.astype(np.int32),
        video=views.video_N.astype(np.int32),
        query=np.zeros(count, np.int32),
        time_ms=began_N,
        surface=np.full(count, FEED_SURFACE, np.int8),
        click=views.click_N,
        like=views.like_N,
        follow=views.follow_N,
        forward=views.forward_N,
        play_ms=views.play_ms_N,
        duration_ms=views.duration_ms_N,
        known_ms=ended_N,
        told=np.where(views.duration_ms_N > 0, EVERYTHING, EVERYTHING & ~PLAY).astype(np.uint8),
    )


def _clicked(searches: NewSearches, query_B: np.ndarray, row: np.ndarray, column: np.ndarray) -> Events:
    given, time_ms = searches.outcomes, searches.time_ms_B[row]
    if given is None:
        none, zeros = np.zeros(len(row), bool), np.zeros(len(row), np.int64)
        outcome = {"like": none, "follow": none, "forward": none, "play_ms": zeros, "duration_ms": zeros}
        outcome |= {"known_ms": time_ms, "told": np.full(len(row), CLICK, np.uint8)}
    else:
        outcome = {name: given[name][row, column] for name in RESULT_OUTCOMES}
        outcome["known_ms"] = result_known_ms(time_ms, outcome["play_ms"], outcome["duration_ms"], outcome["told"])
    return Events(
        user=searches.user_B[row].astype(np.int32),
        video=searches.shown_BxS[row, column].astype(np.int32),
        query=query_B[row],
        time_ms=time_ms,
        surface=np.full(len(row), SEARCH_SURFACE, np.int8),
        click=np.ones(len(row), bool),
        **outcome,
    )


def _joined(kind: type[Columns], parts: Sequence[Columns], first: str | None = None) -> Columns:
    """Concatenates columns. `first` names one of offsets, which are shifted by the part before."""
    out = {}
    for field in dataclasses.fields(kind):
        if getattr(parts[0], field.name) is None:
            continue
        columns = [np.asarray(getattr(part, field.name)) for part in parts]
        if field.name == first:
            starts = np.cumsum([0, *(column[-1] for column in columns[:-1])])
            columns = [columns[0], *(column[1:] + start for column, start in zip(columns[1:], starts[1:], strict=True))]
        out[field.name] = np.concatenate(columns)
    return kind(**out)
