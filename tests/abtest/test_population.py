"""A lane that is cut short goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.policies import OraclePolicy
from pr2_jax.abtest.population import Population
from pr2_jax.abtest.state_io import flat, load, restored, save
from pr2_jax.config import WorldConfig
from pr2_jax.errors import StaleArtifact
from pr2_jax.simulation.world import World, WorldState

SMALL = WorldConfig(users=80, videos=400, creators=40, topics=4, subtopics=4, words_per_subtopic=12, days=3)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


def knowing(lane: Population, arm_U: np.ndarray | None) -> OraclePolicy:
    return OraclePolicy(lane.world, lane.state)


def lane(world: World, directory, serve=knowing) -> Population:
    return Population(
        world, None, directory, lambda play_ms, duration_ms: play_ms > duration_ms / 2, serve, world.start()
    )


def test_states_come_back_as_they_were(world, tmp_path):
    state, log = world.step_day(world.start())
    save(tmp_path / "a.npz", flat(state, "state.") | flat(log, "log."))
    kept = load(tmp_path / "a.npz")
    again, same = restored(WorldState, kept, "state."), restored(type(log), kept, "log.")
    for one, other in ((state, again), (log, same)):
        left, right = flat(one), flat(other)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
            assert left[name].dtype == right[name].dtype, name
    assert isinstance(again.day, int)
    assert not list(tmp_path.glob("*.partial"))


def test_cut_short_and_carried_on(world, tmp_path):
    whole = lane(world, tmp_path / "whole")
    assert whole.carry_on() == 0
    for _ in range(4):
        whole.live(None)
    first = lane(world, tmp_path / "cut")
    first.carry_on()
    for _ in range(2):
        first.live(None)
    (tmp_path / "cut" / "day_002.npz.partial").write_bytes(b"half a day")
    second = lane(world, tmp_path / "cut")
    assert second.carry_on() == 2
    for _ in range(2):
        second.live(None)
    assert len(second.days) == len(whole.days) == 4
    for one, other in zip(whole.days, second.days, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    for name, value in flat(whole.state).items():
        np.testing.assert_array_equal(value, flat(second.state)[name])


def test_a_damaged_day_names_what_to_remove(world, tmp_path):
    first = lane(world, tmp_path)
    first.carry_on()
    first.live(None)
    day = tmp_path / "day_000.npz"
    day.write_bytes(day.read_bytes()[:1000])
    with pytest.raises(StaleArtifact, match=r"day_000\.npz is damaged .*: remove .*day_000\.npz"):
        lane(world, tmp_path).carry_on()


def test_the_same_luck_whoever_serves(world, tmp_path):
    """Two lanes from one state, one served better: on the first day the same people come with the same needs."""
    lanes = [lane(world, tmp_path / "plain", lambda *_: world.logging), lane(world, tmp_path / "better")]
    for one in lanes:
        one.carry_on()
        one.live(None)
    plain, better = (one.days[0] for one in lanes)
    np.testing.assert_array_equal(plain["visits"], better["visits"])
    np.testing.assert_array_equal(plain["needs"], better["needs"])
    assert better["clicks"].sum() > plain["clicks"].sum()
    assert dataclasses.is_dataclass(lanes[0].state)
