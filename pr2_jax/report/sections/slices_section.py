"""Paired differences by slices of query, person and clicked video (evaluation/slices.py)."""

from __future__ import annotations

import math

from pr2_jax.drawing.charts import BETTER, WORSE, Row, Rows, tone_of
from pr2_jax.evaluation.judged_day import Refinding
from pr2_jax.evaluation.slices import MEASURES
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.metrics.slicing import Measure
from pr2_jax.report.blocks import Charts, Note, Section, Table, estimate, in_order, slug_of
from pr2_jax.report.workdir_reader import Work

ORDER = ("query", "history", "person", "popularity", "age", "found")
CHARTED = ("pipeline ndcg@10", "retrieval recall@100", "slate ndcg@10")


def section(work: Work) -> Section:
    """From eval/metrics.json."""
    found = work.metrics.get("slices")
    if not found:
        return Section(missing="pr2 evaluate --workdir DIR")
    names = in_order(found, ORDER)
    lines = [(name, one) for name in names for one in found[name]["slices"]]
    charts = [_chart(lines, measure) for measure in CHARTED]
    notes = [Note(f"{name}: {found[name]['what']}.") for name in names]
    tables = [_table(lines, measure) for measure in MEASURES]
    return Section(
        _finding(lines),
        "The same paired difference within groups of searches: by how often the query had been asked, by how much the "
        "person had done, and by the clicked video; found: by whether the person had clicked it before. Intervals over "
        f"people, none where there are fewer than 10. {Refinding(**work.metrics['found_before']).note}",
        [Charts(charts), *tables, *notes],
    )


def _label(one: dict) -> str:
    low, high = one["from"], one["to"]
    if low < 0:
        return one["name"]
    if high is None:
        return f"{one['name']} ({low:,} or more)"
    return f"{one['name']} ({low:,})" if low == high else f"{one['name']} ({low:,} to {high:,})"


def _difference(one: dict, measure: str) -> Interval:
    return estimate(one["measures"][measure]["difference"])


def _finding(lines: list[tuple[str, dict]]) -> str:
    """Counts slices with enough people for an interval."""
    told = [(f"{name} {one['name']}", _difference(one, CHARTED[0])) for name, one in lines]
    tones = [(name, tone_of(value)) for name, value in told if math.isfinite(value.low)]
    better, worse = ([name for name, tone in tones if tone == wanted] for wanted in (BETTER, WORSE))
    lower = f"lower for {', '.join(worse)}" if worse else "lower in none"
    return f"NDCG@10 is higher with PR² in {len(better)} of {len(tones)} slices with people enough to tell, {lower}."


def _chart(lines: list[tuple[str, dict]], measure: str) -> Rows:
    rows = [
        Row(_label(one), value, tone_of(value), group=f"by {name}")
        for name, one in lines
        if math.isfinite((value := _difference(one, measure)).mean)
    ]
    about = f"Difference in {measure} between PR² and base in each slice of searches, with 95 % intervals over people."
    return Rows(f"slices_{slug_of(measure)}", f"PR² less base, {measure}", about, "difference", rows, zero=True)


def _table(lines: list[tuple[str, dict]], measure: Measure) -> Table:
    against, ours = measure.against, measure.ranking
    rows = []
    for _, one in lines:
        cell, value = one["measures"][measure.name], _difference(one, measure.name)
        rows.append([_label(one), value.count, cell["users"], cell[against], cell[ours], value])
    columns = {"slice": "text", "searches": "count", "people": "count"}
    columns |= dict.fromkeys((name.partition(".")[2] for name in (against, ours)), "metric") | {"difference": "signed"}
    caption = f"{measure.metric} of {ours} against {against}, by slice"
    groups = [f"by {name}" for name, _ in lines]
    return Table(f"slices_table_{slug_of(measure.name)}", caption, columns, rows, groups=groups, folded=True)
