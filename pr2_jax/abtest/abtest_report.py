"""Report of one experiment: table.txt, abtest.json and over_days.png."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pr2_jax import artifacts
from pr2_jax.abtest.estimators import Lift
from pr2_jax.abtest.experiment import Outcome
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.drawing.charts import Plot, Series
from pr2_jax.drawing.painters import png

GUARDRAIL, MOST_LOST = "relevance", 0.01
"""The guardrail metric and its largest tolerated loss."""
DRAWN = ("ctr", "watch", "active", "searches", "relevance", "novelty", "categories", "breadth")
WEEK = 7
DRAWS = {"shared": "common random numbers", "own": "independent draws"}
"""The two kinds of estimates, with and without a crn control."""


def write(out: Path, outcome: Outcome) -> None:
    """Writes the three files."""
    (out / "table.txt").write_text(text_of(outcome))
    artifacts.write_json(out / "abtest.json", json_of(outcome))
    png([_over_days(outcome, name) for name in DRAWN], out / "over_days.png", columns=4)


def text_of(outcome: Outcome) -> str:
    """The text of table.txt."""
    plan, aa, control = outcome.plan, outcome.aa, outcome.plan.arms[0]
    sizes = ", ".join(f"{arm} {n:,}" for arm, n in zip(plan.arms, outcome.people_by_arm, strict=True))
    draws = DRAWS["shared" if plan.common_random_numbers else "own"]
    lines = [
        f"{plan.days} days after {plan.aa_days} A/A days, {plan.warm_up} of warm-up; {draws}; people by arm: {sizes}",
        *([f"models retrained on each arm's own log every {_days(plan.refresh)}"] if plan.refresh else []),
        f"intervals are not corrected for the number of metrics; salt of the split: {plan.salt}",
        "an arm's column holds its raw metric; lifts are adjusted by covariates (CUPED)",
        f"A/A days split {aa.splits} other ways: p < 0.05 in {aa.below:.1%} of them (uniform: p = {aa.uniform_p:.2f})",
    ]
    for arm, lifts in outcome.lifts.items():
        lines += ["", f"{'':<36}{control:>10}{arm:>10}      lift  95 % interval         A/A before"]
        lines += [_line(METRICS[name].title, lift, outcome.before[arm][name]) for name, lift in lifts.items()]
        lines += _verdict(outcome, arm)
    return "\n".join(lines) + "\n"


def guardrail(lift: Lift) -> str:
    """`kept`, `broken`, or `open` where the interval allows both."""
    low, high = lift.interval() if lift.error > 0 else (lift.lift, lift.lift)
    if low >= -MOST_LOST:
        return "kept"
    return "broken" if high < -MOST_LOST else "open"


def _line(title: str, lift: Lift, before: Lift) -> str:
    if not np.isfinite(lift.log_lift) or not lift.error > 0:
        values = (f"{value:.4f}" if np.isfinite(value) else "-" for value in (lift.control, lift.treated))
        return f"{title:<36}" + "".join(f"{value:>10}" for value in (*values, "-"))
    low, high = lift.interval()
    earlier = f"{before.lift:+.1%} (p {before.p:.2f})" if np.isfinite(before.log_lift) else "-"
    interval = f"[{low:+.1%}, {high:+.1%}]".ljust(22)
    return f"{title:<36}{lift.control:>10.4f}{lift.treated:>10.4f}{lift.lift:>+10.1%}  {interval}{earlier}"


def _verdict(outcome: Outcome, arm: str) -> list[str]:
    plan, lift = outcome.plan, outcome.lifts[arm][GUARDRAIL]
    title, days = METRICS[plan.decided_by].title, outcome.decided_after(arm)
    when = f"after {_days(days, 'counted ')}" if days else f"not within {_days(plan.days)}"
    kept = {"kept": "kept", "broken": "broken", "open": "not decided: the interval holds both"}[guardrail(lift)]
    return [
        f"{arm}: {title} differs from {plan.arms[0]}'s, looking every day (always-valid interval): {when}",
        f"{arm}: guardrail, true relevance not more than {MOST_LOST:.0%} lower: {kept}",
    ]


def _days(number: int, kind: str = "") -> str:
    return f"{number} {kind}day{'s' * (number != 1)}"


def json_of(outcome: Outcome) -> dict:
    """Everything in numbers; a metric that could not be counted is null."""

    def one(lift: Lift) -> dict[str, float | int | None]:
        values = {"control": lift.control, "treated": lift.treated, "lift": lift.lift, "p": lift.p}
        values |= dict(zip(("low", "high"), lift.interval(), strict=True))
        always_valid = lift.always_valid_interval(outcome.plan.foreseen)
        values |= dict(zip(("low_at_any_time", "high_at_any_time"), always_valid, strict=True))
        return {name: _number(value) for name, value in values.items()} | {"people": lift.people}

    def every(arms: Mapping[str, Mapping[str, Lift]]) -> dict:
        return {arm: {name: one(lift) for name, lift in lifts.items()} for arm, lifts in arms.items()}

    def each(arms: Mapping[str, Mapping[str, Sequence]], number) -> dict:
        return {arm: {name: [number(x) for x in days] for name, days in m.items()} for arm, m in arms.items()}

    return {
        "plan": dataclasses.asdict(outcome.plan),
        "people_by_arm": dict(zip(outcome.plan.arms, outcome.people_by_arm, strict=True)),
        "aa": {name: _number(value) for name, value in dataclasses.asdict(outcome.aa).items()},
        "metrics": {name: {"title": m.title, "unit": m.unit, "better": m.better} for name, m in METRICS.items()},
        "lifts": every(outcome.lifts),
        "guardrail": {arm: guardrail(lifts[GUARDRAIL]) for arm, lifts in outcome.lifts.items()},
        "decided_after": {arm: outcome.decided_after(arm) for arm in outcome.lifts},
        "before": every(outcome.before),
        "by_day": each(outcome.by_day, one),
        "daily": each(outcome.daily, _number),
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _over_days(outcome: Outcome, name: str) -> Plot:
    """A metric day by day, an arm a line, weekly means over it: weekdays differ more than arms do."""
    plan, title, series = outcome.plan, METRICS[name].title, []
    for n, arm in enumerate(plan.arms):
        value_D = np.array(outcome.daily[arm][name], np.float64)
        days_D = np.arange(len(value_D)) - plan.aa_days - plan.warm_up + 1
        width = min(WEEK, len(value_D) - (len(value_D) + 1) % 2)  # odd: a mean stands at the day in its middle
        smooth_D = np.convolve(value_D, np.full(width, 1 / width), mode="valid")
        middle_D = days_D[width // 2 : len(days_D) - width // 2]
        series.append(Series(f"{arm}, each day", days_D.tolist(), value_D.tolist(), faint=True, colour=n % 6 + 1))
        series.append(Series(arm, middle_D.tolist(), smooth_D.tolist(), colour=n % 6 + 1))
    return Plot(name, title, title, "day (1 = first counted, those before are A/A and warm-up)", "", series)
