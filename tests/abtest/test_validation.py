"""Validation runs: the planted effect, one run, and the summary over runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pr2_jax.abtest.experiment import Plan
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.abtest.policies import OraclePolicy
from pr2_jax.abtest.population import Replay
from pr2_jax.abtest.validation import AA_SPLITS, PlantedEffect, promote, reseeded, run, summarise
from pr2_jax.config import WorldConfig
from pr2_jax.simulation.logging_policies import LoggingSearch
from pr2_jax.simulation.world import World

SMALL = WorldConfig(
    users=200, videos=500, creators=50, topics=4, subtopics=4, words_per_subtopic=12, days=4, sessions_per_day=1.0
)
PLAN = Plan(days=4, aa_days=2, warm_up=1)


@pytest.fixture(scope="module")
def small() -> Replay:
    return Replay.of(World.build(SMALL), lambda play_ms, duration_ms: play_ms > duration_ms / 2)


def test_promote_by_hand():
    slates = np.array([[1, 2, 3], [4, 5, 6], [7, 8, -1], [9, -1, -1]])
    best = np.array([[3], [9], [7], [2]])
    assert promote(best, slates).tolist() == [[3, 1, 2], [9, 4, 5], [7, 8, -1], [2, 9, -1]]


def test_planted_where_it_says(small):
    world, requests = small.world, []

    class Recorder:
        def search(self, given, slate, rng):
            requests.append(given)
            return world.logging.search(given, slate, rng)

    world.step_day(small.state, Recorder())
    quiet = LoggingSearch(dataclasses.replace(SMALL.logging, noise=0.0), world.catalogue, world.logging.weights_WxV)
    oracle = OraclePolicy(world, small.state)
    systems = [quiet, *(PlantedEffect(quiet, oracle, share) for share in (0.0, 0.5, 1.0))]
    plain, none, half, all_ = (system.search(requests[0], 10, np.random.default_rng(0)) for system in systems)
    np.testing.assert_array_equal(none, plain)
    chance = oracle.click_probability(requests[0], np.concatenate([all_, plain], axis=1))
    assert (chance[:, 0] >= chance[:, 1:].max(axis=1)).all()
    changed = (half != plain).any(axis=1)
    assert 0.2 < changed.mean() < 0.55  # some of the best were first already
    half_chance = oracle.click_probability(requests[0], np.concatenate([half, plain], axis=1))
    assert (half_chance[changed, 0] >= half_chance[changed, 1:].max(axis=1)).all()
    for best, slate in zip(half[changed].tolist(), plain[changed].tolist(), strict=True):
        assert best[1:] == [video for video in slate if video != best[0]][:9]  # the others stay in order


def test_a_reseeded_world_has_the_same_people(small):
    one, other = (reseeded(small.world, n).step_day(small.state)[1] for n in (0, 1))
    assert one.users is other.users
    assert one.visited_U.tolist() != other.visited_U.tolist()


def test_a_run(small):
    found = run(small, PLAN, 0)
    assert json.dumps(found) == json.dumps(run(small, PLAN, 0))  # NaN is not itself
    assert found["truth"]["ctr"] > 0
    assert found["shared"]["ctr"]["error"] < found["own"]["ctr"]["error"]
    assert len(found["aa"]) == AA_SPLITS
    assert all(len(days) == PLAN.days and all(0 <= day["p"] <= 1 for day in days) for days in found["aa"])
    assert run(small, PLAN, 1)["truth"] != found["truth"]


def test_looks_at_what_is_seen_days_later_begin_in_the_warm_up(small):
    """Who came on the warm-up day may be seen again on the first counted one, as in an experiment."""
    plan = dataclasses.replace(PLAN, decided_by="day_1")
    first = [splits[0]["p"] for splits in run(small, plan, 0)["aa"]]
    assert np.isfinite(first).all()


def test_verdicts_by_hand():
    def one(truth: float, log_lift: float) -> dict:
        metrics = {name: {"log_lift": log_lift, "error": 0.01} for name in METRICS}
        return {"truth": dict.fromkeys(METRICS, truth), "shared": metrics}

    found = summarise([one(0.02, 0.03), one(0.04, 0.015), one(0.03, 0.06)], "shared")["ctr"]
    assert found.truth == pytest.approx(np.expm1(0.03))
    assert found.found == pytest.approx(2 / 3)
    assert found.covered == pytest.approx(2 / 3)
    assert found.error == 0.01
    assert found.spread == pytest.approx(np.std([0.03, 0.015, 0.06], ddof=1))


def test_verdicts_leave_out_what_could_not_be_counted():
    def one(log_lift: float, error: float = 0.01) -> dict:
        found = {"log_lift": log_lift, "error": error}
        return {"truth": dict.fromkeys(METRICS, 0.03), "shared": dict.fromkeys(METRICS, found)}

    found = summarise([one(0.03), one(np.nan), one(0.03, 0.0), one(0.05)], "shared")["ctr"]
    assert (found.found, found.error) == (1.0, 0.01)
    assert found.spread == pytest.approx(np.std([0.03, 0.05], ddof=1))
    assert summarise([one(np.nan)], "shared") == {}
