"""Judges everything on the test day, once: run files, metrics.json, one table. Nothing is chosen here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import session_names
from pr2_jax.errors import BadInput
from pr2_jax.evaluation import calibration_report, result_outcomes, results_table, slices
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.evaluation.leak_probe import probe_day, probe_training
from pr2_jax.evaluation.oracle_rows import oracle_rankings
from pr2_jax.evaluation.rankings import Answers, Ranking, answers, values
from pr2_jax.evaluation.refinding_report import FoundBefore
from pr2_jax.evaluation.run_files import write_run
from pr2_jax.metrics import per_session as session_values
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval, interval, number
from pr2_jax.metrics.per_session import Values
from pr2_jax.search.system import System
from pr2_jax.types import NO_VIDEO

CATALOGUE_COLUMNS = ("recall@10", "recall@100", "ndcg@10", "map", "mrr")
SLATE_COLUMNS = ("ndcg@10", "mrr", "auc", "gauc", "pooled_auc", "logloss", "ece", "pcoc")
COMPARISONS = (
    ("retrieval.pr2", "retrieval.bm25+dr", ("recall@10", "recall@100", "ndcg@10")),
    ("pipeline.pr2", "pipeline.base", ("recall@10", "ndcg@10", "mrr")),
    ("slate.qin", "slate.base", ("ndcg@10", "auc")),
)
SESSIONS = "sessions.npz"
"""What each ranking was worth in each session (metrics/per_session.py)."""

Metrics = dict[str, Interval | float]


def run(workdir: Path, config: Config, out: Path) -> None:
    """Writes run files, `metrics.json`, `sessions.npz`, `table.*`, `slices.*`, `calibration.*` (`.txt` and `.md`) and
    `reliability.png` into `out`."""
    system = System.open(workdir, config)
    cuts = system.store.cuts
    day = day_of(system, cuts.test_ms, cuts.end_ms)
    if not len(day.sessions):
        new = " on what its person had not clicked before" if len(day.clicked_sessions) else ""
        raise BadInput(f"{workdir / 'store'}: no search of the test day has a click{new}: there is nothing to judge by")
    probed = {"test_day": probe_day(system, config, cuts.test_ms), "training_day": probe_training(system, config)}
    counts = " and ".join(f"{count} searches of the {day.replace('_', ' ')}" for day, count in probed.items())
    console.log(f"leak probe: {counts} are told the same with their future removed")
    given = answers(system, config, day)
    given.rankings.update(oracle_rankings(system, config, given))
    worth = values(system, given)
    for name, ranking in given.rankings.items():
        _write_run(system, given, name, ranking, out)
    session_values.save(out / SESSIONS, worth)
    found = {
        "leak_probe_sessions": probed,
        "found_before": dataclasses.asdict(day.found_before),
        "slices": slices.write(system, config, day, worth, out),
        "calibration": calibration_report.write(system, config, given, out),
        "gap_closed": _gap_closed(worth),
    }
    outcomes = result_outcomes.judged(given, config)
    _report(_rows(config, given, worth), _differences(config, worth), outcomes, found, out)


def print_table(workdir: Path) -> None:
    """What `run` found, to stdout; where the rest is."""
    print((workdir / "eval" / "table.txt").read_text(), end="")
    if (path := workdir / "eval" / slices.TEXT).exists():  # not of an evaluation by an earlier version
        console.log(f"the same by query, person and clicked video: {path}")


def _write_run(system: System, given: Answers, name: str, ranking: Ranking, out: Path) -> None:
    """With raw ids."""
    raw, store = np.asarray(system.store.videos.raw_id), system.store
    sessions = given.day.all_sessions if ranking.of_shown else given.day.sessions
    videos_SxK = np.where(ranking.ids_SxK > 0, raw[ranking.ids_SxK], NO_VIDEO)
    write_run(out / f"{name}.run", session_names(store)[sessions], videos_SxK, ranking.scores_SxK, name)


def _rows(config: Config, given: Answers, worth: dict[str, Values]) -> dict[str, Metrics]:
    """A line of the table for each ranking. Order metrics count sessions with a click, the others all shown results."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    out: dict[str, Metrics] = {}
    for name, ranking in given.rankings.items():
        columns = ("ndcg@10", "mrr", "auc") if ranking.of_shown else CATALOGUE_COLUMNS
        out[name] = {metric: worth[name].interval(metric, draws, seed) for metric in columns}
        if ranking.of_shown:
            out[name] |= _pooled(given, ranking, draws, seed)
    return out


def _pooled(given: Answers, ranking: Ranking, draws: int, seed: int) -> Metrics:
    """What is asked of all shown results together; nothing is known where all of them were clicked."""
    valid = given.slates.video_NxS > 0
    labels = given.slates.label("click")[valid]
    users = np.broadcast_to(given.slates.user_N[:, None], valid.shape)[valid]
    each, weight = ranking_metrics.user_auc(labels, ranking.scores_SxK[valid], users)
    row: Metrics = {
        "gauc": interval(each, np.arange(len(each)), weight, draws, seed),
        "pooled_auc": ranking_metrics.auc(labels, ranking.scores_SxK[valid]),
    }
    if ranking.probability_SxK is not None and not labels.all():
        p = ranking.probability_SxK[valid]
        row["logloss"] = interval(ranking_metrics.log_losses(labels, p), users, None, draws, seed)
        row["ece"] = ranking_metrics.expected_calibration_error(labels, p)
        row["pcoc"] = ranking_metrics.predicted_over_observed(labels, p)
    return row


def _differences(config: Config, worth: dict[str, Values]) -> dict[str, dict[str, Interval]]:
    """The pairs that are compared session by session."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    return {
        f"{name} - {against}": {metric: worth[name].less(worth[against], metric, draws, seed) for metric in asked}
        for name, against, asked in COMPARISONS
    }


def _gap_closed(worth: dict[str, Values]) -> dict[str, float]:
    """Where the truth is known: the share of what is to be gained over the base in NDCG@10 that was gained."""
    out = {}
    for kind, mine in (("pipeline", "pr2"), ("slate", "qin")):
        if f"{kind}.oracle" in worth:
            base, ours, most = (np.nanmean(worth[f"{kind}.{name}"]["ndcg@10"]) for name in ("base", mine, "oracle"))
            out[kind] = float((ours - base) / (most - base)) if most > base else float("nan")
    return out


def _signed(difference: Interval) -> str:
    if not difference.count:
        return results_table.MISSING
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _report(
    rows: dict[str, Metrics],
    differences: dict[str, dict[str, Interval]],
    outcomes: dict[str, Metrics],
    beside: dict[str, Any],
    out: Path,
) -> None:
    """metrics.json, with what else belongs into it, and the tables."""
    plain = {
        "rows": {f"{name}.run": {m: number(v) for m, v in row.items()} for name, row in rows.items()},
        "differences": {n: {m: number(v) for m, v in row.items()} for n, row in differences.items()},
        "outcomes": {n: {m: number(v) for m, v in row.items()} for n, row in outcomes.items()},
        **beside,
    }
    artifacts.write_json(out / "metrics.json", plain)
    text, mark, before = [], [], FoundBefore(**beside["found_before"])
    for title, note, prefixes, columns in (
        (f"Whole catalogue, test day, {before.rule}", f"{before.note}\n", ("retrieval", "pipeline"), CATALOGUE_COLUMNS),
        ("Shown results reordered, test day", "", ("slate",), SLATE_COLUMNS),
    ):
        lines = [results_table.Row(n, r, n.split(".")[0]) for n, r in rows.items() if n.split(".")[0] in prefixes]
        text.append(results_table.plain(lines, columns, title) + note)
        mark.append(f"{title}\n\n{results_table.markdown(lines, columns)}" + (f"\n{note}" if note else ""))
    if outcomes:
        title = "Long play and like of shown results, test day"
        lines = [results_table.Row(name, row) for name, row in outcomes.items()]
        text.append(results_table.plain(lines, result_outcomes.COLUMNS, title))
        mark.append(f"{title}\n\n{results_table.markdown(lines, result_outcomes.COLUMNS)}")
    lines = ["Paired differences, 95 % intervals by bootstrap over users"]
    for name, row in differences.items():
        lines += [f"  {name:<36} {metric:<10} {_signed(value)}" for metric, value in row.items()]
    for kind, share in ((kind, share) for kind, share in beside["gap_closed"].items() if np.isfinite(share)):
        lines.append(f"Of the way from {kind}.base to {kind}.oracle, NDCG@10: {share:.1%} gone")
    text.append("\n".join(lines) + "\n")
    (out / "table.txt").write_text("\n".join(text))
    (out / "table.md").write_text("\n".join(mark))
