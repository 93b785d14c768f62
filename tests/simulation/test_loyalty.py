"""Loyalty: visits follow joy, expectation adapts, and people leave a platform worse than elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.policies import RandomPolicy
from pr2_jax.config import LoyaltyConfig, WorldConfig
from pr2_jax.simulation.loyalty import MOST_EAGER, Loyalty, joy, searches_a_visit, tomorrow, visit_chance
from pr2_jax.simulation.world import World

CONFIG = LoyaltyConfig()
SMALL = WorldConfig(users=400, videos=800, creators=80, topics=4, subtopics=4, words_per_subtopic=12, days=3)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


NO_NEEDS = (np.zeros(0, np.int64), np.zeros(0))


def after_days(loyalty: Loyalty, joy_of_days: np.ndarray, draw: float = 0.999) -> Loyalty:
    """Everybody visits every day and has one need a day with the same joy."""
    everyone = np.arange(len(loyalty.left_U))
    for value in joy_of_days:
        visited, draws = np.ones(len(everyone), bool), np.full(len(everyone), draw)
        loyalty = tomorrow(CONFIG, loyalty, visited, everyone, np.full(len(everyone), value), draws)
    return loyalty


def test_joy_by_hand():
    watched_ms, liked = np.array([0, 60_000, 60_000, 0]), np.array([0, 0, 1, 0])
    found = joy(CONFIG, watched_ms, liked, passed_N=np.array([10, 0, 4, 30]), retries_N=np.array([2, 0, 1, 2]))
    minute = 1 - np.exp(-1)
    want = [-0.3 - 0.3, minute, minute + 0.3 - 0.12 - 0.15, -0.9 - 0.3]
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_without_surprise_visits_keep_their_rate(world):
    start = Loyalty.start(CONFIG, world.users)
    np.testing.assert_allclose(visit_chance(CONFIG, world.users, start), world.users.visit_U, rtol=1e-9)
    a_day = searches_a_visit(CONFIG, world.users, start) * world.users.visit_U
    np.testing.assert_allclose(a_day, world.users.search_rate_U, rtol=1e-9)
    assert world.users.visit_U.mean() == pytest.approx(CONFIG.visit_share, abs=1e-6)
    usual = after_days(start, np.full(50, CONFIG.elsewhere_joy))
    np.testing.assert_allclose(usual.surprise_U, 0, atol=1e-12)


def test_more_joy_more_visits_searches_and_fewer_who_leave(world):
    start = Loyalty.start(CONFIG, world.users)
    low, high = after_days(start, np.full(5, 0.0)), after_days(start, np.full(5, 0.8))
    assert (visit_chance(CONFIG, world.users, high) > visit_chance(CONFIG, world.users, low)).all()
    eager = searches_a_visit(CONFIG, world.users, high) / searches_a_visit(CONFIG, world.users, low)
    np.testing.assert_allclose(eager, np.exp(CONFIG.search_weight * (high.surprise_U - low.surprise_U)), rtol=1e-9)
    wild = dataclasses.replace(start, satisfaction_U=start.satisfaction_U + 100)
    most = searches_a_visit(CONFIG, world.users, wild) / searches_a_visit(CONFIG, world.users, start)
    np.testing.assert_allclose(most, MOST_EAGER)
    draws, visited = np.linspace(0, 1, 400, endpoint=False), np.ones(400, bool)
    rare = dataclasses.replace(CONFIG, leave_rate=0.1)
    leavers = [tomorrow(rare, state, visited, *NO_NEEDS, draws).left_U.sum() for state in (low, start, high)]
    assert leavers[0] > leavers[1] == 40 > leavers[2] > 0
    absent = tomorrow(rare, low, np.zeros(400, bool), *NO_NEEDS, draws)
    assert not absent.left_U.any()  # people leave on a visit only


def test_novelty_wears_off_by_half(world):
    """A lasting gain of .2: all of it at first, `lasting` of it in the end, in between by the stated half-life."""
    start = Loyalty.start(CONFIG, world.users)
    better = np.full(400, CONFIG.elsewhere_joy + 0.2)
    soon, late = after_days(start, better[:20]), after_days(start, better)
    assert late.surprise_U[0] == pytest.approx(CONFIG.lasting * 0.2, rel=0.01)
    assert soon.surprise_U[0] > 1.2 * late.surprise_U[0]
    at_once = dataclasses.replace(start, satisfaction_U=start.satisfaction_U + 0.2)
    for _ in range(int(CONFIG.expectation_days)):
        at_once = tomorrow(CONFIG, at_once, np.ones(400, bool), *NO_NEEDS, np.full(400, 0.999))
    assert at_once.surprise_U[0] == pytest.approx(0.2 - 0.5 * (1 - CONFIG.lasting) * 0.2, rel=1e-9)


def test_satisfaction_halves_its_distance_in_so_many_searches(world):
    start = Loyalty.start(CONFIG, world.users)
    user = np.zeros(int(CONFIG.satisfaction_searches), np.int64)
    after = tomorrow(CONFIG, start, np.ones(400, bool), user, np.full(len(user), 1.0), np.full(400, 0.999))
    assert after.satisfaction_U[0] == pytest.approx((CONFIG.elsewhere_joy + 1.0) / 2)
    assert (after.satisfaction_U[1:] == CONFIG.elsewhere_joy).all()  # who did not search has learnt nothing


def test_habit_and_coming_back(world):
    start = Loyalty.start(CONFIG, world.users)
    state, never = start, np.zeros(400, bool)
    for _ in range(int(CONFIG.habit_days)):
        state = tomorrow(CONFIG, state, never, *NO_NEEDS, np.full(400, 0.999))
    np.testing.assert_allclose(state.habit_U, start.habit_U / 2)
    assert (visit_chance(CONFIG, world.users, state) < world.users.visit_U).all()
    gone = dataclasses.replace(after_days(start, np.full(9, -0.5)), left_U=np.ones(400, bool))
    assert (visit_chance(CONFIG, world.users, gone) == 0).all()
    back = tomorrow(CONFIG, gone, never, *NO_NEEDS, np.where(np.arange(400) < 10, 0.0, 0.999))
    assert back.left_U.tolist() == [False] * 10 + [True] * 390
    np.testing.assert_allclose(back.surprise_U[:10], 0)  # another chance
    assert (back.surprise_U[10:] < 0).all()


def test_people_stay_with_a_better_system(world):
    """Two weeks under the logging system and under a random policy: the same people, common random numbers."""
    said = []
    for system in (None, RandomPolicy(world)):
        state = world.start()
        for _ in range(14):
            state, _ = world.step_day(state, system)
        said.append((state.loyalty.satisfaction_U.mean(), state.loyalty.habit_U.mean(), state.loyalty.left_U.mean()))
    (joy_logged, habit_logged, left_logged), (joy_random, habit_random, left_random) = said
    assert joy_logged > joy_random + 0.1
    assert habit_logged > habit_random
    assert left_logged < left_random
