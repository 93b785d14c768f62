"""A/B tests on the simulated platform: lifts, in total and by day (`pr2 abtest`)."""

from __future__ import annotations

import math
from typing import Any

from pr2_jax import artifacts
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.drawing.charts import Plot, Row, Rows, Series, tone_of
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.report.blocks import MISSING, Charts, Note, Section, Table, in_order, slug_of, text_of
from pr2_jax.report.sections import validation_section
from pr2_jax.report.workdir_reader import Work, made_by

DIRECTORY, COMMAND = "abtest", "pr2 abtest --workdir DIR"
ANYTIME = ("low_at_any_time", "high_at_any_time")
GUARDRAIL = {"open": "not decided, the interval holds both"}
DRAWN = ("ctr", "watch", "active", "reformulated")
"""Metrics drawn by day, where they were counted; else the first four."""


def section(work: Work) -> Section:
    """From abtest/NAME/ of every finished experiment and validation."""
    names = finished(work, "abtest.json")
    blocks: list = []
    findings, stale = [], []
    for number, name in enumerate(names, 1):
        place = f"{DIRECTORY}/{name}"
        with artifacts.reading(work.directory / place, made_by(place)):
            found = work.json(f"{place}/abtest.json")
            blocks.append(Note(_plan(found), name))
            for arm in _arms(found)[1:]:
                blocks += _arm(f"abtest_{number}_{slug_of(arm)}", found, arm)
            findings.append(_finding(found))
            stale.append(work.stale(place, COMMAND))
    for place in (f"{DIRECTORY}/{name}" for name in finished(work, "trial.json")):
        with artifacts.reading(work.directory / place, made_by(place)):
            blocks += validation_section.blocks(work, place)
    if not blocks:
        needs = "It takes the work directory of a simulated world; this log is of another kind."
        return Section(intro="" if work.simulated else needs, missing=COMMAND)
    return Section(
        " ".join(findings) or "No experiment yet, only a validation on known effects.",
        "People of the simulated world are split by a hash, each arm answers their searches for weeks, and they come "
        "back, or not. Lifts are relative to control, intervals over people. An arm's column is what its people did; "
        "lifts are adjusted by what is known of them otherwise. These are a simulation's figures: they say what "
        "happens in this world, not what a real platform would see.",
        blocks,
        stale=" ".join(filter(None, stale)),
    )


def finished(work: Work, file: str) -> list[str]:
    """Names of directories with such a file that a run has finished."""
    found = (path.parent for path in (work.directory / DIRECTORY).glob(f"*/{file}"))
    ended = (place.name for place in found if (place / artifacts.MANIFEST).exists())
    return sorted(name for name in ended if not name.endswith((".partial", ".old")))  # of a run cut short


def _arms(found: dict[str, Any]) -> list[str]:
    """Control first, as planned; JSON has them by name."""
    return list(found["plan"]["arms"])


def _plan(found: dict[str, Any]) -> str:
    plan, people = found.get("plan", {}), found.get("people_by_arm", {})
    sizes = ", ".join(f"{arm} {people[arm]:,}" for arm in _arms(found) if arm in people)
    said = f"People by arm: {sizes}. {plan.get('aa_days', '?')} A/A days, {plan.get('warm_up', '?')} to warm up, "
    said += f"{plan.get('days', '?')} counted."
    if plan.get("refresh"):
        said += f" Models made anew from each arm's own log every {plan['refresh']} days."
    if plan.get("common_random_numbers"):
        said += " A control population with common random numbers narrows the intervals, as no real platform could."
    aa = found.get("aa") or {}
    if aa.get("splits") and aa.get("below") is not None:
        said += f" The A/A days split {aa['splits']:,} other ways: p below 0.05 in {aa['below']:.1%} of them."
    decided_by = _metric(found, plan.get("decided_by", "ctr"))["title"]
    for arm in _arms(found)[1:]:
        day, kept = ((found.get(name) or {}).get(arm) for name in ("decided_after", "guardrail"))
        said += f" {arm}: {decided_by} told apart from day {day} on, looking every day." if day else ""
        said += f" {arm}: guardrail (true relevance at most 1% lower) {GUARDRAIL.get(kept, kept)}." if kept else ""
    return said


def _lift(one: dict[str, float | None] | None, low: str = "low", high: str = "high") -> Interval:
    values = ((one or {}).get(name) for name in ("lift", low, high))
    return Interval(*(math.nan if v is None else float(v) for v in values), 0)


def _metric(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {"title": name, "unit": "", "better": 0} | found.get("metrics", {}).get(name, {})


def _finding(found: dict[str, Any]) -> str:
    """The drawn metrics of two arms; of more arms, the deciding metric."""
    control, *others = _arms(found)
    if len(others) > 1:
        decided_by = found["plan"].get("decided_by", "ctr")
        said = [f"{arm} {_told(found, arm, decided_by) or MISSING}" for arm in others]
        return f"{_metric(found, decided_by)['title']} of {len(said) + 1} arms against {control}: {'; '.join(said)}."
    (arm,) = others
    told = {name: _told(found, arm, name) for name in DRAWN}
    said = [f"{_metric(found, name)['title']} {lift}" for name, lift in told.items() if lift]
    people, plan = sum(found.get("people_by_arm", {}).values()), found["plan"]
    how = f"{people:,} people, {plan.get('days', '?')} days"
    how += f", models made anew every {plan['refresh']}" if plan.get("refresh") else ""
    return f"{arm} against {control}, {how}: {', '.join(said) or 'nothing could be counted'}."


def _told(found: dict[str, Any], arm: str, name: str) -> str:
    """Nothing where it could not be counted."""
    value = _lift(found["lifts"][arm].get(name))
    return " ".join(text_of(value, "percent")) if math.isfinite(value.mean) else ""


def _arm(slug: str, found: dict[str, Any], arm: str) -> list:
    lifts = found["lifts"][arm]
    rows, marked = [], []
    for name in in_order(lifts, METRICS):
        one, metric = lifts[name], _metric(found, name)
        value = _lift(one)
        unit = f", {metric['unit']}" if metric["unit"] else ""
        before = _lift(found.get("before", {}).get(arm, {}).get(name))
        anytime = _lift(one, *ANYTIME)
        rows.append(
            [metric["title"] + unit, one["control"], one["treated"], value, anytime, one["p"], before, one["people"]]
        )
        marked.append((metric["title"], value, tone_of(value, metric["better"])))
    control = found["plan"]["arms"][0]
    columns = {"metric": "text", control: "metric", arm: "metric", "lift": "percent", "at any time": "percent"}
    columns |= {"p": "chance", "A/A before": "percent", "people": "count"}
    drawn = [Row(title, value, tone) for title, value, tone in marked if math.isfinite(value.mean)]
    about = f"Relative difference of {arm} to {control} by metric with 95 % intervals over people."
    forest = Rows(f"{slug}_lifts", f"{arm} against {control}: lifts", about, "lift", drawn, zero=True, percent=True)
    names = [name for name in DRAWN if name in lifts] or in_order(lifts, METRICS)[:4]
    days = [chart for name in names for chart in _over_days(f"{slug}_{slug_of(name)}", found, arm, name)]
    return [
        Charts([forest, *days]),
        Table(f"{slug}_table", f"{arm} against {control}, every metric; “at any time” holds however often one looks",
              columns, rows),
    ]  # fmt: skip


def _over_days(slug: str, found: dict[str, Any], arm: str, name: str) -> list[Plot]:
    title, charts = _metric(found, name)["title"], []
    course = found.get("by_day", {}).get(arm, {}).get(name) or []
    plan = found.get("plan", {})
    before = int(plan.get("aa_days") or 0) + int(plan.get("warm_up") or 0)
    if course:
        xs = [float(day) for day in range(1, len(course) + 1)]
        once, always = ([_lift(one, *ends) for one in course] for ends in ((), ANYTIME))
        series = [
            Series(
                "at any time", xs, [math.nan] * len(xs), [v.low for v in always], [v.high for v in always], colour=4
            ),
            Series("lift, 95 %", xs, [v.mean for v in once], [v.low for v in once], [v.high for v in once], colour=1),
        ]
        about = f"Lift in {title} over all counted days so far, with its interval and the one that holds at any time."
        charts.append(Plot(f"{slug}_lift", f"{title}: lift so far", about, "counted day", "lift", series, level=0.0,
                           percent=True))  # fmt: skip
    daily = {one: found["daily"][one][name] for one in found.get("daily", {}) if found["daily"][one].get(name)}
    if daily:
        series = [
            Series(one, [float(day - before + 1) for day in range(len(values))],
                   [math.nan if v is None else float(v) for v in values], colour=5 if one != arm else 1)
            for one, values in daily.items()
            if one in (arm, found["plan"]["arms"][0])
        ]  # fmt: skip
        about = f"{title} of each single day by arm; days before 1 are A/A and warm-up."
        charts.append(Plot(f"{slug}_daily", f"{title} by day", about, "day (1 = first counted)", title, series))
    return charts
