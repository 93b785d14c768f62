"""Reliability curves before and after calibration (evaluation/calibration_report.py)."""

from __future__ import annotations

from pr2_jax.evaluation.calibration_report import charts_of
from pr2_jax.report.blocks import Charts, Column, Section, Table, estimate, text_of
from pr2_jax.report.workdir_reader import Work

COLUMNS = (
    ("rows", "count"), ("positives", "count"), ("raw_ece", "metric"), ("calibrated_ece", "metric"),
    ("chance_ece", "metric"), ("raw_pcoc", "metric"), ("calibrated_pcoc", "metric"), ("raw_logloss", "metric"),
    ("calibrated_logloss", "metric"),
)  # fmt: skip
HEADS = ("click", "long_play", "like")


def section(work: Work) -> Section:
    """From eval/metrics.json."""
    title, found = "Calibration", work.metrics.get("calibration")
    if not found:
        return Section("calibration", title, missing="pr2 evaluate --workdir DIR")
    charts = [chart for name, parts in found["curves"].items() for chart in charts_of(name, parts)]
    lines, groups = [], {}
    for ranker, parts in found["rankers"].items():
        groups[len(lines)] = ranker
        for part in sorted(parts, key=_place):
            lines.append([part, *(estimate(parts[part].get(name)) for name, _ in COLUMNS)])
    heads = [Column("head", "text"), *(Column(name.replace("_", " "), form) for name, form in COLUMNS)]
    click = found["rankers"]["qin"]["click"]
    return Section(
        "calibration",
        title,
        _finding(click),
        "Fitted on the validation day, judged on the test day. The dashed line is perfect calibration. Bands are 95 % "
        "intervals over people. “chance ece” is what would be left if every probability were true.",
        [
            Charts(charts),
            Table("calibration", "Calibration by head, and of clicks by how often the query was asked", heads, lines,
                  groups=groups),
        ],
    )  # fmt: skip


def _finding(click: dict) -> str:
    if click["calibrated_ece"] is None:
        return "Every shown result was clicked: nothing tells whether QIN's click probabilities mean what they say."
    return (
        f"QIN's click probabilities: ECE {click['raw_ece']:.3f} before, {click['calibrated_ece']:.3f} after, "
        f"{click['chance_ece']:.3f} is chance; predicted over observed {text_of(click['calibrated_pcoc'], 'plain')[0]}."
    )


def _place(part: str) -> tuple[int, int, str]:
    head, _, band = part.partition(", ")
    order = ("", "head queries", "torso queries", "tail queries", "unseen queries")
    return (
        HEADS.index(head) if head in HEADS else len(HEADS),
        order.index(band) if band in order else len(order),
        part,
    )
