"""Two systems beside each other, and why."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.search.engine import SearchEngine
from pr2_jax.search.side_by_side import SideBySide


@pytest.fixture(scope="module")
def both(engine) -> SideBySide:
    return SideBySide({"base": SearchEngine(engine.system, "base"), "pr2": engine})


def test_lists_are_those_of_the_engines(both, watcher, known_query):
    seen = both.search(watcher, known_query, 5)
    assert list(seen.lists) == ["base", "pr2"]
    for name, shown in seen.lists.items():
        alone = both.engines[name].search(watcher, known_query, 5).results
        assert [one.result for one in shown] == list(alone)
    ids = {name: [one.result.video_id for one in shown] for name, shown in seen.lists.items()}
    for one in seen.lists["base"]:
        expected = ids["pr2"].index(one.result.video_id) + 1 if one.result.video_id in ids["pr2"] else None
        assert one.elsewhere == (expected,)


def test_places_can_be_looked_for_further_down(both, watcher, known_query):
    near, far = (both.search(watcher, known_query, 5, depth=depth) for depth in (0, 40))
    deep = {
        name: [r.video_id for r in engine.search(watcher, known_query, 40).results]
        for name, engine in both.engines.items()
    }
    beyond = 0
    for name, other in (("base", "pr2"), ("pr2", "base")):
        assert [one.result for one in far.lists[name]] == [one.result for one in near.lists[name]]
        for one in far.lists[name]:
            expected = deep[other].index(one.result.video_id) + 1 if one.result.video_id in deep[other] else None
            assert one.elsewhere == (expected,)
            beyond += expected is not None and expected > 5
    assert beyond


def test_only_what_knows_the_person_says_because(both, watcher, known_query):
    seen = both.search(watcher, known_query, 20)
    assert not any(one.because for one in seen.lists["base"])
    assert any(one.because for one in seen.lists["pr2"])


def test_the_past_is_the_persons_own_latest_first(both, watcher, known_query):
    store = both.system.store
    mine = np.flatnonzero(np.asarray(store.events.user) == store.user_row(watcher))[::-1]
    past = both.search(watcher, known_query, 5, past=4).past
    assert [one.video_id for one in past] == np.asarray(store.videos.raw_id)[store.events.video[mine[:4]]].tolist()
    assert sorted(one.days_ago for one in past) == [one.days_ago for one in past]
    assert all(one.days_ago > 0 for one in past)


def test_nobody_in_particular_has_no_past(both):
    seen = both.search(None, "Nonsense-word", 3)
    assert (seen.past, seen.known_user, seen.unknown_words) == ((), False, ("nonsense", "word"))
    assert [(word.text, word.known) for word in seen.words] == [("nonsense", False), ("word", False)]
    assert all(len(shown) == 3 for shown in seen.lists.values())
