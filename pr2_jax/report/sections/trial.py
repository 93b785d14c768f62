"""The experiment itself, tried on weeks whose answer is known (`pr2 abtest --trial`)."""

from __future__ import annotations

from typing import Any

from pr2_jax.config_loader import to_dict
from pr2_jax.online.measures import METRICS
from pr2_jax.report.parts import Column, Note, Table
from pr2_jax.report.work import Work

PLACE, COMMAND = "abtest/trial", "pr2 abtest --workdir DIR --trial N"
KINDS = {"shared": "luck shared with a shadow on control", "own": "everybody's luck their own"}


def blocks(work: Work) -> list[Note | Table]:
    """From abtest/trial/trial.json; none where nothing was tried."""
    found = work.json(f"{PLACE}/trial.json")
    if found is None:
        return []
    return [Note(_said(found, work), "Tried on known answers"), _table(found)]


def _said(found: dict[str, Any], work: Work) -> str:
    aa = found["aa"]
    said = (
        f"{aa['runs']:,} times nothing differed: p below 0.05 in {aa['below']:.1%}. Who looks every day and stops at p "
        f"below 0.05 is wrong in {aa['ever_below']:.1%}, with the interval that holds at any time in "
        f"{aa['ever_left_0']:.1%}. {found['runs']:,} times a known difference was planted; the table says how large it "
        "was (everybody against everybody), how often it was found, how often the 95 % interval held it, and the "
        "interval's standard error beside how far the lifts lay apart."
    )
    manifest = work.json(f"{PLACE}/manifest.json") or {"fingerprint": {}}
    if manifest["fingerprint"].get("world") not in (None, to_dict(work.config)["world"]):
        said += f" It was tried on another world than this one: `{COMMAND}` tries it anew."
    return said


def _table(found: dict[str, Any]) -> Table:
    heads = [Column("metric", "text")]
    heads += [Column(name, "percent") for name in ("truth", "found", "covered", "standard error", "spread")]
    rows, groups = [], {}
    for kind, heading in KINDS.items():
        groups[len(rows)] = heading
        for name in (name for name in METRICS if name in found["planted"][kind]):
            one = found["planted"][kind][name]
            values = (one[key] for key in ("truth", "found", "covered", "error", "spread"))
            rows.append([METRICS[name].title, *values])
    return Table("abtest_trial", f"{found['runs']:,} experiments with a planted difference", heads, rows, groups=groups)
