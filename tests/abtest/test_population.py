"""A killed population resumes with the same days."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.abtest.policies import OraclePolicy
from pr2_jax.abtest.population import Population, from_arrays, load, save, to_arrays
from pr2_jax.config import WorldConfig
from pr2_jax.errors import StaleArtifact
from pr2_jax.simulation.world import World, WorldState

SMALL = WorldConfig(users=80, videos=400, creators=40, topics=4, subtopics=4, words_per_subtopic=12, days=3)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


def oracle(population: Population, arm: int) -> OraclePolicy:
    return OraclePolicy(population.world, population.state)


def population(world: World, directory, serve=oracle) -> Population:
    return Population(
        world, None, directory, lambda play_ms, duration_ms: play_ms > duration_ms / 2, serve, world.start()
    )


def test_states_come_back_as_they_were(world, tmp_path):
    state, log = world.step_day(world.start())
    save(tmp_path / "a.npz", to_arrays(state, "state.") | to_arrays(log, "log."))
    kept = load(tmp_path / "a.npz")
    again, same = from_arrays(WorldState, kept, "state."), from_arrays(type(log), kept, "log.")
    for one, other in ((state, again), (log, same)):
        left, right = to_arrays(one), to_arrays(other)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
            assert left[name].dtype == right[name].dtype, name
    assert isinstance(again.day, int)
    assert not list(tmp_path.glob("*.partial"))


def test_cut_short_and_carried_on(world, tmp_path):
    whole = population(world, tmp_path / "whole")
    assert whole.resume() == 0
    for _ in range(4):
        whole.step()
    first = population(world, tmp_path / "cut")
    first.resume()
    for _ in range(2):
        first.step()
    (tmp_path / "cut" / "day_002.npz.partial").write_bytes(b"half a day")
    second = population(world, tmp_path / "cut")
    assert second.resume() == 2
    for _ in range(2):
        second.step()
    assert len(second.days) == len(whole.days) == 4
    for one, other in zip(whole.days, second.days, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
    for name, value in to_arrays(whole.state).items():
        np.testing.assert_array_equal(value, to_arrays(second.state)[name])


def test_a_damaged_day_names_what_to_remove(world, tmp_path):
    first = population(world, tmp_path)
    first.resume()
    first.step()
    day = tmp_path / "day_000.npz"
    day.write_bytes(day.read_bytes()[:1000])
    with pytest.raises(StaleArtifact, match=r"day_000\.npz is damaged .*: remove .*day_000\.npz"):
        population(world, tmp_path).resume()


def test_random_numbers_are_common_to_all_systems(world, tmp_path):
    """Two populations from one state, one served better: on the first day the same people have the same needs."""
    populations = [
        population(world, tmp_path / "plain", lambda *_: world.logging),
        population(world, tmp_path / "better"),
    ]
    for one in populations:
        one.resume()
        one.step()
    plain, better = (one.days[0] for one in populations)
    np.testing.assert_array_equal(plain["visits"], better["visits"])
    np.testing.assert_array_equal(plain["needs"], better["needs"])
    assert better["clicks"].sum() > plain["clicks"].sum()
    assert dataclasses.is_dataclass(populations[0].state)
