"""Validation of the experiment: repeated A/A runs and planted-effect runs with a known lift.

All runs share one world, its people and its log. Each has its own random draws and its own split.

    control      the logging system's word match, without noise and popularity
    planted      the same, but in a share of searches the person's best video of the first hundred comes first
    truth        everybody planted over everybody control with common random numbers, averaged over the runs

A/A runs split the control population. They use independent draws, since a crn control would equal both arms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pr2_jax.abtest.estimators import Z_VALUE, Ratio
from pr2_jax.abtest.experiment import Plan, estimate_lifts, run_aa_days, run_arm_days, run_crn_control
from pr2_jax.abtest.experiment_metrics import METRICS, ratios
from pr2_jax.abtest.policies import OraclePolicy
from pr2_jax.abtest.population import Population, Replay
from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.logging_policies import LoggingSearch, SearchRequests, SearchSystem
from pr2_jax.simulation.world import World

ARMS = ("control", "planted")
PLANTED_SHARE, AMONG = 0.1, 100
"""Share of searches with a planted result, and the candidates that it is chosen from."""
AA_SPLITS = 4
"""A/A runs made of one run's control population."""


@dataclasses.dataclass(frozen=True)
class PlantedEffect:
    """A system with a known improvement over `base`."""

    base: SearchSystem
    oracle: OraclePolicy
    share: float

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        slates_BxS = self.base.search(requests, slate, rng)
        draws = CounterRng.of(self.oracle.world.config.seed, 5, requests.day)
        rows = np.flatnonzero(draws.draw(1, requests.user_B, requests.time_ms_B)[:, 0] < self.share)
        if len(rows):
            chosen = requests.take(rows)
            candidates_RxK = self.base.search(chosen, AMONG, rng)
            best_Rx1 = self.oracle.click_probability(chosen, candidates_RxK).argmax(axis=1)[:, None]
            slates_BxS[rows] = promote(np.take_along_axis(candidates_RxK, best_Rx1, axis=1), slates_BxS[rows])
        return slates_BxS


def promote(best_Bx1: np.ndarray, slates_BxS: np.ndarray) -> np.ndarray:
    """The slates with one video moved or inserted to the top; the others keep their order."""
    both_BxT = np.concatenate([best_Bx1, np.where(slates_BxS == best_Bx1, -1, slates_BxS)], axis=1)
    order_BxT = np.argsort(both_BxT < 0, axis=1, kind="stable")
    return np.take_along_axis(both_BxT, order_BxT, axis=1)[:, : slates_BxS.shape[1]]


def reseeded(world: World, number: int) -> World:
    """The same platform and people with other random draws."""
    return dataclasses.replace(world, config=dataclasses.replace(world.config, seed=world.config.seed + 1_000 + number))


def run(replay: Replay, plan: Plan, number: int) -> dict[str, Any]:
    """One run: by metric its true lift, the estimates with (`shared`) and without (`own`) a crn control, and A/A
    looks."""
    plan = dataclasses.replace(plan, arms=ARMS, salt=f"{plan.salt}/trial/{number}", common_random_numbers=True)
    world = reseeded(replay.world, number)
    control = _population(replay, world)
    run_aa_days(plan, control)
    split, planted = control.fork(), control.fork()
    run_arm_days(plan, split)
    run_crn_control(plan, control)
    for _ in range(plan.aa_days, plan.all_days):
        planted.step(np.ones(len(world.users), np.int8))
    counted = slice(plan.aa_days + plan.warm_up, None)
    lead = slice(plan.aa_days, plan.aa_days + plan.warm_up)
    crn, treated, now = (ratios(each.days[counted], each.days[lead]) for each in (control, planted, split))
    people, earlier = plan.people(world), ratios([*replay.past, *control.days[: plan.aa_days]])

    def lifts(shared: Mapping[str, Ratio] | None) -> dict[str, dict[str, float]]:
        found = estimate_lifts(now, people, earlier, shared)["planted"]
        return {name: {"log_lift": lift.log_lift, "error": lift.error} for name, lift in found.items()}

    return {
        "run": number,
        "truth": {name: float(np.log(treated[name].value() / crn[name].value())) for name in METRICS},
        "shared": lifts(crn),
        "own": lifts(None),
        "aa": [_aa_looks(plan, control, replay.past, f"{plan.salt}/aa/{n}") for n in range(AA_SPLITS)],
    }


def _population(replay: Replay, world: World) -> Population:
    # Popularity would let control learn from the planted arm's clicks: the split would measure less than the truth.
    quiet = dataclasses.replace(replay.world.logging.config, noise=0.0, popularity_weight=0.0)
    base = LoggingSearch(quiet, world.catalogue, world.logging.weights_WxV)

    def serve(population: Population, arm: int) -> SearchSystem:
        return PlantedEffect(base, OraclePolicy(world, population.state), PLANTED_SHARE) if arm else base

    return Population(world, None, None, replay.long_plays, serve, replay.state)


def _aa_looks(
    plan: Plan, control: Population, past: Sequence[Mapping[str, np.ndarray]], salt: str
) -> list[dict[str, float]]:
    """Daily looks at the deciding metric of two identical arms; p is NaN until there is something to count."""
    people = dataclasses.replace(plan, salt=salt).people(control.world)
    earlier, first = ratios([*past, *control.days[: plan.aa_days]]), plan.aa_days + plan.warm_up
    looks = []
    for day in range(1, plan.days + 1):
        now = ratios(control.days[first : first + day], control.days[plan.aa_days : first])
        lift = estimate_lifts(now, people, earlier, names=[plan.decided_by])["planted"][plan.decided_by]
        looks.append({"p": lift.p, "left_0": lift.excludes_zero(plan.foreseen)})
    return looks


@dataclasses.dataclass(frozen=True)
class PlantedSummary:
    """Power and coverage of one metric over all runs."""

    truth: float  # true lift
    found: float  # power: share of runs whose interval lies on the truth's side of 0
    covered: float  # coverage: share of runs whose interval holds the truth
    error: float  # mean standard error of the log lift
    spread: float  # standard deviation of the log lift over the runs


def summarise(runs: Sequence[Mapping[str, Any]], kind: str) -> dict[str, PlantedSummary]:
    """By metric, over the runs in which it could be counted; metrics without such runs are left out. `kind`: `shared`
    or `own`."""
    out = {}
    for name in METRICS:
        values = [(one["truth"][name], one[kind][name]["log_lift"], one[kind][name]["error"]) for one in runs]
        values_Rx3 = np.array(values)
        truth_R, log_R, error_R = values_Rx3[np.isfinite(values_Rx3).all(axis=1) & (values_Rx3[:, 2] > 0)].T
        if not len(truth_R):
            continue
        truth = float(truth_R.mean())
        low_R, high_R = log_R - Z_VALUE * error_R, log_R + Z_VALUE * error_R
        found = np.mean(low_R > 0) if truth > 0 else np.mean(high_R < 0)
        covered = np.mean((low_R <= truth) & (truth <= high_R))
        spread = float(log_R.std(ddof=1)) if len(log_R) > 1 else 0.0
        out[name] = PlantedSummary(float(np.expm1(truth)), float(found), float(covered), float(error_R.mean()), spread)
    return out
