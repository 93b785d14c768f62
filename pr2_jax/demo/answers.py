"""Searches by base and by pr2 as plain data, for the page and for the API alike; suggested people and queries."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from pr2_jax.data.history.histories import past_events
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.demo.demo_request import DEFAULT_RESULTS, DemoRequest
from pr2_jax.search.side_by_side import Comparison, Shown, SideBySide

QUERIES = 60
"""Suggested ones."""
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


class Answers:
    """Of two systems over one work directory or serving artifact."""

    def __init__(self, both: SideBySide) -> None:
        self._both, self._store = both, both.system.store
        self._now_ms = next(iter(both.engines.values())).now_ms
        self.people = suggested_people(self._store, self._now_ms)
        self.queries = common_queries(self._store, QUERIES)

    @property
    def log(self) -> dict[str, Any]:
        """The log's size, and the moment as of which everything is searched (ms)."""
        counts = self._store.counts
        return {"people": counts.users - 1, "videos": counts.videos - 1, "now_ms": self._now_ms}

    def warm(self) -> None:
        """Compiles what searches run: of everybody suggested, and of nobody."""
        query = self.queries[0] if self.queries else ""
        for user in (*(person.user for person in self.people), None):
            self.search(DemoRequest(user, query, DEFAULT_RESULTS))

    def search(self, asked: DemoRequest) -> dict[str, Any]:
        """Both lists best first, and all that is to be said beside them; JSON can hold it."""
        depth, start = self._both.system.config.search.candidates, time.perf_counter()
        found = self._both.search(asked.user, asked.query, asked.k, depth=depth)
        took_ms = (time.perf_counter() - start) * 1000
        return {
            "user": asked.user,
            "query": asked.query,
            "k": asked.k,
            "known_user": found.known_user,
            "words": [dataclasses.asdict(word) for word in found.words],
            "withholds_clicked": self._both.system.fitted.choices.withholds_clicked,
            "unknown_words": list(found.unknown_words),
            "notes": self._notes(asked, found),
            "took_ms": round(took_ms, 1),
            "depth": max(depth, asked.k),
            "moves": {name: _moves(results, asked.k) for name, results in found.lists.items()},
            "lists": {
                name: [self._result(place, name, one) for place, one in enumerate(results, 1)]
                for name, results in found.lists.items()
            },
            "person": self.person(asked.user),
        }

    def person(self, user: int | None) -> dict[str, Any]:
        """What the log knows of a raw user id: number of events, the last of them, the last searches."""
        row = 0 if user is None else self._store.user_row(user)
        events = int(past_events(self._store, np.array([row]), np.array([self._now_ms]))[0])
        return {
            "user": user,
            "known": row > 0,
            "events": events,
            "past": [dataclasses.asdict(one) for one in self._both.past(user, 12)],
            "searches": list(searches_of(self._store, row, self._now_ms)),
        }

    def _result(self, place: int, system: str, one: Shown) -> dict[str, Any]:
        row = int(self._store.video_rows(np.array([one.result.video_id]))[0])
        upload_ms, author = int(self._store.videos.upload_ms[row]), int(self._store.videos.author[row])
        others = [name for name in self._both.engines if name != system]
        return {
            "place": place,
            "video_id": one.result.video_id,
            "caption": one.caption,
            "author": author or None,  # numbered by the store in the order of the log's ids, which it does not keep
            "age_days": round(max(0, self._now_ms - upload_ms) / DAY_MS, 1) if upload_ms else None,
            "score": one.result.score,
            "relevance": one.result.relevance,
            "heads": one.result.heads,
            "channels": one.result.channels,
            "because": _reasons(one),
            "clicked_before": one.result.clicked_before,
            "elsewhere": dict(zip(others, one.elsewhere, strict=True)),
        }

    def _notes(self, asked: DemoRequest, found: Comparison) -> list[str]:
        """What was not understood, or is done otherwise because of what is missing."""
        config, notes, known_user = self._both.system.config, [], found.known_user
        if asked.user is None:
            notes.append("Nobody in particular: results without a person's past.")
        elif not known_user:
            notes.append(f"Person {asked.user} is not in the log: results without a person's past.")
        else:
            events = self.person(asked.user)["events"]
            if events < config.search.least_events:
                notes.append(
                    f"Person {asked.user} has only {events} past events, fewer than {config.search.least_events}: pr2 "
                    "orders what all its channels found with the ranker that does not know the person."
                )
        if not found.words:
            what = "has no word, only signs" if asked.query.strip() else "is empty"
            offered = "what pdr, which has a vector for everybody, offers anybody"
            how = "the person's preference" if known_user else offered
            notes.append(f"The query {what}: base goes by what is popular, pr2 by {how}.")
        elif found.unknown_words:
            told, none = ", ".join(found.unknown_words), len(found.unknown_words) == len(found.words)
            rest = ": no word is known, as if the query were empty" if none else ""
            notes.append(f"Words that are not in the log: {told}{rest}.")
        if len(found.words) > config.data.query_tokens:
            notes.append(f"Only the first {config.data.query_tokens} words are read.")
        return notes


def _moves(results: tuple[Shown, ...], k: int) -> dict[str, int]:
    """How many of a list stand in the other one too, further down in it than is shown, or not at all."""
    places = [place for one in results for place in one.elsewhere]
    shown = sum(place is not None and place <= k for place in places)
    return {"shown": shown, "deeper": len(places) - places.count(None) - shown, "absent": places.count(None)}


def _reasons(one: Shown) -> list[dict[str, Any]]:
    """Past views that led to a result, strongest first, several of one video as one."""
    share: dict[tuple[int, str], float] = {}
    for seed, (caption, part) in zip(one.result.because, one.because, strict=True):
        share[seed.video_id, caption] = share.get((seed.video_id, caption), 0.0) + part
    best = sorted(share, key=lambda of: -share[of])
    return [{"video_id": of[0], "caption": of[1], "share": share[of]} for of in best]


def suggested_people(store: LogStore, now_ms: int) -> tuple[Person, ...]:
    """Of people with a past, those at SHARES; of equally many events, the lower raw id comes first."""
    row_U = np.arange(1, store.counts.users)
    events_U = past_events(store, row_U, np.full(len(row_U), now_ms))
    order = np.argsort(-events_U, kind="stable")[: np.count_nonzero(events_U)]  # rows are in the order of raw ids
    places = {int(share * len(order)): much for much, share in reversed(SHARES)} if len(order) else {}
    people = []
    for place, much in sorted(places.items()):
        row, events = int(row_U[order[place]]), int(events_U[order[place]])
        people.append(Person(int(store.users.raw_id[row]), events, much, searches_of(store, row, now_ms)))
    return tuple(people)


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
