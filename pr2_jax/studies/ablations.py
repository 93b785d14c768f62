"""Ablations: every variant of a file is trained and judged with several seeds, and compared with the whole system.

A variant is a work directory in which stages shared with the whole system of the same seed are links to it. Rankers of
one seed share the features of their slates and the base ranker (`shared/`). Of a judged variant only its per-session
metrics and costs are kept (`judged/`), so that a killed run resumes, and a changed file judges only what changed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts, console, workdir
from pr2_jax.config import Config, EvaluationConfig, ablation_config
from pr2_jax.config.ablation_config import WHOLE, Ablation
from pr2_jax.config.loader import to_dict
from pr2_jax.evaluation import results_table
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.evaluation.rankings import rank_catalogue, rank_day, searchers_of, session_metrics
from pr2_jax.metrics import per_session
from pr2_jax.metrics.bootstrap import Interval, number
from pr2_jax.metrics.per_session import PerSession, mean_of
from pr2_jax.search.system import System
from pr2_jax.stages import train_qin
from pr2_jax.training.training_curve import PACE

Body = Callable[[Path, Config, Path], None]
Make = Callable[[str, Path, Config, Body | None], None]
"""(stage, work directory, config, body or None for the stage's own): makes one stage there, unless it is fresh."""
DIRECTORY, SHARED = "ablations", "shared"
DAYS = ("validation", "test")
JUDGED, COSTS_FILE = "judged", "costs.json"
TIMED_SESSIONS = 64
"""Searches of the test day over which the time to answer one is taken."""
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
    days: dict[str, dict[str, PerSession]]  # day to ranking to metrics
    costs: dict[str, float]  # those that are known


def run(directory: Path, config: Config, file: Path, seeds: int, make: Make) -> None:
    """Judges what is not judged yet, then writes `ablations/table_{test,validation}.{txt,md}` and `ablations.json`."""
    workdir.require_inputs("eval", directory, config)
    variants = [WHOLE, *ablation_config.load(file, config)]
    # One re-finding policy for all: the index of each variant decides anew, and other clicks would be judged.
    served, results = System.open(directory, config), []
    withhold = served.fitted.choices.withholds_clicked
    for seed in range(seeds):
        seeded = ablation_config.seeded(config, seed)
        for ablation in variants:
            place = directory / DIRECTORY / f"seed_{seed}" / ablation.directory
            console.log(f"{ablation.title}, seed {seed}")
            _judge(directory, place, ablation, ablation.config(seeded), make, withhold=withhold)
            found = {day: per_session.load(place / JUDGED / f"{day}.npz") for day in DAYS}
            results.append(Result(ablation, found, json.loads((place / JUDGED / COSTS_FILE).read_text())))
    notes = {name: day_of(served, *span).refinding.note for name, span in days_of(served).items()}
    write_tables(results, config.evaluation, directory / DIRECTORY, notes)


def print_table(directory: Path) -> None:
    """The test day's table, to stdout."""
    print((directory / DIRECTORY / "table_test.txt").read_text(), end="")


def days_of(system: System) -> dict[str, tuple[int, int]]:
    """Start and end of each of `DAYS`."""
    cuts = system.store.cuts
    return {"validation": (cuts.validation_ms, cuts.test_ms), "test": (cuts.test_ms, cuts.end_ms)}


def _judge(directory: Path, place: Path, ablation: Ablation, config: Config, make: Make, *, withhold: bool) -> None:
    """Trains what this variant does not share, judges it on both days, and drops what was trained."""
    claim = {"store": artifacts.identity(directory / workdir.STORE), "config": to_dict(config)}
    claim |= {"ranked": ablation.ranked, "withhold": withhold}
    whole = place.parent / WHOLE.directory
    if not artifacts.fresh(place / JUDGED, claim, workdir.SCHEMA):
        _make_stages(place, config, ablation.ranked, [directory, whole], make)
        system = System.open(place, config)
        with artifacts.writing(place / JUDGED, claim, workdir.SCHEMA) as out:
            for name, span in days_of(system).items():
                day = day_of(system, *span, withhold=withhold)
                found = session_metrics(system, rank_day(system, config, day, ("pr2",) if ablation.ranked else ()))
                per_session.save(out / f"{name}.npz", found)
            artifacts.write_json(out / COSTS_FILE, _costs(system, config, day, ablation.ranked))
    # Also what a kill may have left; but the whole system lends its stages to the other variants.
    for name in () if place == whole else (workdir.STORE, *workdir.STAGES):
        shutil.rmtree(place / name, ignore_errors=True)
        shutil.rmtree(place / f"{name}.partial", ignore_errors=True)


def _make_stages(place: Path, config: Config, ranked: bool, lenders: Sequence[Path], make: Make) -> None:
    """Every stage up to the ranker, or up to the index: linked where a lender has it, else made."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / workdir.STORE).exists():
        artifacts.link_tree(lenders[0] / workdir.STORE, place / workdir.STORE)
    for name in workdir.STAGES:
        if name == "eval" or (name == "qin" and not ranked):
            continue
        claim = workdir.fingerprint(name, place, config)
        if artifacts.fresh(place / name, claim, workdir.SCHEMA):
            continue
        lender = next((one for one in lenders if artifacts.fresh(one / name, claim, workdir.SCHEMA)), None)
        if lender is None:
            make(name, place, config, functools.partial(_train_rankers, claim) if name == "qin" else None)
        else:
            shutil.rmtree(place / name, ignore_errors=True)
            artifacts.link_tree(lender / name, place / name)


def _train_rankers(claim: dict[str, Any], place: Path, config: Config, out: Path) -> None:
    """Trains the rankers of a variant with what others of its seed have made already; `claim` is the stage's."""
    kept = {name: value for name, value in claim["config"].items() if name not in ("qin", "base")}
    slates = {name: vars(config.qin)[name] for name in ("slate", "sampled_negatives", "negative_queries")}
    seed, shared = {"seed": config.qin.optim.seed}, place.parent / SHARED

    def directory(name: str, facts: dict[str, Any]) -> Path:
        return shared / f"{name}_{artifacts.digest([claim['inputs'], kept, facts | seed])}"

    features, base = directory("slates", slates), directory("base", {"base": to_dict(config.base)})
    features.mkdir(parents=True, exist_ok=True)
    if base.exists() and not (out / "base").exists():
        (out / "base").mkdir()
        artifacts.link_tree(base, out / "base" / "params")
    train_qin.train(place, config, out, features)
    if not base.exists():
        artifacts.link_tree(out / "base" / "params", base)


def _costs(system: System, config: Config, day: Day, ranked: bool) -> dict[str, float]:
    """Milliseconds that a training step took and that a search of the day takes; megabytes of parameters."""
    models = {"pdr": "pdr"} | ({"qin": "qin/qin"} if ranked else {})
    out = {}
    for name, part in models.items():
        trained = system.workdir / part
        if (trained / PACE).exists():  # a run of very few steps has none
            out[f"{name}_step_ms"] = json.loads((trained / PACE).read_text())["seconds_a_step"] * 1e3
        files = [path for path in (trained / "params").rglob("*") if path.is_file()]
        out[f"{name}_megabytes"] = sum(path.stat().st_size for path in files) / 1e6
    some = day.sample(TIMED_SESSIONS)
    for name, pipelines in {"retrieve_ms": (), **({"search_ms": ("pr2",)} if ranked else {})}.items():
        once = functools.partial(rank_catalogue, system, config, some, searchers_of(system, some, pipelines))
        seconds = timeit.repeat(once, number=1, repeat=3)  # the first compiles
        out[name] = 1e3 * min(seconds[1:]) / max(1, len(some.sessions))
    return out


def write_tables(results: Sequence[Result], config: EvaluationConfig, out: Path, notes: Mapping[str, str]) -> None:
    """`table_DAY.txt`, `table_DAY.md` and `ablations.json`, which holds what the tables show and each seed's means.

    `notes`: by day, what is to be said of its clicks.
    """
    report = {}
    for day in results[0].days:
        plain, mark, report[day] = _tables(results, config, day, notes[day])
        (out / f"table_{day}.txt").write_text("\n".join(plain))
        (out / f"table_{day}.md").write_text("\n".join(mark))
    artifacts.write_json(out / "ablations.json", report)


def _tables(
    results: Sequence[Result], config: EvaluationConfig, day: str, note: str
) -> tuple[list[str], list[str], dict]:
    """Parts of the plain text and of the Markdown, and the numbers."""
    runs: dict[Ablation, list[Result]] = {}
    for result in results:
        runs.setdefault(result.ablation, []).append(result)
    whole = runs[WHOLE]
    plain = [
        f"{day.capitalize()} day, {len(whole)} seed{'s' if len(whole) > 1 else ''}. First row: the whole system. "
        "Below: a variant less the whole system, session by session,\nseeds averaged first, with half its 95 % "
        f"interval over people; costs are its own.\n{note}\n"
    ]
    mark, numbers = list(plain), {}
    for group in dict.fromkeys(ablation.group for ablation in runs if ablation != WHOLE):
        below = {one.name: _row(found, whole, group, day, config) for one, found in runs.items() if one.group == group}
        columns = [name for name in COLUMNS.get(group, EVERY) if any(name in row for row in below.values())]
        first = _row(whole, None, group, day, config)
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
    return plain, mark, {"tables": numbers, "by_seed": seen, "note": note}


def _row(
    runs: list[Result], whole: list[Result] | None, group: str, day: str, config: EvaluationConfig
) -> dict[str, Interval | float]:
    """Metrics (differences, where the whole system is given) and costs of one variant, where there are any."""
    row: dict[str, Interval | float] = {}
    for column, (name, metric) in METRICS.items():
        name = name or f"retrieval.{group}"
        if name not in runs[0].days[day]:
            continue
        mine, theirs = (mean_of([run.days[day][name] for run in both]) for both in (runs, whole or runs))
        asked = metric, config.bootstrap, config.seed
        row[column] = mine.less(theirs, *asked) if whole else mine.interval(*asked)
    for column, cost in COSTS.items():
        known = [run.costs[key] for run in runs if (key := cost.format(group)) in run.costs]
        if known:
            row[column] = float(np.median(known))
    return row


def _channels(whole: list[Result], day: str) -> str:
    """recall@100 of each channel of the whole system, and the share that no other channel finds."""
    lines = ["Channels of the whole system: recall@100, and the share of clicked videos that only this one finds"]
    for name, values in whole[0].days[day].items():
        if "unique@100" in values.metrics:
            each = [[np.nanmean(run.days[day][name][m]) for run in whole] for m in ("recall@100", "unique@100")]
            recall, unique = np.mean(each, axis=1)
            lines.append(f"  {name.removeprefix('retrieval.'):<6} {recall:.4f}  {unique:.4f}")
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
