"""Reliability curves before and after calibration (evaluation/calibration_report.py)."""

from __future__ import annotations

from pr2_jax.evaluation.calibration_report import charts_of
from pr2_jax.report.blocks import Charts, Section, Table, estimate, text_of
from pr2_jax.report.workdir_reader import Work

COLUMNS = {"rows": "count", "positives": "count"} | dict.fromkeys(
    ("raw_ece", "calibrated_ece", "chance_ece", "raw_pcoc", "calibrated_pcoc", "raw_logloss", "calibrated_logloss"),
    "metric",
)
HEADS = ("click", "long_play", "like")
BANDS = ("", "head queries", "torso queries", "tail queries", "unseen queries")


def section(work: Work) -> Section:
    """From eval/metrics.json."""
    found = work.metrics.get("calibration")
    if not found:
        return Section(missing="pr2 evaluate --workdir DIR")
    charts = [chart for name, parts in found["curves"].items() for chart in charts_of(name, parts)]
    parts = [(ranker, part, row[part]) for ranker, row in found["rankers"].items() for part in sorted(row, key=_place)]
    lines = [[part, *(estimate(judged.get(name)) for name in COLUMNS)] for _, part, judged in parts]
    return Section(
        _finding(found["rankers"]["qin"]["click"]),
        "Fitted on the validation day, judged on the test day. The dashed line is perfect calibration. Bands are 95 % "
        "intervals over people. “chance ece” is what would be left if every probability were true.",
        [
            Charts(charts),
            Table(
                "calibration",
                "Calibration by head, and of clicks by how often the query was asked",
                {"head": "text"} | {name.replace("_", " "): form for name, form in COLUMNS.items()},
                lines,
                groups=[ranker for ranker, *_ in parts],
            ),
        ],
    )


def _finding(click: dict) -> str:
    if click["calibrated_ece"] is None:
        return "Every shown result was clicked: nothing tells whether QIN's click probabilities mean what they say."
    return (
        f"QIN's click probabilities: ECE {click['raw_ece']:.3f} before, {click['calibrated_ece']:.3f} after, "
        f"{click['chance_ece']:.3f} is chance; predicted over observed {text_of(click['calibrated_pcoc'], 'plain')[0]}."
    )


def _place(part: str) -> tuple[int, int, str]:
    """Known heads and bands first, in their orders."""
    head, _, band = part.partition(", ")
    places = [order.index(name) if name in order else len(order) for order, name in ((HEADS, head), (BANDS, band))]
    return *places, part
