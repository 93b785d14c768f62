"""An experiment on a small world: what differs is found, what does not is not, and what cannot be shown is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.experiment import Plan, analyse, require_people, run_in_turn
from pr2_jax.abtest.policies import OraclePolicy
from pr2_jax.abtest.population import Population, Replay
from pr2_jax.config import WorldConfig
from pr2_jax.errors import BadInput
from pr2_jax.simulation.world import World

SMALL = WorldConfig(
    users=300, videos=500, creators=50, topics=4, subtopics=4, words_per_subtopic=12, days=5, sessions_per_day=1.0
)


def long_plays(play_ms, duration_ms):
    return play_ms > duration_ms / 2


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay.of(World.build(SMALL), long_plays)


def run(replay: Replay, plan: Plan, place, system_of):
    def serve(population, arm):
        return system_of(replay.world, plan.arms[arm], population.state)

    split, crn_control = (
        Population(replay.world, None, place / name, long_plays, serve, replay.state) for name in ("split", "control")
    )
    crn_control = crn_control if plan.common_random_numbers else None
    run_in_turn(plan, split, crn_control)
    return analyse(plan, split, crn_control, replay.past)


def systems(world, name, state):
    return world.logging if name == "base" else OraclePolicy(world, state)


def test_a_better_system_is_found_and_common_random_numbers_shrink_the_error(replay, tmp_path):
    plan = Plan(arms=("base", "oracle"), days=6, aa_days=3, warm_up=1)
    apart = run(replay, dataclasses.replace(plan, common_random_numbers=False), tmp_path / "a", systems)
    shared = run(replay, plan, tmp_path / "b", systems)
    for found in (apart, shared):
        ctr = found.lifts["oracle"]["ctr"]
        assert ctr.interval()[0] > 0.1
        assert ctr.treated > ctr.control
        assert found.lifts["oracle"]["no_click"].interval()[1] < 0
        assert sum(found.people_by_arm) == SMALL.users
        assert len(found.by_day["oracle"]["ctr"]) == 6
        assert found.by_day["oracle"]["ctr"][-1] == ctr
    assert shared.lifts["oracle"]["ctr"].error < apart.lifts["oracle"]["ctr"].error
    assert shared.lifts["oracle"]["ctr"].lift == pytest.approx(apart.lifts["oracle"]["ctr"].lift, abs=0.15)


def test_the_same_system_twice_differs_by_nothing_but_chance(replay, tmp_path):
    def twice(world, name, state):
        return world.logging

    found = run(replay, Plan(arms=("base", "again"), days=6, aa_days=3, common_random_numbers=False), tmp_path, twice)
    p = [found.lifts["again"][name].p for name in ("ctr", "watch", "like", "no_click", "active", "relevance")]
    assert min(p) > 0.001
    assert np.mean(np.array(p) > 0.05) > 0.6
    low, high = found.before["again"]["ctr"].interval()
    assert low < 0 < high


def test_what_cannot_be_shown_is_refused_with_the_number_needed(replay):
    past = replay.past
    with pytest.raises(BadInput, match=r"300 people cannot show a change of 1 % in CTR@10 .* [\d,]+ are needed"):
        require_people(Plan(foreseen=0.01), past, forced=False)
    many = require_people(Plan(foreseen=0.01), past, forced=True)
    assert many > 300
    assert require_people(Plan(foreseen=0.5), past, forced=False) < 300
    few = require_people(Plan(foreseen=0.01, days=10), past, forced=True)
    assert require_people(Plan(foreseen=0.01, days=5), past, forced=True) == pytest.approx(2 * few, rel=0.01)
    assert require_people(Plan(foreseen=0.01, days=300), past, forced=True) == many  # people differ lastingly


def test_plans_have_names_of_their_own():
    names = [
        Plan().name,
        Plan(days=60).name,
        Plan(("base", "+qrcf+pdr")).name,
        Plan(salt="../a b", common_random_numbers=False).name,
        Plan(salt="b.old").name,
    ]
    assert names == [
        "base+pr2",
        "base+pr2,days=60",
        "base+qrcf_pdr",
        "base+pr2,salt=%2E%2E%2Fa%20b,common_random_numbers=False",
        "base+pr2,salt=b%2Eold",
    ]
    assert Plan(salt="b", days=3, foreseen=0.1).non_defaults(("days", "foreseen")) == ",days=3,foreseen=0%2E1"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"arms": ("base",)}, "two or more"),
        ({"arms": ("base", "base")}, "different"),
        ({"decided_by": "smiles"}, "expected one of ctr"),
        ({"days": 0}, "days = 0, expected 1 to 365"),
        ({"salt": "x" * 121}, "salt takes 121 bytes of a name, expected 120 or fewer"),
        ({"salt": "日本" * 10}, "salt takes 180 bytes of a name"),
        ({"foreseen": 0.0}, "foreseen = 0, expected a relative change of 0.001 or more"),
        ({"foreseen": 1e-320}, "expected a relative change of 0.001 or more"),
        ({"decided_by": "day_7"}, "'day_7' is seen 7 days later: expected aa_days of 8 or more, not 7"),
        ({"decided_by": "day_7", "aa_days": 8, "days": 5}, "expected warm_up and days together of 8 or more, not 7"),
        ({"aa_days": 1}, "aa_days = 1, expected 2 to 365"),
    ],
)
def test_plans_that_cannot_be(fields, said):
    with pytest.raises(BadInput, match=said):
        Plan(**fields)
