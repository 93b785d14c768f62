"""Re-finding: the rewritten log repeats earlier queries and clicks, and nothing else changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.refinds import with_refinds
from pr2_jax.simulation.world import World

CONFIG = WorldConfig(
    users=60, videos=300, creators=20, topics=3, subtopics=2, words_per_subtopic=12, shared_words=40, days=6,
    sessions_per_day=1.0, content_width=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(CONFIG)


@pytest.fixture(scope="module")
def logs(world):
    return list(world.simulate())


def _rows(searches) -> list[tuple]:
    """(person, words, results, what was clicked) of each search."""
    columns = (searches.user_B, searches.queries.words_BxQ, searches.slates_BxS, searches.responses.click_BxS)
    return [(int(user), *(tuple(x.tolist()) for x in rest)) for user, *rest in zip(*columns, strict=True)]


def test_repeated_searches_had_the_same_click_on_an_earlier_day(world, logs):
    finds, again, possible = set(), 0, 0
    for log, before in zip(with_refinds(world, logs, 0.6), logs, strict=True):
        today, as_it_was = _rows(log.searches), _rows(before.searches)
        for one, other in zip(today, as_it_was, strict=True):
            if one != other:
                user, words, results, clicked = one
                assert sum(clicked) == 1
                assert (user, words, results, results[clicked.index(True)]) in finds
                again += 1
            possible += any(find[0] == one[0] for find in finds)
        finds |= {
            (user, words, results, video)
            for user, words, results, clicked in today
            for video, hit in zip(results, clicked, strict=True)
            if hit
        }
    assert again / possible == pytest.approx(0.6, abs=0.08)


def test_everything_else_stays(world, logs):
    made = with_refinds(world, logs, 0.6)
    for log, before in zip(made, logs, strict=True):
        assert log.views is before.views
        for name in ("session_B", "user_B", "time_ms_B", "source_B", "need_B", "retry_B"):
            np.testing.assert_array_equal(getattr(log.searches, name), getattr(before.searches, name))
    for answer in (log.searches.responses for log in made):
        assert not (answer.click_BxS & ~answer.examined_BxS).any()
        assert not (answer.play_ms_BxS[~answer.click_BxS]).any()
    assert _rows(made[0].searches) == _rows(logs[0].searches)
    assert [_rows(log.searches) for log in with_refinds(world, logs, 0.0)] == [_rows(log.searches) for log in logs]


def test_the_same_seed_gives_the_same_log(world, logs):
    one, other = (with_refinds(world, logs, 0.6) for _ in range(2))
    assert [_rows(log.searches) for log in one] == [_rows(log.searches) for log in other]
    third = with_refinds(dataclasses.replace(world, config=dataclasses.replace(CONFIG, seed=1)), logs, 0.6)
    assert [_rows(log.searches) for log in third] != [_rows(log.searches) for log in one]
