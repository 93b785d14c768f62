"""Judges every ranking on the test day, once: run files, metrics.json, tables. Nothing is chosen here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import session_names
from pr2_jax.data.batches.slates import Slates
from pr2_jax.errors import BadInput
from pr2_jax.evaluation import calibration_report, results_table, slices
from pr2_jax.evaluation.judged_day import Refinding, day_of
from pr2_jax.evaluation.leak_probe import probe_day, probe_training
from pr2_jax.evaluation.oracle_rankings import oracle_rankings
from pr2_jax.evaluation.rankings import Rankings, rank_day, session_metrics
from pr2_jax.evaluation.run_files import write_run
from pr2_jax.metrics import per_session, ranking_metrics
from pr2_jax.metrics.bootstrap import Interval, interval, number
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.search.system import System
from pr2_jax.types import NO_VIDEO

CATALOGUE_COLUMNS = ("recall@10", "recall@100", "ndcg@10", "map", "mrr")
SLATE_COLUMNS = ("ndcg@10", "mrr", "auc", "gauc", "pooled_auc", "logloss", "ece", "pcoc")
HEAD_COLUMNS = ("auc", "gauc", "logloss", "ece", "rate")
COMPARISONS = (
    ("retrieval.pr2", "retrieval.bm25+dr", ("recall@10", "recall@100", "ndcg@10")),
    ("pipeline.pr2", "pipeline.base", ("recall@10", "ndcg@10", "mrr")),
    ("slate.qin", "slate.base", ("ndcg@10", "auc")),
)
SESSIONS = "sessions.npz"
"""Per-session metrics of each ranking (metrics/per_session.py)."""

Metrics = dict[str, Interval | float]
Table = dict[str, Metrics]


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
    console.log(f"leak probe: {counts} read the same numbers from a log without their future")
    rankings = rank_day(system, config, day)
    rankings.by_name.update(oracle_rankings(system, config, rankings))
    metrics = session_metrics(system, rankings)
    raw_V, names = np.asarray(system.store.videos.raw_id), session_names(system.store)
    for name, ranking in rankings.by_name.items():
        sessions = day.all_sessions if ranking.of_shown else day.sessions
        videos_SxK = np.where(ranking.ids_SxK > 0, raw_V[ranking.ids_SxK], NO_VIDEO)
        write_run(out / f"{name}.run", names[sessions], videos_SxK, ranking.scores_SxK, name)
    per_session.save(out / SESSIONS, metrics)
    rows, outcomes = _rows(config, rankings, metrics), _head_rows(config, rankings)
    differences = _differences(config, metrics)
    report = {
        "leak_probe_sessions": probed,
        "found_before": dataclasses.asdict(day.refinding),
        "slices": slices.write(system, config, day, metrics, out),
        "calibration": calibration_report.write(system, config, rankings, out),
        "gap_closed": _gap_closed(metrics),
        "rows": _numbers({f"{name}.run": row for name, row in rows.items()}),
        "differences": _numbers(differences),
        "outcomes": _numbers(outcomes),
    }
    artifacts.write_json(out / "metrics.json", report)
    _write_tables(rows, differences, outcomes, day.refinding, report["gap_closed"], out)


def print_table(workdir: Path) -> None:
    """The table, to stdout; where the slices are."""
    print((workdir / "eval" / "table.txt").read_text(), end="")
    if (path := workdir / "eval" / slices.TEXT).exists():  # not of an evaluation by an earlier version
        console.log(f"the same by query, person and clicked video: {path}")


def _rows(config: Config, rankings: Rankings, metrics: dict[str, PerSession]) -> Table:
    """A table row for each ranking. Order metrics count sessions with a click, pooled ones all shown results."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    slates, shown_NxS, out = rankings.slates, rankings.slates.video_NxS > 0, {}
    for name, ranking in rankings.by_name.items():
        columns = ("ndcg@10", "mrr", "auc") if ranking.of_shown else CATALOGUE_COLUMNS
        out[name] = {metric: metrics[name].interval(metric, draws, seed) for metric in columns}
        if ranking.of_shown:
            p_NxS = None if slates.label("click")[shown_NxS].all() else ranking.probability_SxK
            pooled = _pooled(config, slates, "click", shown_NxS, ranking.scores_SxK, p_NxS)
            out[name] |= {"pooled_auc": pooled.pop("auc")} | pooled
    return out


def _head_rows(config: Config, rankings: Rankings) -> Table:
    """Every ranker's heads beside clicks, over the shown results whose outcome the log tells; `rate` is their share
    with the label. Empty where the log has clicks alone."""
    slates, out = rankings.slates, {}
    for name, ranking in rankings.by_name.items():
        for t, head in enumerate(config.qin.prediction_heads if ranking.heads_SxKxT is not None else ()):
            told_NxS, p_NxS = slates.told(head.label), ranking.heads_SxKxT[..., t]
            if head.label != "click" and told_NxS.any():
                row = _pooled(config, slates, head.label, told_NxS, p_NxS, p_NxS)
                row["rate"] = float(slates.label(head.label)[told_NxS].mean())
                out[f"{name}.{head.name}"] = {column: row[column] for column in HEAD_COLUMNS}
    return out


def _pooled(
    config: Config, slates: Slates, label: str, kept_NxS: np.ndarray, score_NxS: np.ndarray, p_NxS: np.ndarray | None
) -> Metrics:
    """AUC of all kept results together, GAUC (the mean over users) and, of probabilities, log loss, ECE and PCOC."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    label_N, score_N = slates.label(label)[kept_NxS], score_NxS[kept_NxS]
    user_N = np.broadcast_to(slates.user_N[:, None], kept_NxS.shape)[kept_NxS]
    auc_U, weight_U = ranking_metrics.user_auc(label_N, score_N, user_N)
    gauc = interval(auc_U, np.arange(len(auc_U)), weight_U, draws, seed)
    row: Metrics = {"auc": ranking_metrics.auc(label_N, score_N), "gauc": gauc}
    if p_NxS is not None:
        p_N = p_NxS[kept_NxS]
        row["logloss"] = interval(ranking_metrics.log_losses(label_N, p_N), user_N, None, draws, seed)
        row["ece"] = ranking_metrics.expected_calibration_error(label_N, p_N)
        row["pcoc"] = ranking_metrics.predicted_over_observed(label_N, p_N)
    return row


def _differences(config: Config, metrics: dict[str, PerSession]) -> Table:
    """Paired by session."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    return {
        f"{name} - {against}": {metric: metrics[name].less(metrics[against], metric, draws, seed) for metric in columns}
        for name, against, columns in COMPARISONS
    }


def _gap_closed(metrics: dict[str, PerSession]) -> dict[str, float]:
    """Where there is an oracle: the share of its gain over the base in NDCG@10 that was reached."""
    out = {}
    for kind, mine in (("pipeline", "pr2"), ("slate", "qin")):
        if f"{kind}.oracle" in metrics:
            base, ours, most = (np.nanmean(metrics[f"{kind}.{name}"]["ndcg@10"]) for name in ("base", mine, "oracle"))
            out[kind] = float((ours - base) / (most - base)) if most > base else float("nan")
    return out


def _numbers(rows: Table) -> dict[str, dict[str, Any]]:
    return {name: {metric: number(value) for metric, value in row.items()} for name, row in rows.items()}


def _write_tables(
    rows: Table, differences: Table, outcomes: Table, refinding: Refinding, gap_closed: dict[str, float], out: Path
) -> None:
    """`table.txt` and `table.md`."""
    of_slates = {name: row for name, row in rows.items() if name.startswith("slate.")}
    of_catalogue = {name: row for name, row in rows.items() if name not in of_slates}
    tables = [
        (f"Whole catalogue, test day, {refinding.rule}", f"{refinding.note}\n", of_catalogue, CATALOGUE_COLUMNS),
        ("Shown results reordered, test day", "", of_slates, SLATE_COLUMNS),
        ("Long play and like of shown results, test day", "", outcomes, HEAD_COLUMNS),
    ]
    text, mark = [], []
    for title, note, mine, columns in tables if outcomes else tables[:-1]:
        lines = [results_table.Row(name, row, name.split(".")[0]) for name, row in mine.items()]
        text.append(results_table.plain(lines, columns, title) + note)
        mark.append(f"{title}\n\n{results_table.markdown(lines, columns)}" + (f"\n{note}" if note else ""))
    lines = ["Paired differences, 95 % intervals by bootstrap over users"]
    for name, row in differences.items():
        for metric, v in row.items():
            value = f"{v.mean:+.4f} [{v.low:+.4f}, {v.high:+.4f}]" if v.count else results_table.MISSING
            lines.append(f"  {name:<36} {metric:<10} {value}")
    for kind, share in gap_closed.items():
        if np.isfinite(share):
            lines.append(f"Of the way from {kind}.base to {kind}.oracle, NDCG@10: {share:.1%} gone")
    text.append("\n".join(lines) + "\n")
    (out / "table.txt").write_text("\n".join(text))
    (out / "table.md").write_text("\n".join(mark))
