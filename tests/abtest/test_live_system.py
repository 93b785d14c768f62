"""A work directory that serves the simulated platform: what the engine answers, no future, and a log that grows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.live_system import Platform, Rows
from pr2_jax.data.history.histories import seen
from pr2_jax.errors import BadInput
from pr2_jax.search.engine import SearchEngine
from pr2_jax.search.pipelines import NAMES
from pr2_jax.simulation.day_log import day_start_ms
from pr2_jax.simulation.logging_policies import SearchRequests
from pr2_jax.simulation.world import World
from pr2_jax.types import Requests

SLATE = 10


@dataclasses.dataclass
class Remembering:
    """Serves as another does, and keeps what it was asked."""

    other: object
    asked: list[SearchRequests] = dataclasses.field(default_factory=list)

    def search(self, requests, slate, rng):
        self.asked.append(requests)
        return self.other.search(requests, slate, rng)


@pytest.fixture(scope="module")
def next_day(ground):
    """The searches of the day after the log, and the day, as the logging system served it."""
    remembering = Remembering(ground.world.logging)
    after, log = ground.world.step_day(ground.state, remembering)
    return remembering.asked[0], after, log


@pytest.fixture
def platform(system, ground) -> Platform:
    return Platform(system, ground.world)


def test_rows_are_of_the_same_people_videos_and_words(system, ground):
    rows, store, world = Rows.of(system, ground.world), system.store, ground.world
    np.testing.assert_array_equal(store.users.raw_id[rows.user_U], world.users.raw_id_U)
    np.testing.assert_array_equal(store.videos.raw_id[rows.video_V], world.catalogue.raw_id_V)
    assert rows.word_W.any()
    assert all(store.words.text[row] == world.vocabulary.text[w] for w, row in enumerate(rows.word_W) if row)


@pytest.mark.parametrize("pipeline", ["base", "pr2"])
def test_answers_are_the_engines(system, ground, platform, next_day, pipeline):
    """At the first moment of the day after, when nothing has been watched yet."""
    requests, rows = next_day[0].take(np.arange(20)), Rows.of(system, ground.world)
    time_ms_B = np.full(20, day_start_ms(ground.world.config, requests.day) + 1)
    requests = dataclasses.replace(requests, time_ms_B=time_ms_B)
    words = [rows.word_W[words_Q[words_Q > 0]] for words_Q in requests.words_BxQ]
    words_BxQ = np.zeros((20, system.config.data.query_tokens), np.int32)
    for row, given in zip(words_BxQ, words, strict=True):
        row[: len(given)] = given[: len(row)]
    user_B = rows.user_U[requests.user_B]
    query_B = np.array([system.store.query_of_words.get(given.tobytes(), 0) for given in words])
    asked = Requests(user_B, time_ms_B, words_BxQ, seen(system.store, user_B, time_ms_B), query_B)
    ranked = SearchEngine(system, pipeline).rank(system.encode(asked), SLATE)
    expected_BxS = system.store.videos.raw_id[np.maximum(ranked.ids_BxK[:, :SLATE], 0)]
    found_BxS = platform.search(pipeline, requests, SLATE)
    np.testing.assert_array_equal(ground.world.catalogue.raw_id_V[found_BxS], expected_BxS)


def test_every_step_of_the_ladder_serves(platform, next_day):
    requests = next_day[0].take(np.arange(8))
    found = {name: platform.served(name).search(requests, SLATE, None) for name in NAMES}
    for slates_BxS in found.values():
        assert slates_BxS.shape == (8, SLATE)
        assert all(len(set(row)) == SLATE and row.min() >= 0 for row in slates_BxS.tolist() for row in [np.array(row)])
    assert len({slates_BxS.tobytes() for slates_BxS in found.values()}) > 3


def test_nothing_after_a_search_is_seen(system, ground, next_day):
    """The day's later views change nothing, earlier ones do."""
    requests = next_day[0]
    views = requests.views
    row = int(np.argmax(np.isin(requests.user_B, views.user_N) & (requests.time_ms_B > np.median(views.time_ms_N))))
    one = requests.take(np.array([row]))
    before = np.flatnonzero(views.time_ms_N < one.time_ms_B[0])
    assert 0 < len(before) < len(views.time_ms_N)
    answers = []
    for kept in (views, views.take(before)):
        platform = Platform(system, ground.world)
        answers.append(platform.search("pr2", dataclasses.replace(one, views=kept), 100))
    np.testing.assert_array_equal(*answers)


def test_what_was_clicked_yesterday_is_not_shown_again(system, ground, platform, next_day):
    _, after, log = next_day
    start_ms = day_start_ms(ground.world.config, after.day)

    def again(row: int) -> SearchRequests:
        user_B, words_BxQ = log.searches.user_B[[row]], log.searches.queries.words_BxQ[[row]]
        return SearchRequests(after.day, user_B, words_BxQ, np.array([start_ms + 1]), after.popularity_V, after.engaged)

    clicked = list(zip(*np.nonzero(log.searches.responses.click_BxS), strict=True))
    found = [at for at in clicked if log.searches.slates_BxS[at] in platform.search("base", again(at[0]), 100)]
    assert found  # as far as the log goes
    platform.add(log)
    assert not any(log.searches.slates_BxS[at] in platform.search("base", again(at[0]), 100) for at in found)
    one = again(0)
    _, searcher = platform.searcher("pr2", one)
    view, _ = platform.searcher("pr2", one)
    assert view.store.counts.sessions == system.store.counts.sessions + len(log.searches.user_B)
    assert searcher.snapshot.popularity_V.sum() > 0


def test_another_world_is_refused(system, ground):
    other = World.build(dataclasses.replace(ground.world.config, users=99))
    with pytest.raises(BadInput, match=r"not of the simulated world .* \(100 people in the log, 99 in the world\)"):
        Platform(system, other)


def test_words_that_the_log_never_held_are_unknown(platform, next_day):
    requests = next_day[0].take(np.arange(1))
    nothing = dataclasses.replace(requests, words_BxQ=np.zeros_like(requests.words_BxQ))
    assert (platform.search("pr2", nothing, SLATE) >= 0).all()
    assert platform.search("pr2", requests.take(np.arange(0)), SLATE).shape == (0, SLATE)
