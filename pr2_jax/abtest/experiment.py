"""`pr2 abtest`: people split over arms on the simulated platform, served for weeks, compared with intervals.

    log's days (logging system) → A/A days (everybody: control) → warm-up (arms begin, not counted) → counted days

Control is the first arm. Beside the lane in which people are split runs a shadow lane: the same people with the same
luck (simulation/counter_rng.py), all served by control. What a person did there is a covariate like their past, only
better: it takes out the luck of the counted days themselves. A real platform has no shadow; without it
(`common_random_numbers=False`) intervals are those of a real experiment of this size.

In the A/A days both lanes are one. Split anew by hundreds of other salts, their p-values must be uniform, or the
intervals of this population cannot be trusted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote

import numpy as np
from scipy.stats import kstest

from pr2_jax import console
from pr2_jax.abtest.assignment import arms_of, check_split
from pr2_jax.abtest.estimators import CONFIDENCE, Lift, Ratio, compare, foretold, needed_people
from pr2_jax.abtest.experiment_metrics import METRICS, ratios
from pr2_jax.abtest.population import Population
from pr2_jax.errors import BadInput
from pr2_jax.simulation.world import World

CONTROL = 0
LOGGED_DAYS = 7
MOST_TOLD = 4
"""Times the days that the log tells about, for which more days are taken to need fewer people."""
MOST_DAYS = 365
MOST_SALT = 120
"""Bytes as it stands in a directory's name, where a letter beyond ASCII takes six and more."""
LEAST_FORESEEN = 0.001


def _quoted(value: object) -> str:
    return quote(str(value), safe="").replace(".", "%2E")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared, on whom, for how long. Fixed before the first counted day."""

    arms: tuple[str, ...] = ("base", "pr2")  # control first
    days: int = 28  # counted
    aa_days: int = 7  # everybody on control, before
    warm_up: int = 2  # arms on, not counted
    salt: str = "pr2"
    common_random_numbers: bool = True
    refresh: int = 0  # days after which each arm's models are made anew from its own log; 0 = never
    decided_by: str = "ctr"  # the metric that people's number must suffice for
    foreseen: float = 0.05  # its relative change that the experiment is to show

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or len(set(self.arms)) < len(self.arms):
            raise BadInput(f"arms {', '.join(self.arms) or 'none'}: expected two or more different ones, control first")
        if self.decided_by not in METRICS:
            raise BadInput(f"metric {self.decided_by!r}, expected one of {', '.join(METRICS)}")
        if not self.salt.isprintable():
            raise BadInput(f"salt {self.salt!r}, expected characters that can be printed")
        if len(_quoted(self.salt)) > MOST_SALT:
            raise BadInput(f"salt takes {len(_quoted(self.salt))} bytes of a name, expected {MOST_SALT} or fewer")
        for name, least in (("days", 1), ("aa_days", 2), ("warm_up", 0), ("refresh", 0)):
            if not least <= getattr(self, name) <= MOST_DAYS:
                raise BadInput(f"{name} = {getattr(self, name)}, expected {least} to {MOST_DAYS}")
        if not LEAST_FORESEEN <= self.foreseen < math.inf:
            raise BadInput(
                f"foreseen = {self.foreseen:g}, expected a relative change of {LEAST_FORESEEN:g} or more, as 0.05"
            )
        self._require_days()

    def _require_days(self) -> None:
        """For what decides, also in the A/A days."""
        later = METRICS[self.decided_by].later
        for told, days in (("aa_days", self.aa_days), ("warm_up and days together", self.warm_up + self.days)):
            if days <= later:
                raise BadInput(
                    f"metric {self.decided_by!r} is seen {later} days later: expected {told} of {later + 1} or more, "
                    f"not {days}"
                )

    @property
    def name(self) -> str:
        """Of files: the arms, and whatever is not as usual."""
        return "+".join(arm.strip("+").replace("+", "_") for arm in self.arms) + self.unusual(vars(self))

    def unusual(self, names: Iterable[str]) -> str:
        """`,name=value` of those of the fields that are not as usual; no dots, whose endings have a meaning of their
        own in artifacts' names."""
        usual = vars(Plan(arms=self.arms))
        return "".join(f",{n}={_quoted(value)}" for n in names if (value := getattr(self, n)) != usual[n])

    @property
    def shares(self) -> tuple[float, ...]:
        """Of people by arm."""
        return (1 / len(self.arms),) * len(self.arms)

    def arm_of(self, world: World) -> np.ndarray:
        """int8 [U]: the arm of each of its people."""
        return arms_of(world.users.raw_id_U, self.salt, self.shares)

    @property
    def all_days(self) -> int:
        return self.aa_days + self.warm_up + self.days


@dataclasses.dataclass(frozen=True)
class AaCheck:
    """The A/A days split by other salts: of so many splits, how many find a difference where there is none."""

    splits: int  # those in which the metric could be counted
    below: float  # share with p < 0.05, NaN without any
    uniform_p: float  # of uniform p-values, Kolmogorov-Smirnov


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one experiment: lifts of every arm over control by metric, and the A/A period's."""

    plan: Plan
    people_by_arm: tuple[int, ...]
    aa: AaCheck
    lifts: Mapping[str, Mapping[str, Lift]]  # by arm but control, then metric
    before: Mapping[str, Mapping[str, Lift]]  # the same people in the A/A days
    by_day: Mapping[str, Mapping[str, Sequence[Lift]]]  # what somebody would have seen after each counted day
    daily: Mapping[str, Mapping[str, Sequence[float]]]  # by arm, metric and day (all days): the metric of that day

    def decided_after(self, arm: str) -> int | None:
        """Counted days after which the deciding metric had left 0, by the interval that allows looking every day."""
        for day, lift in enumerate(self.by_day[arm][self.plan.decided_by], start=1):
            low, high = lift.interval_at_any_time(self.plan.foreseen)
            if low > 0 or high < 0:
                return day
        return None


def live_through(plan: Plan, split: Population, shadow: Population | None) -> None:
    """Every day of both lanes that has not been lived yet."""
    live_together(plan, split)
    live_split(plan, split)
    if shadow is not None:
        shadow.share_days(split, plan.aa_days)
        live_shadow(plan, shadow)


def live_together(plan: Plan, split: Population) -> None:
    """The A/A days, which are the same for both lanes."""
    check_split([len(rows) for rows in people(plan, split.world)], plan.shares, "people")
    for _ in console.progress(range(split.carry_on(), plan.aa_days), "A/A", unit=" days"):
        split.live(None)


def live_split(plan: Plan, split: Population, check: Callable[[], None] = lambda: None) -> None:
    """The days with arms; `check` is called after each."""
    arm_U = plan.arm_of(split.world)
    for day in console.progress(range(len(split.days), plan.all_days), "split", unit=" days"):
        split.live(arm_U)
        check()
        if split.directory is not None and (day - plan.aa_days + 1) % LOGGED_DAYS == 0:
            console.log(f"day {day - plan.aa_days + 1} of {plan.all_days - plan.aa_days} with arms")


def live_shadow(plan: Plan, shadow: Population) -> None:
    """The same days on control."""
    for _ in range(shadow.carry_on(), plan.all_days):
        shadow.live(None)


def people(plan: Plan, world: World) -> list[np.ndarray]:
    """Rows of the world's users by arm."""
    arm_U = plan.arm_of(world)
    return [np.flatnonzero(arm_U == arm) for arm in range(len(plan.arms))]


def judge(
    plan: Plan, split: Population, shadow: Population | None, past: Sequence[Mapping[str, np.ndarray]]
) -> Outcome:
    """`past`: counters of the log's last days, before any arm."""
    rows = people(plan, split.world)
    first = plan.aa_days + plan.warm_up
    _check_present(plan, rows, split.days[plan.aa_days :])
    earlier = ratios([*past, *split.days[: plan.aa_days]])

    def lifts(days: slice) -> dict[str, dict[str, Lift]]:
        lead = slice(plan.aa_days, first)  # who came in the warm-up may be seen again in the counted days
        alike = None if shadow is None else ratios(shadow.days[days], shadow.days[lead])
        found = compared(ratios(split.days[days], split.days[lead]), rows, earlier, alike)
        return {plan.arms[arm]: of_metrics for arm, of_metrics in found.items()}

    whole = lifts(slice(first, None))
    each = [lifts(slice(first, first + day)) for day in range(1, plan.days + 1)]
    by_day = {arm: {m: [seen[arm][m] for seen in each] for m in METRICS} for arm in whole}
    aa, before = aa_check(plan, past, split), _before(plan, rows, past, split)
    return Outcome(plan, tuple(map(len, rows)), aa, whole, before, by_day, _daily(plan, rows, split))


def compared(
    now: Mapping[str, Ratio],
    rows: Sequence[np.ndarray],
    earlier: Mapping[str, Ratio],
    alike: Mapping[str, Ratio] | None,
    names: Sequence[str] = tuple(METRICS),
) -> dict[int, dict[str, Lift]]:
    """By arm but control, then metric. `rows`: people by arm; `now`, `earlier`: what they do and did before; `alike`:
    what their shadows do."""
    told = {name: _told(name, earlier, alike) for name in names}
    return {
        arm: {name: compare(now[name], rows[CONTROL], rows[arm], told[name]) for name in names}
        for arm in range(CONTROL + 1, len(rows))
    }


def aa_check(plan: Plan, past: Sequence[Mapping[str, np.ndarray]], split: Population, splits: int = 200) -> AaCheck:
    """Splits in half what all lived through on control, many times over; the deciding metric, adjusted by the log."""
    name = plan.decided_by
    metric = ratios(split.days[: plan.aa_days])[name]
    told = _told(name, ratios(past), None)
    p = []
    for number in range(splits):
        arm_U = arms_of(split.world.users.raw_id_U, f"{plan.salt}/{number}", (0.5, 0.5))
        p.append(compare(metric, np.flatnonzero(arm_U == 0), np.flatnonzero(arm_U == 1), told).p)
    p = [one for one in p if np.isfinite(one)]  # a small world may leave an arm without a like
    if not p:
        return AaCheck(0, np.nan, np.nan)
    return AaCheck(len(p), float(np.mean(np.array(p) < 1 - CONFIDENCE)), float(kstest(p, "uniform").pvalue))


def require_people(plan: Plan, past: Sequence[Mapping[str, np.ndarray]], forced: bool) -> int:
    """The people that the plan needs, told by the log's last days. BadInput where there are fewer, unless forced."""
    metric = ratios(past)[plan.decided_by]
    everybody = np.arange(len(metric.of_U))
    if not np.isfinite(metric.influence(everybody)).all():
        raise BadInput(f"metric {plan.decided_by!r} cannot be counted in {len(past)} days, choose another to decide by")
    # Errors shrink with the days, but not for ever: people differ lastingly, and CUPED takes a part of that alone.
    days = min(plan.days, MOST_TOLD * len(past)) / len(past)
    needed = int(np.ceil(needed_people(metric, everybody, plan.foreseen) / days * len(plan.arms) / 2))
    if len(everybody) < needed and not forced:
        raise BadInput(
            f"{len(everybody):,} people cannot show a change of {100 * plan.foreseen:g} % in "
            f"{METRICS[plan.decided_by].title} (--decided-by {plan.decided_by}) in {plan.days} days with 80 % power: "
            f"{needed:,} are needed. Take more people, more days, a larger --foreseen, or go on with --force"
        )
    return needed


def _told(name: str, earlier: Mapping[str, Ratio], alike: Mapping[str, Ratio] | None) -> np.ndarray:
    """Covariates of one metric: the person's own past, how much they did, and their shadow."""
    everybody = np.arange(len(earlier[name].of_U))
    columns = [foretold(earlier[name], everybody, (np.log1p(earlier["ctr"].of_U), earlier["active"].counted_U))]
    if alike is not None:
        columns.append(foretold(alike[name], everybody))
    return np.concatenate(columns, axis=1)


def _before(
    plan: Plan, rows: list[np.ndarray], past: Sequence[Mapping[str, np.ndarray]], split: Population
) -> dict[str, dict[str, Lift]]:
    """The A/A period, adjusted by the log's days alone."""
    found = compared(ratios(split.days[: plan.aa_days]), rows, ratios(past), None)
    return {plan.arms[arm]: of_metrics for arm, of_metrics in found.items()}


def _daily(plan: Plan, rows: list[np.ndarray], split: Population) -> dict[str, dict[str, list[float]]]:
    """Day by day; retention, which needs several, is left out."""
    days = [ratios([day]) for day in split.days]
    single = [name for name in METRICS if not name.startswith("day_")]
    return {
        arm: {name: [day[name].value(rows[n]) for day in days] for name in single} for n, arm in enumerate(plan.arms)
    }


def _check_present(plan: Plan, rows: list[np.ndarray], days: Sequence[Mapping[str, np.ndarray]]) -> None:
    """People who came at all since there are arms: until they do, no arm can have kept them away, so that an arm with
    fewer of them has lost their log and not them."""
    came_U = np.sum([day["visits"] for day in days], axis=0) > 0
    check_split([int(came_U[arm].sum()) for arm in rows], plan.shares, "people who came")
