"""A search runs the query tower, the person and the seed filter once each, and none that its pipeline does not need."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from pr2_jax.encoders.preference_regression import PreferenceRegression
from pr2_jax.retrieval import qrcf
from pr2_jax.search.engine import SearchEngine
from pr2_jax.types import ModelFunction

ONCE = {"content_query": 1, "preference_says": 1, "filter_ids": 1, "fits": 1, "pdr_query_user": 1, "qin": 1}


class Counted:
    """Models that count the calls of their functions."""

    def __init__(self, models, calls: Counter) -> None:
        self._models, self._calls = models, calls

    def functions(self, model, directory):
        found = self._models.functions(model, directory)
        return {name: ModelFunction(_counting(self._calls, name, call), {}) for name, call in found.items()}


def _counting(calls: Counter, name: str, function: Callable) -> Callable:
    def call(_, batch):
        calls[name] += 1
        return function(batch)

    return call


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Of the filter and of people's own regressions; the models' functions add theirs."""
    calls, filter_ids, people = Counter(), qrcf.filter_ids, PreferenceRegression.people

    def filtered(*given):
        calls["filter_ids"] += 1
        return filter_ids(*given)

    def fitted(*given):
        calls["fits"] += 1
        return people(*given)

    monkeypatch.setattr(qrcf, "filter_ids", filtered)
    monkeypatch.setattr(PreferenceRegression, "people", fitted)
    return calls


def _searched(engine, calls, pipeline: str, user, query: str) -> dict[str, int]:
    counted = dataclasses.replace(engine.system, models=Counted(engine.system.models, calls))
    found = SearchEngine(counted, pipeline).search(user, query, 10)
    assert len(found.results) == 10
    return {name: count for name, count in calls.items() if name != "preference_logits"}


def test_a_search_of_the_person(engine, calls, watcher, known_query):
    assert _searched(engine, calls, "pr2", watcher, known_query) == ONCE
    assert calls["preference_logits"] == 1


def test_base_needs_nothing_of_the_person(engine, calls, watcher, known_query):
    assert _searched(engine, calls, "base", watcher, known_query) == {"content_query": 1, "base": 1}


def test_nobody_in_particular_has_no_past_to_encode(engine, calls, known_query):
    """Candidates of all channels, in the order of the base ranker; the filter is asked what it finds: nothing."""
    want = {"content_query": 1, "filter_ids": 1, "pdr_query_user": 1, "base": 1}
    assert _searched(engine, calls, "pr2", None, known_query) == want


def test_a_batch_with_strangers_encodes_them_once_more(engine, calls, watcher, known_query):
    """Not once a reader: a batch, and each part of it that another ranker orders."""
    system = dataclasses.replace(engine.system, models=Counted(engine.system.models, calls))
    counted, store = SearchEngine(system), system.store
    words = store.word_rows(known_query.split())
    counted.rank(counted.encode(np.array([store.user_row(watcher), 0], np.int32), [words, words]), 10)
    assert (calls["content_query"], calls["filter_ids"], calls["pdr_query_user"]) == (3, 2, 1)
