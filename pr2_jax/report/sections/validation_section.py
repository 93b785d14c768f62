"""Validation of the A/B test: A/A runs and planted effects (`pr2 abtest --validate`)."""

from __future__ import annotations

from typing import Any

from pr2_jax.abtest.abtest_report import DRAWS
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.config.loader import to_dict
from pr2_jax.report.blocks import Note, Table, slug_of
from pr2_jax.report.workdir_reader import Work

COLUMNS = {
    "metric": "text", "truth": "lift", "found": "percent", "covered": "percent", "error": "fine", "spread": "fine",
}  # fmt: skip


def blocks(work: Work, place: str) -> list[Note | Table]:
    """From trial.json of a finished validation; `place` is below the work directory."""
    found = work.json(f"{place}/trial.json")
    name = place.split("/")[-1]
    marks = name.removeprefix("trial").strip(",")
    heading = "Validation on known effects" + (f" ({marks})" if marks else "")
    return [Note(_said(found, work, place), heading), _table(found, f"abtest_{slug_of(name)}")]


def _said(found: dict[str, Any], work: Work, place: str) -> str:
    aa, plan = found["aa"], found["plan"]
    metric = METRICS[plan["decided_by"]].title
    said = (
        f"The same kind of experiment, {plan['days']:,} counted days, repeated with other draws and another "
        f"split. In {aa['runs']:,} A/A runs the arms do not differ: {metric} has p below 0.05 in "
        f"{aa['below']:.1%} (5 % is right). Looking every day and stopping at p below 0.05 is wrong in "
        f"{aa['ever_below']:.1%}; with the always-valid interval, in {aa['ever_left_0']:.1%}. "
        f"{found['runs']:,} runs have a planted effect: in {plan['share']:.0%} of searches the best of the first "
        f"{plan['among']:,} videos for the person comes first. Truth: the effect if everybody is treated, mean of the "
        "runs. Found: runs whose 95 % interval lies on the truth's side of 0. Covered: runs whose interval holds the "
        "truth (95 % is right). Error: the standard error that experiments state; it should be the spread of their "
        "lifts."
    )
    manifest = work.json(f"{place}/manifest.json")
    if manifest["fingerprint"]["world"] != to_dict(work.config)["world"]:
        said += " It ran on another world than this one: pr2 abtest --validate N makes it anew."
    return said


def _table(found: dict[str, Any], slug: str) -> Table:
    rows, groups = [], []
    for kind, heading in DRAWS.items():
        for name in (name for name in METRICS if name in found["planted"][kind]):
            one = found["planted"][kind][name]
            rows.append([METRICS[name].title, *(float(one[key]) for key in list(COLUMNS)[1:])])
            groups.append(heading)
    return Table(slug, f"{found['runs']:,} experiments with a planted effect", COLUMNS, rows, groups=groups)
