"""The experiment tried on itself: weeks in which nothing differs, and weeks with a known difference, many times over.

One world, its people and its log; from then on every run has other luck and another split.

    control      the words of the logging system, without its noise and what is popular
    planted      the same, but in a share of searches the first hundred's best video for the person comes first
    truth        of one run: everybody planted over everybody control, the same luck; mean over the runs

A/A runs split the control lane and have nobody's luck shared, as what is shared would leave nothing to test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pr2_jax.abtest.estimators import ERRORS, Lift
from pr2_jax.abtest.experiment import Plan, compared, live_shadow, live_split, live_together, people
from pr2_jax.abtest.experiment_metrics import METRICS, ratios
from pr2_jax.abtest.policies import ArmRouter, OraclePolicy
from pr2_jax.abtest.population import Population
from pr2_jax.abtest.replay import Replay
from pr2_jax.simulation.counter_rng import CounterRng
from pr2_jax.simulation.logging_policies import LoggingSearch, SearchRequests, SearchSystem
from pr2_jax.simulation.world import World

ARMS = ("control", "planted")
PLANTED_SHARE, AMONG = 0.1, 100
"""Share of searches, and how many results one is chosen from. Gives CTR@10 some +3 % in the quickstart's world."""
AA_SPLITS = 4
"""A/A runs made of one run's control lane."""


@dataclasses.dataclass(frozen=True)
class Planted:
    """A known improvement of another system."""

    base: SearchSystem
    knowing: OraclePolicy
    share: float

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        slates_BxS = self.base.search(requests, slate, rng)
        luck = CounterRng.of(self.knowing.world.config.seed, 5, requests.day)
        chosen_B = luck.draw(1, requests.user_B, requests.time_ms_B)[:, 0] < self.share
        rows = np.flatnonzero(chosen_B)
        if len(rows):
            asked = requests.take(rows)
            first_RxK = self.base.search(asked, AMONG, rng)
            best_Rx1 = self.knowing.chance(asked, first_RxK).argmax(axis=1)[:, None]
            slates_BxS[rows] = on_top(np.take_along_axis(first_RxK, best_Rx1, axis=1), slates_BxS[rows])
        return slates_BxS


def on_top(best_Bx1: np.ndarray, slates_BxS: np.ndarray) -> np.ndarray:
    """The slates with one video before the others, which move down; the last falls out unless it was that video."""
    both_BxT = np.concatenate([best_Bx1, np.where(slates_BxS == best_Bx1, -1, slates_BxS)], axis=1)
    order_BxT = np.argsort(both_BxT < 0, axis=1, kind="stable")
    return np.take_along_axis(both_BxT, order_BxT, axis=1)[:, : slates_BxS.shape[1]]


def with_luck(world: World, number: int) -> World:
    """The same platform and people, and other luck."""
    return dataclasses.replace(world, config=dataclasses.replace(world.config, seed=world.config.seed + 1_000 + number))


def run(ground: Replay, plan: Plan, number: int) -> dict[str, Any]:
    """One run: by metric its truth, what the experiment says with and without shared luck, and its A/A splits."""
    plan = dataclasses.replace(plan, arms=ARMS, salt=f"{plan.salt}/trial/{number}", common_random_numbers=True)
    world = with_luck(ground.world, number)
    control = _lane(ground, world)
    live_together(plan, control)
    split, planted = control.fork(), control.fork()
    live_split(plan, split)
    everybody = np.ones(len(world.users), np.int8)
    live_shadow(plan, control)
    for _ in range(plan.aa_days, plan.all_days):
        planted.live(everybody)
    counted = slice(plan.aa_days + plan.warm_up, None)
    lead = slice(plan.aa_days, plan.aa_days + plan.warm_up)
    before, after = (ratios(lane.days[counted], lane.days[lead]) for lane in (control, planted))
    rows, earlier = people(plan, world), ratios([*ground.past, *control.days[: plan.aa_days]])
    now = ratios(split.days[counted], split.days[lead])
    shared, own = compared(now, rows, earlier, before)[1], compared(now, rows, earlier, None)[1]
    every = np.arange(len(world.users))
    truth = {name: float(np.log(after[name].value(every) / before[name].value(every))) for name in METRICS}
    aa = [_looks(plan, control, ground.past, f"{plan.salt}/aa/{n}") for n in range(AA_SPLITS)]
    return {
        "run": number,
        "truth": truth,
        "shared": {name: _kept(lift) for name, lift in shared.items()},
        "own": {name: _kept(lift) for name, lift in own.items()},
        "aa": aa,
    }


def _lane(ground: Replay, world: World) -> Population:
    # Popularity would tell control what the planted arm's people clicked: then the split measures less than the truth.
    quiet = dataclasses.replace(ground.world.logging.config, noise=0.0, popularity_weight=0.0)
    base = LoggingSearch(quiet, world.catalogue, world.logging.weights_WxV)

    def serve(lane: Population, arm_U: np.ndarray | None) -> SearchSystem:
        planted = Planted(base, OraclePolicy(world, lane.state), PLANTED_SHARE)
        arm_U = np.zeros(len(world.users), np.int8) if arm_U is None else arm_U
        return ArmRouter({n: (base, planted)[n] for n in np.unique(arm_U).tolist()}, arm_U)

    return Population(world, None, None, ground.long_plays, serve, ground.state)


def _looks(plan: Plan, lane: Population, past: Sequence[Mapping[str, np.ndarray]], salt: str) -> list[dict[str, float]]:
    """What somebody would have seen of the deciding metric after each counted day of two arms that are one; p is NaN
    until there is something to count."""
    rows = people(dataclasses.replace(plan, salt=salt), lane.world)
    earlier, first = ratios([*past, *lane.days[: plan.aa_days]]), plan.aa_days + plan.warm_up
    lead = lane.days[plan.aa_days : first]
    seen = []
    for day in range(1, plan.days + 1):
        now = ratios(lane.days[first : first + day], lead)
        lift = compared(now, rows, earlier, None, (plan.decided_by,))[1][plan.decided_by]
        low, high = lift.interval_at_any_time(plan.foreseen)
        seen.append({"p": lift.p, "left_0": bool(low > 0 or high < 0)})
    return seen


def _kept(lift: Lift) -> dict[str, float]:
    return {"log_lift": lift.log_lift, "error": lift.error}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one metric over all runs."""

    truth: float  # lift
    found: float  # share of runs whose interval is above 0, or below where the truth is
    covered: float  # share of runs whose interval holds the truth
    error: float  # mean standard error of log lift
    spread: float  # standard deviation of log lift over the runs


def verdicts(runs: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Verdict]:
    """By metric, of the runs in which it could be counted; without those that it could in none. `kind`: `shared` or
    `own`."""
    out = {}
    for name in METRICS:
        told_Rx3 = np.array(
            [[run["truth"][name], *(run[kind][name][of] for of in ("log_lift", "error"))] for run in runs]
        )
        truth_R, log_R, error_R = told_Rx3[np.isfinite(told_Rx3).all(axis=1) & (told_Rx3[:, 2] > 0)].T
        if not len(truth_R):
            continue
        truth = float(truth_R.mean())
        low_R, high_R = log_R - ERRORS * error_R, log_R + ERRORS * error_R
        found = np.mean(low_R > 0) if truth > 0 else np.mean(high_R < 0)
        covered = np.mean((low_R <= truth) & (truth <= high_R))
        spread = float(log_R.std(ddof=1)) if len(log_R) > 1 else 0.0
        out[name] = Verdict(float(np.expm1(truth)), float(found), float(covered), float(error_R.mean()), spread)
    return out
