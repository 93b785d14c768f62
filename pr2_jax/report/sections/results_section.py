"""Retrieval and ranking on the test day: the tables of `eval/table.txt`, and wins by search and by person."""

from __future__ import annotations

import math

import numpy as np

from pr2_jax.drawing.charts import BETTER, PLAIN, Row, Rows, tone_of
from pr2_jax.evaluation.evaluate import CATALOGUE_COLUMNS, COMPARISONS, SLATE_COLUMNS
from pr2_jax.evaluation.judged_day import Refinding
from pr2_jax.evaluation.rankings import ORDER
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.report.blocks import Charts, Note, Section, Table, estimate, in_order, slug_of
from pr2_jax.report.workdir_reader import Work

SLATES = ("random", "popularity", "bm25", "base", "qin", "oracle")
LINES = (*ORDER, "pipeline.oracle", *(f"slate.{name}" for name in SLATES))
"""All rankings in the order of tables."""
GROUPS = {"retrieval": "Retrieved", "pipeline": "Retrieved and ranked"}
STEPS = {"pipeline": "retrieved and ranked", "retrieval": "retrieval alone", "slate": "shown results reordered"}
"""The task of a comparison, by the kind of ranking."""
OURS = ("retrieval.pr2", "pipeline.pr2", "slate.qin")
WHAT = {
    "retrieval.random": "videos at random",
    "retrieval.popularity": "the most clicked",
    "retrieval.bm25": "words",
    "retrieval.dr": "content vectors",
    "retrieval.bm25+dr": "both merged",
    "retrieval.qrcf": "past views that fit",
    "retrieval.pdr": "dual encoder",
    "retrieval.pr2": "all four merged",
    "pipeline.base": "base's ranker on its list",
    "pipeline.pr2": "QIN on PR²'s list",
    "pipeline.oracle": "the simulated truth",
}
TERMS = (
    "recall@k: share of the videos a person clicked in a search that are among the first k. NDCG@10: the same for the "
    "first 10, higher places count more; 1 is perfect. MRR: one over the place of the first clicked video. MAP: mean "
    "precision at each clicked video. AUC: chance that a clicked result stands above one that was not; GAUC: by "
    "person. ECE: how far predicted clicks are from what happened; PCOC: predicted over observed clicks, 1 is right."
)


def section(work: Work) -> Section:
    """From eval/metrics.json and eval/sessions.npz."""
    rows = {name.removesuffix(".run"): row for name, row in work.metrics["rows"].items()}
    names = in_order(rows, LINES)
    whole = [name for name in names if not name.startswith("slate.")]
    shown = [name for name in names if name.startswith("slate.")]
    before = Refinding(**work.metrics["found_before"])
    blocks = [
        Charts([*(_dots(rows, whole, name) for name in ("recall@100", "ndcg@10")), _wins(work)]),
        _table(rows, whole, CATALOGUE_COLUMNS, "retrieval", f"Whole catalogue, test day, {before.rule}"),
        Note(before.note),
        _table(rows, shown, SLATE_COLUMNS, "slates", "Shown results put in another order, test day"),
        _pairs(work),
        Note(TERMS),
    ]
    return Section(
        finding(work),
        "All rankings are of the same searches of the test day; nothing was trained or chosen on it. ± is half of "
        "the 95 % interval, by bootstrap over people.",
        blocks,
    )


def compared(work: Work) -> dict[str, dict[str, Interval]]:
    """The paired differences, in the order of the evaluation."""
    found = work.metrics["differences"]
    asked = {f"{one} - {other}": metrics for one, other, metrics in COMPARISONS}
    return {n: {m: estimate(found[n][m]) for m in asked.get(n, sorted(found[n]))} for n in in_order(found, asked)}


def finding(work: Work) -> str:
    """One line: what each step of PR² brings, of those that could be judged."""
    parts = []
    for name, row in compared(work).items():
        metric = "recall@100" if "recall@100" in row else "ndcg@10"
        value = row[metric]
        if value.count:
            parts.append(f"{_said(name)}: {metric} {value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]")
    return f"PR² less base, {'; '.join(parts)}."


def _said(comparison: str) -> str:
    return STEPS.get(comparison.partition(".")[0], comparison.replace(" - ", " less "))


def _dots(rows: dict, names: list[str], metric: str) -> Rows:
    lines = []
    for name in (name for name in names if metric in rows[name]):
        kind, _, label = name.partition(".")
        tone = BETTER if name in OURS else PLAIN
        lines.append(Row(label, estimate(rows[name][metric]), tone, group=GROUPS[kind]))
    about = f"{metric} of each ranking, with 95 % intervals; PR² is the last of each block but the oracle."
    return Rows(f"retrieval_{slug_of(metric)}", f"{metric}, whole catalogue", about, metric, lines)


def _table(rows: dict, names: list[str], metrics: tuple[str, ...], slug: str, caption: str) -> Table:
    lines = [[name, *(estimate(rows[name].get(metric)) for metric in metrics)] for name in names]
    columns = {"ranking": "text"} | dict.fromkeys(metrics, "metric")
    marked = [place for place, name in enumerate(names) if name in OURS]
    if slug == "slates":
        return Table(slug, caption, columns, lines, marked)
    lines = [[name, *values, WHAT.get(name, "")] for name, *values in lines]
    groups = [GROUPS[name.partition(".")[0]] for name in names]
    return Table(slug, caption, columns | {"what answers": "text"}, lines, marked, groups)


def _pairs(work: Work) -> Table:
    lines = [
        [f"{name.replace(' - ', ' less ')}, {metric}", value, value.count]
        for name, row in compared(work).items()
        for metric, value in row.items()
    ]
    columns = {"comparison": "text", "difference": "signed", "searches": "count"}
    return Table("differences", "Paired differences, search by search, 95 % intervals over people", columns, lines)


def _wins(work: Work) -> Rows:
    """Shares of searches and of people with a better, the same or a worse order."""
    rows = []
    for said, one, other in (
        ("whole catalogue", "pipeline.pr2", "pipeline.base"),
        ("shown results", "slate.qin", "slate.base"),
    ):
        gain_N, user_N = _gains(work, one, other)
        if len(gain_N):
            of_people_U = np.bincount(np.unique(user_N, return_inverse=True)[1], gain_N)
            for what, gains in (("searches", gain_N), ("people, all their searches", of_people_U)):
                shares = _shares(gains)
                rows.append(Row(what, parts=shares, text=" / ".join(f"{share:.0%}" for share in shares), group=said))
    about = (
        "Shares of searches, and of people over all their searches of the day, in which NDCG@10 is higher with PR², "
        "the same, or lower."
    )
    names = ("better with PR²", "the same", "worse with PR²")
    return Rows("wins", "Better, the same, worse (NDCG@10)", about, "share", rows, part_names=names, percent=True)


def _gains(work: Work, one: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Difference of NDCG@10 in each search in which it is known, and the user of each."""
    gain_N = work.values[one]["ndcg@10"] - work.values[other]["ndcg@10"]
    known_N = np.isfinite(gain_N)
    return gain_N[known_N], work.values[one].user_N[known_N]


def _shares(gains: np.ndarray) -> tuple[float, ...]:
    """Of gains above, at and below 0; zeros without any."""
    sides = gains > 1e-12, np.abs(gains) <= 1e-12, gains < -1e-12
    return tuple(float(side.sum() / max(1, len(gains))) for side in sides)


def headline(work: Work) -> dict:
    """The paired comparison at the top of the page."""
    rows, value = work.metrics["rows"], compared(work)["pipeline.pr2 - pipeline.base"]["ndcg@10"]
    base, ours = (estimate(rows[f"pipeline.{name}.run"]["ndcg@10"]) for name in ("base", "pr2"))
    lines = [
        Row(_said(name), row[m], tone_of(row[m]), group=m)
        for m in ("ndcg@10", "recall@100")
        for name, row in compared(work).items()
        if m in row
    ]
    about = "Paired differences between PR² and base with their 95 % intervals; right of 0 PR² is better."
    return {
        "value": value,
        "base": base,
        "ours": ours,
        "relative": value.mean / base.mean if base.mean > 0 else math.nan,
        "people": len(np.unique(work.values["pipeline.pr2"].user_N)),
        "sure": tone_of(value),
        "gap_closed": work.metrics.get("gap_closed", {}).get("pipeline"),
        "wins": _shares(_gains(work, "pipeline.pr2", "pipeline.base")[0]),
        "chart": Rows("headline", "PR² less base", about, "difference", lines, zero=True),
    }
