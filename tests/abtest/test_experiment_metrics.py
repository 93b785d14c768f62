"""Counters against plain Python over one simulated day."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.experiment_metrics import (
    METRICS,
    daily_counters,
    distinct,
    effective_number,
    new_authors,
    ratios,
    retention,
)
from pr2_jax.abtest.policies import ArmRouter, OraclePolicy, RandomPolicy
from pr2_jax.config import WorldConfig
from pr2_jax.simulation.world import World

SMALL = WorldConfig(
    users=150, videos=600, creators=60, topics=4, subtopics=4, words_per_subtopic=12, days=3, sessions_per_day=1.5
)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


@pytest.fixture(scope="module")
def log(world):
    return world.step_day(world.start())[1]


def long_plays(play_ms, duration_ms):
    return play_ms >= 0.7 * duration_ms


def test_counters_by_hand(world, log):
    found = daily_counters(world, world.start(), log, long_plays)
    s, catalogue = log.searches, world.catalogue
    relevance = world.true_relevance(s.queries, s.slates_BxS)
    for user in range(150):
        want = dict.fromkeys(found, 0.0) | {"days": 1.0, "visits": float(log.visited_U[user])}
        want["breadth"] = found["breadth"][user]
        want["joy"] = log.joy_M[log.need_user_M == user].sum()
        for row in np.flatnonzero(s.user_B == user):
            shown = [int(v) for v in s.slates_BxS[row] if v >= 0]
            clicked = [place for place in range(len(s.slates_BxS[row])) if s.responses.click_BxS[row, place]]
            want["searches"] += 1
            want["needs" if s.retry_B[row] == 0 else "retries"] += 1
            want["shown"] += len(shown)
            want["clicks"] += len(clicked)
            want["unclicked"] += not clicked
            want["watched_s"] += sum(s.responses.play_ms_BxS[row, place] for place in clicked) / 1000
            want["likes"] += sum(bool(s.responses.like_BxS[row, place]) for place in clicked)
            plays = [(s.responses.play_ms_BxS[row, p], catalogue.duration_ms_V[s.slates_BxS[row, p]]) for p in clicked]
            want["long_plays"] += sum(bool(long_plays(*play)) for play in plays)
            want["distinct_authors"] += len({int(catalogue.creator_V[v]) for v in shown})
            want["distinct_categories"] += len({int(catalogue.subtopic_V[v]) for v in shown})
            want["new_authors"] += len(shown)  # on the first day nobody has watched anything
            want["relevance"] += sum(relevance[row, place] for place in range(len(shown)))
        for name, value in want.items():
            assert found[name][user] == pytest.approx(value, rel=1e-5, abs=1e-9), (user, name)


def test_only_the_first_ten_count(world):
    wide = World.build(dataclasses.replace(SMALL, slate=14))
    _, log = wide.step_day(wide.start())
    found = daily_counters(wide, wide.start(), log, long_plays)
    assert found["shown"].sum() == 10 * found["searches"].sum()
    clicks = log.searches.responses.click_BxS
    assert found["clicks"].sum() == clicks[:, :10].sum() < clicks.sum()


def test_authors_are_new_to_who_has_watched_none_of_theirs(world):
    state, log = world.step_day(world.start())
    creator_V, user = world.catalogue.creator_V, int(log.views.user_N[log.views.click_N][0])
    watched = set(creator_V[state.engaged[state.engaged // len(creator_V) == user] % len(creator_V)].tolist())
    found = new_authors(world, state, np.array([user]), np.arange(len(creator_V))[None])
    assert 0 < len(watched) < len(set(creator_V.tolist()))
    np.testing.assert_array_equal(found[0], [creator not in watched for creator in creator_V.tolist()])
    assert new_authors(world, world.start(), np.array([user]), np.array([[0, 1]])).all()


def test_breadth_is_an_effective_number():
    found = effective_number(
        np.array([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.7, 0.3, 0, 0]], np.float32)
    )
    np.testing.assert_allclose(found[:3], [4, 1, 2], rtol=1e-6)
    assert 1 < found[3] < 2


def test_distinct_values_of_the_real_ones():
    values = np.array([[3, 3, 5, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    real = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    assert distinct(values, real).tolist() == [2, 0, 4]
    assert distinct(np.zeros((1, 3), int), np.ones((1, 3), bool)).tolist() == [1]


def test_retention_by_hand():
    """Eight days: one comes daily, one on the first and the last, one never."""
    visits = np.zeros((8, 3))
    visits[:, 0] = 1
    visits[[0, 7], 1] = 1
    found = retention(visits)
    assert found["leavers_1"].tolist() == [7, 1, 0]
    assert found["returns_1"].tolist() == [7, 0, 0]
    assert found["leavers_7"].tolist() == [1, 1, 0]
    assert found["returns_7"].tolist() == [1, 1, 0]
    assert found["leavers_28"].tolist() == [0, 0, 0]
    late = retention(visits, first=7)  # only the last day counts as one of return
    assert [late[f"leavers_{k}"].tolist() for k in (1, 7)] == [[1, 0, 0], [1, 1, 0]]
    assert [late[f"returns_{k}"].tolist() for k in (1, 7)] == [[1, 0, 0], [1, 1, 0]]


def test_every_metric_is_a_ratio_of_counters_over_days(world, log):
    day = daily_counters(world, world.start(), log, long_plays)
    found = ratios([day] * 8)
    everyone = np.arange(150)
    assert list(found) == list(METRICS)
    assert found["ctr"].value(everyone) == pytest.approx(day["clicks"].sum() / day["shown"].sum())
    assert found["active"].value(everyone) == pytest.approx(log.visited_U.mean())
    assert found["day_7"].value(everyone) == 1.0  # the same people every day
    assert np.isnan(found["day_28"].value(everyone))


def test_random_logging_and_oracle_policies_stand_in_this_order(world):
    """The router serves each arm's own people only."""
    state = world.start()
    arm_U = np.arange(150) % 3
    split = ArmRouter({0: RandomPolicy(world), 1: world.logging, 2: OraclePolicy(world, state)}, arm_U)
    day = daily_counters(world, state, world.step_day(state, split)[1], long_plays)
    ctr = [day["clicks"][arm_U == arm].sum() / day["shown"][arm_U == arm].sum() for arm in range(3)]
    assert ctr[0] < 0.5 * ctr[1] < ctr[1] < 0.8 * ctr[2]
    relevance = [day["relevance"][arm_U == arm].sum() / day["shown"][arm_U == arm].sum() for arm in range(3)]
    assert relevance[0] < 0.5 * relevance[1]


def test_an_arm_s_rankings_do_not_depend_on_the_others(world):
    """A deterministic system gives a person the same slate, whoever else it serves."""
    state, arm_U = world.start(), np.arange(150) % 2
    alone = world.step_day(state, OraclePolicy(world, state))[1].searches
    shared = world.step_day(state, ArmRouter({0: OraclePolicy(world, state), 1: RandomPolicy(world)}, arm_U))[
        1
    ].searches
    for user in np.flatnonzero(arm_U == 0):
        mine, theirs = (s.slates_BxS[s.user_B == user] for s in (alone, shared))
        np.testing.assert_array_equal(mine, theirs)
