"""The experiment of `pr2 abtest`: people are split over arms and simulated for weeks; lifts come with intervals.

    log's days (logging system) → A/A days (everybody: control) → warm-up (arms begin, not counted) → counted days

Control is the first arm. The common-random-numbers control (crn control) is a second population: the same people with
the same random draws (simulation/counter_rng.py), all served by control. Its metrics are covariates like a person's
past, and better ones, since they hold the noise of the counted days themselves. A real platform cannot have one:
`common_random_numbers=False` gives the intervals of a real experiment of this size.

Both populations share the A/A days. Hundreds of other splits of these days must give uniform p-values. Otherwise the
intervals of this population cannot be trusted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote

import numpy as np
from scipy.stats import chisquare, kstest

from pr2_jax import console
from pr2_jax.abtest.estimators import CONFIDENCE, Lift, Ratio, compare, covariates, required_sample_size
from pr2_jax.abtest.experiment_metrics import METRICS, ratios
from pr2_jax.abtest.population import Population
from pr2_jax.errors import BadInput, Pr2Error
from pr2_jax.simulation.world import World

LOG_EVERY = 7
MOST_EXTRAPOLATED = 4
"""Experiments longer than this many times the log's counted days are not taken to need fewer people still."""
MOST_DAYS = 365
MOST_SALT = 120
"""Bytes of the salt in a directory's name, where a letter beyond ASCII takes six and more."""
LEAST_FORESEEN = 0.001
LEAST_P = 1e-3
"""A split that is less likely than this under the planned shares is a sample-ratio mismatch."""

Counters = Mapping[str, np.ndarray]
"""One day's counters of each person."""


class SampleRatioMismatch(Pr2Error):
    """The numbers of people by arm differ from the planned shares by more than chance."""


def _quoted(value: object) -> str:
    return quote(str(value), safe="").replace(".", "%2E")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The design of an experiment, fixed before the first counted day."""

    arms: tuple[str, ...] = ("base", "pr2")  # control first
    days: int = 28  # counted
    aa_days: int = 7  # everybody on control, before
    warm_up: int = 2  # arms on, not counted
    salt: str = "pr2"
    common_random_numbers: bool = True
    refresh: int = 0  # days between two trainings of each arm's models on its own log; 0 = never
    decided_by: str = "ctr"  # the deciding metric, which sets the required sample size
    foreseen: float = 0.05  # its relative change that the experiment is to detect

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
        lag = METRICS[self.decided_by].lag_days
        for told, days in (("aa_days", self.aa_days), ("warm_up and days together", self.warm_up + self.days)):
            if days <= lag:
                raise BadInput(
                    f"metric {self.decided_by!r} is seen {lag} days later: expected {told} of {lag + 1} or more, "
                    f"not {days}"
                )

    @property
    def name(self) -> str:
        """Directory name: the arms and the fields that differ from their defaults."""
        return "+".join(arm.strip("+").replace("+", "_") for arm in self.arms) + self.non_defaults(vars(self))

    def non_defaults(self, names: Iterable[str]) -> str:
        """`,name=value` of these fields where they differ from their defaults, without dots: a suffix like `.partial`
        has a meaning in artifacts' names."""
        default = vars(Plan(arms=self.arms))
        return "".join(f",{n}={_quoted(value)}" for n in names if (value := getattr(self, n)) != default[n])

    @property
    def shares(self) -> tuple[float, ...]:
        return (1 / len(self.arms),) * len(self.arms)

    @property
    def all_days(self) -> int:
        return self.aa_days + self.warm_up + self.days

    def arm_of(self, world: World) -> np.ndarray:
        """int8 [U]: the arm of each person."""
        return assign_arms(world.users.raw_id_U, self.salt, self.shares)

    def people(self, world: World) -> dict[str, np.ndarray]:
        """Rows of the world's users by arm."""
        arm_U = self.arm_of(world)
        return {name: np.flatnonzero(arm_U == arm) for arm, name in enumerate(self.arms)}


@dataclasses.dataclass(frozen=True)
class AaCheck:
    """False-positive check: the A/A days under other splits."""

    splits: int  # those in which the metric could be counted
    below: float  # share with p < 0.05, NaN without any
    uniform_p: float  # Kolmogorov-Smirnov p-value of uniform p-values


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The lifts of every treated arm over control."""

    plan: Plan
    people_by_arm: tuple[int, ...]
    aa: AaCheck
    lifts: Mapping[str, Mapping[str, Lift]]  # by treated arm, then metric
    before: Mapping[str, Mapping[str, Lift]]  # the same people in the A/A days
    by_day: Mapping[str, Mapping[str, Sequence[Lift]]]  # lifts of the first 1, 2, ... counted days
    daily: Mapping[str, Mapping[str, Sequence[float]]]  # by arm and metric: the value of each single day

    def decided_after(self, arm: str) -> int | None:
        """Counted days until the always-valid interval of the deciding metric excluded 0."""
        looks = enumerate(self.by_day[arm][self.plan.decided_by], start=1)
        return next((day for day, lift in looks if lift.excludes_zero(self.plan.foreseen)), None)


def assign_arms(raw_id_U: np.ndarray, salt: str, shares: Sequence[float]) -> np.ndarray:
    """int8 [U]: the arm of each raw user id, by a hash of salt and id alone. `shares` sum to 1.

    Different salts give independent splits.
    """
    digests = (hashlib.blake2b(f"{salt}/{raw}".encode(), digest_size=8).digest() for raw in raw_id_U.tolist())
    point_U = np.array([int.from_bytes(digest) / 2.0**64 for digest in digests], np.float64)
    return np.searchsorted(np.cumsum(shares)[:-1], point_U, side="right").astype(np.int8)


def check_sample_ratio(counts: Sequence[int], shares: Sequence[float], of: str) -> float:
    """p-value of the counts by arm under the planned shares. SampleRatioMismatch where it is below LEAST_P."""
    expected = np.asarray(shares) * sum(counts)
    p = float(chisquare(counts, expected).pvalue)
    if p < LEAST_P:
        said = ", ".join(f"{count:,} (expected {wanted:,.0f})" for count, wanted in zip(counts, expected, strict=True))
        raise SampleRatioMismatch(
            f"sample-ratio mismatch: {of} by arm are {said}, p = {p:.1g} below {LEAST_P:g}: the arms lose or gain "
            "people, and no difference between them can be trusted"
        )
    return p


def run_in_turn(plan: Plan, split: Population, crn_control: Population | None) -> None:
    """Simulates the days that are left, first of the split population, then of the crn control."""
    run_aa_days(plan, split)
    run_arm_days(plan, split)
    if crn_control is not None:
        crn_control.link_days(split, plan.aa_days)
        run_crn_control(plan, crn_control)


def run_aa_days(plan: Plan, split: Population) -> None:
    """A/A days, with everybody on control."""
    check_sample_ratio([len(rows) for rows in plan.people(split.world).values()], plan.shares, "people")
    for _ in console.progress(range(split.resume(), plan.aa_days), "A/A", unit=" days"):
        split.step()


def run_arm_days(plan: Plan, split: Population, check: Callable[[], None] = lambda: None) -> None:
    """Warm-up and counted days; `check` is called after each."""
    arm_U = plan.arm_of(split.world)
    for day in console.progress(range(len(split.days), plan.all_days), "split", unit=" days"):
        split.step(arm_U)
        check()
        if split.directory is not None and (day - plan.aa_days + 1) % LOG_EVERY == 0:
            console.log(f"day {day - plan.aa_days + 1} of {plan.all_days - plan.aa_days} with arms")


def run_crn_control(plan: Plan, crn_control: Population) -> None:
    """All days of the crn control."""
    for _ in range(crn_control.resume(), plan.all_days):
        crn_control.step()


def analyse(plan: Plan, split: Population, crn_control: Population | None, past: Sequence[Counters]) -> Outcome:
    """Estimates every lift. `past`: counters of the log's last days."""
    people, first = plan.people(split.world), plan.aa_days + plan.warm_up
    # No arm can keep people away before their first visit: an arm with fewer visitors has lost their log.
    came_U = np.sum([day["visits"] for day in split.days[plan.aa_days :]], axis=0) > 0
    check_sample_ratio([int(came_U[rows].sum()) for rows in people.values()], plan.shares, "people who came")
    earlier = ratios([*past, *split.days[: plan.aa_days]])

    def lifts(days: slice) -> dict[str, dict[str, Lift]]:
        lead = slice(plan.aa_days, first)  # visitors of the warm-up may return in the counted days
        crn = None if crn_control is None else ratios(crn_control.days[days], crn_control.days[lead])
        return estimate_lifts(ratios(split.days[days], split.days[lead]), people, earlier, crn)

    whole = lifts(slice(first, None))
    looks = [lifts(slice(first, first + day)) for day in range(1, plan.days + 1)]
    by_day = {arm: {name: [look[arm][name] for look in looks] for name in METRICS} for arm in whole}
    before = estimate_lifts(ratios(split.days[: plan.aa_days]), people, ratios(past))
    single_days = [ratios([day]) for day in split.days]
    daily = {
        arm: {n: [day[n].value(rows) for day in single_days] for n, metric in METRICS.items() if not metric.lag_days}
        for arm, rows in people.items()
    }
    return Outcome(plan, tuple(map(len, people.values())), aa_check(plan, past, split), whole, before, by_day, daily)


def estimate_lifts(
    now: Mapping[str, Ratio],
    people: Mapping[str, np.ndarray],
    earlier: Mapping[str, Ratio],
    crn: Mapping[str, Ratio] | None = None,
    names: Iterable[str] = tuple(METRICS),
) -> dict[str, dict[str, Lift]]:
    """Lifts by treated arm and metric. `people`: rows by arm, control first; `earlier`, `crn`: the same metrics before
    the arms and in the crn control, for covariates."""
    control, *treated = people
    known = {name: _covariates(name, earlier, crn) for name in names}
    return {
        arm: {name: compare(now[name], people[control], people[arm], known[name]) for name in known} for arm in treated
    }


def aa_check(plan: Plan, past: Sequence[Counters], split: Population, splits: int = 200) -> AaCheck:
    """Compares random halves of the A/A days on the deciding metric, adjusted by the log."""
    metric, known = ratios(split.days[: plan.aa_days])[plan.decided_by], _covariates(plan.decided_by, ratios(past))
    p = []
    for number in range(splits):
        arm_U = assign_arms(split.world.users.raw_id_U, f"{plan.salt}/{number}", (0.5, 0.5))
        p.append(compare(metric, np.flatnonzero(arm_U == 0), np.flatnonzero(arm_U == 1), known).p)
    p = [one for one in p if np.isfinite(one)]  # a small world may leave an arm without a like
    if not p:
        return AaCheck(0, np.nan, np.nan)
    return AaCheck(len(p), float(np.mean(np.array(p) < 1 - CONFIDENCE)), float(kstest(p, "uniform").pvalue))


def require_people(plan: Plan, past: Sequence[Counters], forced: bool) -> int:
    """The required sample size, estimated on the log's last days. BadInput where people are fewer, unless forced."""
    metric = ratios(past)[plan.decided_by]
    people = len(metric.denominator_U)
    if not np.isfinite(metric.influence()).all():
        raise BadInput(f"metric {plan.decided_by!r} cannot be counted in {len(past)} days, choose another to decide by")
    # Errors shrink with the days, but not for ever: people differ lastingly, and CUPED removes only a part of that.
    days = min(plan.days, MOST_EXTRAPOLATED * len(past)) / len(past)
    needed = int(np.ceil(required_sample_size(metric, plan.foreseen) / days * len(plan.arms) / 2))
    if people < needed and not forced:
        raise BadInput(
            f"{people:,} people cannot show a change of {100 * plan.foreseen:g} % in "
            f"{METRICS[plan.decided_by].title} (--decided-by {plan.decided_by}) in {plan.days} days with 80 % power: "
            f"{needed:,} are needed. Take more people, more days, a larger --foreseen, or go on with --force"
        )
    return needed


def _covariates(name: str, earlier: Mapping[str, Ratio], crn: Mapping[str, Ratio] | None = None) -> np.ndarray:
    """CUPED covariates of one metric: its own past, the person's activity, and the crn control."""
    activity = (np.log1p(earlier["ctr"].denominator_U), earlier["active"].numerator_U)
    columns = [covariates(earlier[name], activity)]
    if crn is not None:
        columns.append(covariates(crn[name]))
    return np.concatenate(columns, axis=1)
