"""A/B tests on the simulated platform: lifts, in total and by day, and validation on known effects (`pr2 abtest`)."""

from __future__ import annotations

import math
from typing import Any

from pr2_jax import artifacts
from pr2_jax.abtest.abtest_report import DRAWS
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.config.loader import to_dict
from pr2_jax.drawing.charts import Plot, Row, Rows, Series, tone_of
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.report.blocks import MISSING, Charts, Note, Section, Table, in_order, slug_of, text_of
from pr2_jax.report.workdir_reader import Work, made_by

DIRECTORY, COMMAND = "abtest", "pr2 abtest --workdir DIR"
ANYTIME = ("low_at_any_time", "high_at_any_time")
GUARDRAIL = {"open": "not decided, the interval holds both"}
DRAWN = ("ctr", "watch", "active", "reformulated")
"""Metrics drawn by day, where they were counted; else the first four."""
PLANTED = {"metric": "text", "truth": "lift", "found": "percent", "covered": "percent", "error": "fine"}
PLANTED |= {"spread": "fine"}
"""Columns of a validation's table."""


def section(work: Work) -> Section:
    """From abtest/NAME/ of every finished experiment and validation."""
    blocks: list = []
    findings, stale = [], []
    for number, place in enumerate(_finished(work, "abtest.json"), 1):
        with artifacts.reading(work.directory / place, made_by(place)):
            found = work.json(f"{place}/abtest.json")
            blocks.append(Note(_plan(found), place.removeprefix(f"{DIRECTORY}/")))
            for arm in found["plan"]["arms"][1:]:
                blocks += _arm(f"abtest_{number}_{slug_of(arm)}", found, arm)
            findings.append(_finding(found))
            stale.append(work.stale(place, COMMAND))
    for place in _finished(work, "trial.json"):
        with artifacts.reading(work.directory / place, made_by(place)):
            blocks += _validation(work, place)
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


def _finished(work: Work, file: str) -> list[str]:
    """Directories with such a file that a run has finished, below the work directory."""
    found = (path.parent for path in (work.directory / DIRECTORY).glob(f"*/{file}"))
    ended = (place.name for place in found if (place / artifacts.MANIFEST).exists())
    whole = (name for name in ended if not name.endswith((".partial", ".old")))  # of a run cut short
    return sorted(f"{DIRECTORY}/{name}" for name in whole)


def _plan(found: dict[str, Any]) -> str:
    plan, people = found["plan"], found.get("people_by_arm", {})
    sizes = ", ".join(f"{arm} {people[arm]:,}" for arm in plan["arms"] if arm in people)
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
    for arm in plan["arms"][1:]:
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
    control, *others = found["plan"]["arms"]
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
    lifts, control, earlier = found["lifts"][arm], found["plan"]["arms"][0], found.get("before", {}).get(arm, {})
    names, rows, drawn = in_order(lifts, METRICS), [], []
    for name in names:
        one, metric = lifts[name], _metric(found, name)
        title, value = metric["title"], _lift(one)
        lifted = [one["control"], one["treated"], value, _lift(one, *ANYTIME), one["p"], _lift(earlier.get(name))]
        rows.append([f"{title}, {metric['unit']}" if metric["unit"] else title, *lifted, one["people"]])
        if math.isfinite(value.mean):
            drawn.append(Row(title, value, tone_of(value, metric["better"])))
    columns = {"metric": "text", control: "metric", arm: "metric", "lift": "percent", "at any time": "percent"}
    columns |= {"p": "chance", "A/A before": "percent", "people": "count"}
    about = f"Relative difference of {arm} to {control} by metric with 95 % intervals over people."
    forest = Rows(f"{slug}_lifts", f"{arm} against {control}: lifts", about, "lift", drawn, zero=True, percent=True)
    by_day = [name for name in DRAWN if name in lifts] or names[:4]
    days = [chart for name in by_day for chart in _over_days(f"{slug}_{slug_of(name)}", found, arm, name)]
    caption = f"{arm} against {control}, every metric; “at any time” holds however often one looks"
    return [Charts([forest, *days]), Table(f"{slug}_table", caption, columns, rows)]


def _over_days(slug: str, found: dict[str, Any], arm: str, name: str) -> list[Plot]:
    title, plan, charts = _metric(found, name)["title"], found["plan"], []
    if course := found.get("by_day", {}).get(arm, {}).get(name):
        xs = [float(day) for day in range(1, len(course) + 1)]
        once, always = ([_lift(one, *ends) for one in course] for ends in ((), ANYTIME))
        unknown = [math.nan] * len(xs)
        series = [
            Series("at any time", xs, unknown, [v.low for v in always], [v.high for v in always], colour=4),
            Series("lift, 95 %", xs, [v.mean for v in once], [v.low for v in once], [v.high for v in once], colour=1),
        ]
        about = f"Lift in {title} over all counted days so far, with its interval and the one that holds at any time."
        named = f"{slug}_lift", f"{title}: lift so far", about, "counted day", "lift"
        charts.append(Plot(*named, series, level=0.0, percent=True))
    first, series = 1 - int(plan.get("aa_days") or 0) - int(plan.get("warm_up") or 0), []
    for one, metrics in found.get("daily", {}).items():
        if one in (arm, plan["arms"][0]) and metrics.get(name):
            ys = [math.nan if v is None else float(v) for v in metrics[name]]
            series.append(Series(one, [float(first + n) for n in range(len(ys))], ys, colour=1 if one == arm else 5))
    if series:
        about = f"{title} of each single day by arm; days before 1 are A/A and warm-up."
        charts.append(Plot(f"{slug}_daily", f"{title} by day", about, "day (1 = first counted)", title, series))
    return charts


def _validation(work: Work, place: str) -> list[Note | Table]:
    """A/A runs and planted effects, from trial.json (`pr2 abtest --validate`)."""
    found = work.json(f"{place}/trial.json")
    name = place.removeprefix(f"{DIRECTORY}/")
    marks = name.removeprefix("trial").strip(",")
    rows, groups = [], []
    for kind, heading in DRAWS.items():
        for metric in (metric for metric in METRICS if metric in found["planted"][kind]):
            one = found["planted"][kind][metric]
            rows.append([METRICS[metric].title, *(float(one[key]) for key in list(PLANTED)[1:])])
            groups.append(heading)
    caption = f"{found['runs']:,} experiments with a planted effect"
    return [
        Note(_tried(found, work, place), "Validation on known effects" + (f" ({marks})" if marks else "")),
        Table(f"abtest_{slug_of(name)}", caption, PLANTED, rows, groups=groups),
    ]


def _tried(found: dict[str, Any], work: Work, place: str) -> str:
    aa, plan = found["aa"], found["plan"]
    metric = METRICS[plan["decided_by"]].title
    said = (
        f"The same kind of experiment, {plan['days']:,} counted days, repeated with other draws and another "
        f"split. In {aa['runs']:,} A/A runs the arms do not differ: {metric} has p below 0.05 in "
        f"{aa['below']:.1%} (5 % is right). Looking every day and stopping at p below 0.05 is wrong in "
        f"{aa['ever_below']:.1%}; with the always-valid interval, in {aa['ever_left_0']:.1%}. "
        f"{found['runs']:,} runs have a planted effect: in {plan['share']:.0%} of searches the best of the first "
        f"{plan['among']:,} videos for the person comes first. Truth: the effect if everybody is treated, mean of the "
        "runs. Found: runs whose 95 % interval lies on the truth's side of 0. Covered: runs whose interval holds the "
        "truth (95 % is right). Error: the standard error that experiments state; it should be the spread of their "
        "lifts."
    )
    manifest = work.json(f"{place}/manifest.json")
    if manifest["fingerprint"]["world"] != to_dict(work.config)["world"]:
        said += " It ran on another world than this one: pr2 abtest --validate N makes it anew."
    return said
