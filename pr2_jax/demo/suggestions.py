"""Suggests people and queries of the log for the demo page, by fixed rules."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.history.histories import past_events
from pr2_jax.data.store.log_store import LogStore

SHARES = (("many", 0.02), ("many", 0.1), ("middling", 0.5), ("middling", 0.6), ("few", 0.9), ("few", 0.98))
"""Suggested ranks among all people with a past, most events first. The very first may be no person at all."""
SEARCHES = 4
"""Queries of their own that are shown beside a person."""


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody of the log."""

    user: int  # raw
    events: int  # feed views and clicked results before the moment of the search
    much: str  # of SHARES
    searches: tuple[str, ...]  # what they searched last, latest first


def suggested_people(store: LogStore, now_ms: int) -> tuple[Person, ...]:
    """Of people with a past, those at SHARES; of equally many events, the lower raw id comes first."""
    row_U = np.arange(1, store.counts.users)
    events_U = past_events(store, row_U, np.full(len(row_U), now_ms))
    order = np.argsort(-events_U, kind="stable")  # rows are in the order of raw ids
    order = order[: np.count_nonzero(events_U)]
    places = {int(share * len(order)): much for much, share in reversed(SHARES)} if len(order) else {}
    return tuple(
        Person(
            int(store.users.raw_id[row_U[order[place]]]),
            int(events_U[order[place]]),
            much,
            searches_of(store, int(row_U[order[place]]), now_ms),
        )
        for place, much in sorted(places.items())
    )


def searches_of(store: LogStore, user: int, before_ms: int, most: int = SEARCHES) -> tuple[str, ...]:
    """Distinct queries that the person of a row searched before a moment, latest first; none of somebody unknown."""
    if user == 0:
        return ()
    sessions = store.sessions  # in the order of time
    mine = np.flatnonzero(np.asarray(sessions.user)[: np.searchsorted(sessions.time_ms, before_ms)] == user)[::-1]
    return _texts(store, sessions.query[mine], most)


def common_queries(store: LogStore, most: int) -> tuple[str, ...]:
    """The queries searched most; of equals, the one that was searched first."""
    searched_Nq = np.bincount(np.asarray(store.sessions.query), minlength=store.counts.queries)
    order = np.argsort(-searched_Nq, kind="stable")
    return _texts(store, order[searched_Nq[order] > 0], most)


def _texts(store: LogStore, query_N: np.ndarray, most: int) -> tuple[str, ...]:
    """Of the first so many distinct queries whose words are all known; word ids where the log has no words.csv."""
    texts: dict[str, None] = {}
    for row in query_N:
        if len(texts) == most:
            break
        words = store.queries.words[store.queries.first_word[row] : store.queries.first_word[row + 1]]
        if len(words) and words.all():
            texts[store.text_of(words)] = None
    return tuple(texts)
