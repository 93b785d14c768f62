"""Report of a QRCF sweep: points.csv, two tables and a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pr2_jax.config.schema import THRESHOLDS, Config
from pr2_jax.drawing.charts import Plot, Series
from pr2_jax.drawing.painters import png
from pr2_jax.evaluation import results_table
from pr2_jax.evaluation.judged_day import Refinding
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.studies.qrcf_sweep import ALONE, MERGED, REFITTED, Judged, Pairs, best_of, configured, objective

FAMILIES = {"quantile": "one epsilon", "adaptive": "adaptive"}
"""By `threshold`, its name in tables and the picture."""
OF_THE_MERGE = ("recall@100", "ndcg@10")
AXES = (
    ("seeds", "seeds a search", True),
    ("coverage", "coverage: share of searches with a seed", False),
    ("relevance", "mean cosine of query and top 10", False),
    ("entropy", "category entropy of the top 10, nats", False),
)
"""Recall is drawn against each of these: measure, title, logarithmic axis."""
DRAWN = "recall@100"


def write(out: Path, judged: Sequence[Judged], pairs: Pairs, refinding: Refinding, config: Config) -> None:
    """`points.csv`, `table.txt`, `table.md` and `frontier.png` into `out`."""
    beyond = {other.point: other for _, other in pairs if other.point not in {one.point for one in judged}}
    points = _points_csv(out / "points.csv", [*judged, *beyond.values()], config)
    title = (
        f"QRCF on the validation day, {len(judged[0].metrics[ALONE].session_N):,} searches: QRCF alone; @pr2: merged "
        "with the other channels,\nweights of the index. entropy: category labels of the top 10, in nats; "
        f"{refinding.rule}.\n{refinding.note}"
    )
    rows = [results_table.Row(_name(one), _alone(one), FAMILIES[one.point.threshold]) for one in judged]
    again = [results_table.Row(_name(one), _refitted(one, config)) for one in judged if one.weights]
    heading = "Merged, weights chosen anew (the index's where no better ones are found); ± half of the 95 % interval"
    verdict, tables = "\n".join(_verdict(judged, pairs, config)) + "\n", ((title, rows), (heading, again))
    plain = [results_table.plain(lines, None, above) for above, lines in tables]
    (out / "table.txt").write_text("\n".join([*plain, verdict]))
    marked = [f"{above}\n\n{results_table.markdown(lines)}" for above, lines in tables]
    (out / "table.md").write_text("\n".join([*marked, verdict]))
    png(charts_of(points[: len(judged)]), out / "frontier.png", columns=2)


def _name(judged: Judged) -> str:
    return f"{FAMILIES[judged.point.threshold]} {judged.point.quantile:g} K {judged.point.k}"


def _alone(judged: Judged) -> dict[str, float]:
    own = {name: _mean(value_N) for name, value_N in judged.metrics[ALONE].metrics.items()}
    merged = {f"{name}@pr2": _mean(judged.metrics[MERGED][name]) for name in OF_THE_MERGE}
    return {"epsilon": judged.epsilon} | own | merged


def _refitted(judged: Judged, config: Config) -> dict[str, Interval | float]:
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    return {name: judged.metrics[REFITTED].interval(name, draws, seed) for name in OF_THE_MERGE} | judged.weights


def _mean(value_N: np.ndarray) -> float:
    known_N = value_N[np.isfinite(value_N)]
    return float(known_N.mean()) if len(known_N) else math.nan


def _verdict(judged: Sequence[Judged], pairs: Pairs, config: Config) -> list[str]:
    """The best points, and paired differences: of the best to the configured one, of the two families."""
    by_point = {one.point: one for one in judged}
    today = by_point[configured(config.retrieval.qrcf)]
    lines, asked = ["Configured: " + _name(today), "Best by the mean of recall@100 and NDCG@10:"], []
    for by, said in ((ALONE, "QRCF alone"), (REFITTED, "merged")):
        best = [by_point[point] for point in sorted(best_of(judged, by, 1))]
        first = max(best, key=lambda one, by=by: objective(one, by))
        lines.append(f"  {said:<10} {_name(first)}: {objective(first, by):.4f}, configured {objective(today, by):.4f}")
        asked += [(said, one, today, by) for one in best if one is not today]
        fixed, adaptive = (next((b for b in best if b.point.threshold == name), None) for name in THRESHOLDS)
        if fixed and adaptive and today not in (fixed, adaptive):
            asked.append((said, adaptive, fixed, by))
    lines += ["", "Paired differences, 95 % intervals by bootstrap over people"]
    lines += [line for said, *pair in asked for line in _difference(said, *pair, config)]
    lines += ["", f"Equally many seeds, K {today.point.k}, QRCF alone"]
    for one, other in pairs:
        lines += _difference(" and ".join(_kept(each) for each in (one, other)), one, other, ALONE, config)
    return lines


def _difference(said: str, one: Judged, other: Judged, by: str, config: Config) -> list[str]:
    lines = [f"  {said}: {_name(one)} - {_name(other)}"]
    for name in OF_THE_MERGE:
        v = one.metrics[by].less(other.metrics[by], name, config.evaluation.bootstrap, config.evaluation.seed)
        lines.append(f"    {name:<10} {v.mean:+.4f} [{v.low:+.4f}, {v.high:+.4f}]")
    return lines


def _kept(judged: Judged) -> str:
    values = judged.metrics[ALONE]
    return f"{_mean(values['seeds']):.1f} seeds in {_mean(values['coverage']):.1%}"


def _points_csv(path: Path, judged: Sequence[Judged], config: Config) -> list[dict[str, str]]:
    """A row a point: every measure with its interval, `refitted` and the weights only where they were chosen anew."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    rows = []
    for one in judged:
        point = one.point
        row = {"threshold": point.threshold, "quantile": f"{point.quantile:g}", "k": str(point.k)}
        row |= {"configured": str(int(point == configured(config.retrieval.qrcf))), "epsilon": f"{one.epsilon:.6f}"}
        for by, values in one.metrics.items():
            for name in values.metrics:
                found = values.interval(name, draws, seed)
                for end, number in (("", found.mean), ("_low", found.low), ("_high", found.high)):
                    row[f"{by}.{name}{end}"] = f"{number:.6f}" if math.isfinite(number) else ""
        row |= {f"weight.{name}": f"{weight:.6f}" for name, weight in (one.weights or {}).items()}
        rows.append(row)
    columns = list(max(rows, key=len))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def charts_of(points: Sequence[Mapping[str, str]]) -> list[Plot]:
    """A plot for each of `AXES`, from rows of points.csv. A line joins a family's points with the configured K."""
    today = next((p for p in points if p["configured"] == "1"), points[0])
    others = [p for p in points if p["k"] != today["k"]]
    plots = []
    for measure, title, log in AXES:
        series = [_series("other K", others, measure, 5, line=False)]
        for number, (threshold, name) in enumerate(FAMILIES.items(), 1):
            mine = [p for p in points if p["threshold"] == threshold and p["k"] == today["k"]]
            mine.sort(key=lambda p: float(p["quantile"]))
            series.append(_series(f"{name}, K {today['k']}", mine, measure, number, tuple(p["quantile"] for p in mine)))
        series.append(_series(f"configured ({point_name(today)})", [today], measure, 6, line=False))
        about = f"{DRAWN} of QRCF alone against {title}, one line for each kind of threshold, from lax to strict."
        named = f"frontier_{measure}", f"{DRAWN} against {measure}", about, title, DRAWN
        plots.append(Plot(*named, series, log_x=log))
    return plots


def point_name(point: Mapping[str, str]) -> str:
    """Of a row of points.csv."""
    return f"{FAMILIES[point['threshold']]} {point['quantile']}, K {point['k']}"


def value_of(point: Mapping[str, str], name: str) -> float:
    """A measure of a row of points.csv, NaN where it has none."""
    return float(point[name]) if point.get(name) else math.nan


def _series(
    name: str, points: Sequence[Mapping[str, str]], x: str, colour: int, labels: tuple[str, ...] = (), line: bool = True
) -> Series:
    xs, ys = ([value_of(p, f"{ALONE}.{m}") for p in points] for m in (x, DRAWN))
    return Series(name, xs, ys, marks=True, line=line, labels=labels, colour=colour)
