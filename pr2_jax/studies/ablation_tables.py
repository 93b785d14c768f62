"""The tables of an ablation study: each variant against the whole system, session by session, seeds averaged first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import EvaluationConfig
from pr2_jax.config.ablation_config import WHOLE, Ablation
from pr2_jax.evaluation import results_table
from pr2_jax.metrics.bootstrap import Interval, number
from pr2_jax.metrics.per_session import PerSession, mean_of

METRICS = {
    "channel": ("", "recall@100"),  # of the channel that is changed
    "recall@100": ("retrieval.pr2", "recall@100"),
    "NDCG@10": ("retrieval.pr2", "ndcg@10"),
    "ranked": ("pipeline.pr2", "ndcg@10"),
    "slates": ("slate.qin", "ndcg@10"),
    "AUC": ("slate.qin", "auc"),
}
"""Column to ranking and metric: recall@100 and NDCG@10 of the merged list before any ranker, NDCG@10 of the ranked list
and of the shown results, session AUC of these."""
COSTS = {"ms a step": "{}_step_ms", "ms a search": "search_ms", "ms to retrieve": "retrieve_ms", "MB": "{}_megabytes"}
COLUMNS = {
    "qin": ("ranked", "slates", "AUC", "ms a step", "ms a search", "MB"),
    "pdr": ("channel", "recall@100", "NDCG@10", "ms a step", "ms to retrieve", "MB"),
    "qrcf": ("channel", "recall@100", "NDCG@10", "ms to retrieve"),
    "channels": ("recall@100", "NDCG@10", "ms to retrieve"),
}
"""Of each group's table. A group of another name gets every column that its variants have."""
EVERY = ("recall@100", "NDCG@10", "ranked", "slates", "AUC", "ms to retrieve", "ms a search")


@dataclasses.dataclass(frozen=True)
class Result:
    """One variant trained with one seed."""

    ablation: Ablation
    days: dict[str, dict[str, PerSession]]  # day to ranking to values
    costs: dict[str, float]  # those that are known


def write_tables(results: Sequence[Result], config: EvaluationConfig, out: Path, notes: Mapping[str, str]) -> None:
    """`table_DAY.txt`, `table_DAY.md` and `ablations.json`, which holds what the tables show and each seed's means.

    `notes`: by day, what is to be said of its clicks.
    """
    report = {}
    for day in results[0].days:
        plain, mark, report[day] = _tables(results, config, day, notes[day])
        (out / f"table_{day}.txt").write_text(plain)
        (out / f"table_{day}.md").write_text(mark)
    artifacts.write_json(out / "ablations.json", report)


def _tables(results: Sequence[Result], config: EvaluationConfig, day: str, note: str) -> tuple[str, str, dict]:
    """Plain text, Markdown, and the numbers."""
    runs: dict[Ablation, list[Result]] = {}
    for result in results:
        runs.setdefault(result.ablation, []).append(result)
    whole = runs[WHOLE]
    seeds = f"{len(whole)} seed{'s' if len(whole) > 1 else ''}"
    plain = [
        f"{day.capitalize()} day, {seeds}. First row: the whole system. Below: a variant less the whole system, "
        "session by session,\nseeds averaged first, with half its 95 % interval over people; costs are its own.\n"
        f"{note}\n"
    ]
    mark, numbers = list(plain), {}
    for group in dict.fromkeys(ablation.group for ablation in runs if ablation != WHOLE):
        mine = {one.name: found for one, found in runs.items() if one.group == group}
        first = _row(whole, None, group, day, config)
        below = {name: _row(found, whole, group, day, config) for name, found in mine.items()}
        columns = [name for name in COLUMNS.get(group, EVERY) if any(name in row for row in below.values())]
        rows = [results_table.Row(WHOLE.name, first)]
        rows += [results_table.Row(name, {c: _signed(v) for c, v in row.items()}, group) for name, row in below.items()]
        plain.append(results_table.plain(rows, columns, group))
        mark.append(f"{group}\n\n{results_table.markdown(rows, columns)}")
        numbers[group] = {
            name: {column: number(row[column]) for column in columns if column in row}
            for name, row in {WHOLE.name: first, **below}.items()
        }
    plain.append(_channels(whole, day))
    seen = {one.title: [_means(run, day) for run in found] for one, found in runs.items()}
    return "\n".join(plain), "\n".join(mark), {"tables": numbers, "by_seed": seen, "note": note}


def _row(
    runs: list[Result], whole: list[Result] | None, group: str, day: str, config: EvaluationConfig
) -> dict[str, Interval | float]:
    """Metrics (differences, where the whole system is given) and costs of one variant, where there are any."""
    row: dict[str, Interval | float] = {}
    for column, (name, metric) in METRICS.items():
        name = name or f"retrieval.{group}"
        if name not in runs[0].days[day]:
            continue
        mine = mean_of([run.days[day][name] for run in runs])
        if whole is None:
            row[column] = mine.interval(metric, config.bootstrap, config.seed)
        else:
            theirs = mean_of([run.days[day][name] for run in whole])
            row[column] = mine.less(theirs, metric, config.bootstrap, config.seed)
    for column, cost in COSTS.items():
        known = [run.costs[key] for run in runs if (key := cost.format(group)) in run.costs]
        if known:
            row[column] = float(np.median(known))
    return row


def _channels(whole: list[Result], day: str) -> str:
    """What each channel of the whole system finds within its best 100, and what none of the others does."""
    lines = ["Channels of the whole system: recall@100, and the share of clicked videos that only this one finds"]
    for name, values in whole[0].days[day].items():
        if "unique@100" in values.metrics:
            each = [[np.nanmean(run.days[day][name][m]) for run in whole] for m in ("recall@100", "unique@100")]
            mean = np.mean(each, axis=1)
            lines.append(f"  {name.removeprefix('retrieval.'):<6} {mean[0]:.4f}  {mean[1]:.4f}")
    return "\n".join(lines) + "\n"


def _means(run: Result, day: str) -> dict[str, float]:
    return {
        column: float(np.nanmean(run.days[day][name][metric]))
        for column, (name, metric) in METRICS.items()
        if name in run.days[day]
    }


def _signed(value: Interval | float) -> str | float:
    """A difference, with its sign; a cost as it is."""
    return f"{value.mean:+.4f} ±{(value.high - value.low) / 2:.4f}" if isinstance(value, Interval) else value
