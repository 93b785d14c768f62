"""People and queries of the log to start with."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.store.log_store import LogStore
from pr2_jax.demo import answers


@pytest.fixture(scope="module")
def store(finished) -> LogStore:
    return LogStore.open(finished / "store")


def _text(store, row):
    words = store.queries.words[store.queries.first_word[row] : store.queries.first_word[row + 1]]
    return " ".join(store.words.text[word] for word in words) if len(words) and min(words) else None


def test_people_stand_where_the_rule_says(store):
    now_ms, events = store.cuts.end_ms, {}
    for user, time_ms in zip(store.events.user, store.events.time_ms, strict=True):
        if time_ms < now_ms:
            raw = int(store.users.raw_id[user])
            events[raw] = events.get(raw, 0) + 1
    ranked = sorted(events, key=lambda raw: (-events[raw], raw))
    expected = {ranked[int(share * len(ranked))]: much for much, share in answers.SHARES}
    people = answers.suggested_people(store, now_ms)
    assert {one.user: one.much for one in people} == expected
    assert [one.events for one in people] == [events[one.user] for one in people]
    assert [one.events for one in people] == sorted((one.events for one in people), reverse=True)
    assert people[0].events > people[-1].events


def test_nobody_is_suggested_before_the_log_begins(store):
    assert answers.suggested_people(store, store.cuts.start_ms) == ()


def test_searches_of_a_person_are_their_own_before_the_moment(store):
    counts_U = np.bincount(np.asarray(store.sessions.user), minlength=store.counts.users)
    user, found = int(counts_U[1:].argmax()) + 1, 0
    for before_ms in (store.cuts.start_ms, store.cuts.validation_ms, store.cuts.end_ms):
        rows = [
            store.sessions.query[at]
            for at in range(store.counts.sessions)
            if store.sessions.user[at] == user and store.sessions.time_ms[at] < before_ms
        ]
        texts = list(dict.fromkeys(text for row in reversed(rows) if (text := _text(store, row))))
        assert answers.searches_of(store, user, before_ms, 3) == tuple(texts[:3])
        found += len(texts)
    assert found
    assert answers.searches_of(store, 0, store.cuts.end_ms) == ()


def test_common_queries_are_those_searched_most(store):
    rows, counts = np.unique(np.asarray(store.sessions.query), return_counts=True)
    ranked = [_text(store, row) for _, row in sorted(zip(-counts, rows, strict=True))]
    assert answers.common_queries(store, 7) == tuple([text for text in ranked if text][:7])
    assert len(set(answers.common_queries(store, 10_000))) == len([text for text in ranked if text])
