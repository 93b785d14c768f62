"""What QRCF's threshold trades: `pr2 evaluate --sweep qrcf` on the validation day."""

from __future__ import annotations

import math

from pr2_jax.report.blocks import Charts, Column, Note, Section, Table
from pr2_jax.report.charts import Plot, Series
from pr2_jax.report.workdir_reader import Work
from pr2_jax.studies.qrcf_sweep import ALONE, DIRECTORY, MERGED
from pr2_jax.studies.sweep_report import AXES, FAMILIES

COMMAND = "pr2 evaluate --workdir DIR --sweep qrcf"
Y = "recall@100"
SHOWN = {
    "epsilon": "epsilon",
    f"{ALONE}.coverage": "coverage",
    f"{ALONE}.seeds": "seeds a search",
    f"{ALONE}.relevance": "relevance",
    f"{ALONE}.entropy": "category entropy",
    f"{ALONE}.{Y}": f"{Y}, alone",
    f"{MERGED}.{Y}": f"{Y}, merged",
    f"{MERGED}.ndcg@10": "ndcg@10, merged",
}


def section(work: Work) -> Section:
    """From sweep_qrcf/points.csv."""
    title = "QRCF's threshold"
    points = _of_the_grid(work)
    if not points:
        return Section("frontier", title, missing=COMMAND)
    today = next((p for p in points if p["configured"] == "1"), points[0])
    charts = [_chart(points, today, axis) for axis in AXES]
    best = max(points, key=lambda p: _number(p, f"{ALONE}.{Y}"))
    return Section(
        "frontier",
        title,
        f"{Y} of QRCF alone reaches {_number(best, f'{ALONE}.{Y}'):.3f} ({_name(best)}); configured "
        f"{_number(today, f'{ALONE}.{Y}'):.3f} ({_name(today)}).",
        "QRCF keeps past views whose cosine with the query is above epsilon: a strict threshold gives fewer, more "
        "relevant seeds and narrower results, a lax one finds more. Points are thresholds (numbers: their quantiles, "
        "of the configured K), judged on the validation day. The ring is what is configured.",
        [Charts(charts), _table(points), Note("points.csv of the sweep has every measure with its interval.")],
        stale=work.stale(DIRECTORY, COMMAND),
    )


def _of_the_grid(work: Work) -> list[dict[str, str]]:
    """The points of the sweep but those that it adds to compare the two kinds at equally many seeds."""
    manifest = work.json(f"{DIRECTORY}/manifest.json") or {}
    grid = manifest.get("fingerprint", {}).get("grid", {})
    asked = work.csv(f"{DIRECTORY}/points.csv")
    return [p for p in asked if p["configured"] == "1" or float(p["quantile"]) in grid.get(p["threshold"], ())]


def _number(point: dict[str, str], name: str) -> float:
    return float(point[name]) if point.get(name) else math.nan


def _name(point: dict[str, str]) -> str:
    return f"{FAMILIES[point['threshold']]} {point['quantile']}, K {point['k']}"


def _chart(points: list[dict[str, str]], today: dict[str, str], axis) -> Plot:
    others = [p for p in points if p["k"] != today["k"]]
    series = [_series("other K", others, axis.measure, 5, line=False)]
    for number, (threshold, name) in enumerate(FAMILIES.items(), 1):
        mine = [p for p in points if p["threshold"] == threshold and p["k"] == today["k"]]
        mine.sort(key=lambda p: float(p["quantile"]))
        series.append(
            _series(f"{name}, K {today['k']}", mine, axis.measure, number, tuple(p["quantile"] for p in mine))
        )
    series.append(_series(f"configured ({_name(today)})", [today], axis.measure, 6, line=False))
    about = f"{Y} of QRCF alone against {axis.title}, one line for each kind of threshold, from lax to strict."
    return Plot(f"frontier_{axis.measure}", f"{Y} against {axis.measure}", about, axis.title, Y, series, log_x=axis.log)


def _series(
    name: str, points: list[dict[str, str]], x: str, colour: int, labels: tuple[str, ...] = (), line: bool = True
) -> Series:
    xs, ys = ([_number(p, f"{ALONE}.{m}") for p in points] for m in (x, Y))
    return Series(name, xs, ys, marks=True, line=line, labels=labels, colour=colour)


def _table(points: list[dict[str, str]]) -> Table:
    lines = [[_name(p), *(_number(p, name) for name in SHOWN)] for p in points]
    marked = frozenset(n for n, p in enumerate(points) if p["configured"] == "1")
    heads = [Column("threshold", "text"), *map(Column, SHOWN.values())]
    return Table("frontier", "Every point of the sweep, validation day", heads, lines, marked, folded=True)
