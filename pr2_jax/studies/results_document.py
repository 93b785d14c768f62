"""`pr2 results`: the figures of finished work directories as Markdown, dated, between two markers of a document."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pr2_jax import artifacts, console, workdir
from pr2_jax.errors import BadInput

BEGIN, END = "<!-- figures: written by pr2 results -->", "<!-- /figures -->"
METRICS, TABLE = "metrics.json", "table.md"
VERSIONS = ("pr2_jax", "jax", "flax", "scann")
COUNTS = ("users", "videos", "sessions", "impressions", "events")
"""Of the store's counts; of the first two row 0 is no row of the log."""


def write(directories: Sequence[Path], out: Path | None) -> None:
    """Puts the figures between the markers of `out`, or prints them. BadInput where `out` has no pair of markers."""
    figures = "\n".join(_figures(directory) for directory in directories)
    if out is None:
        print(figures, end="")
        return
    if not out.is_file():
        raise BadInput(f"{out}: is no file; the document to write into must hold {BEGIN} and {END}")
    text = out.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BadInput(f"{out}: expected one line {BEGIN} and behind it one line {END}")
    before, behind = text.split(BEGIN)[0], text.split(END)[1]
    artifacts.write_text(out, f"{before}{BEGIN}\n\n{figures}\n{END}{behind}")
    console.log(f"figures of {len(directories)} work directories are in {out}")


def _figures(directory: Path) -> str:
    """One section. StaleArtifact where there is no evaluation."""
    evaluation = directory / "eval"
    manifest = artifacts.require(evaluation, workdir.SCHEMA, workdir.STAGES["eval"].command)
    with artifacts.reading(evaluation, workdir.STAGES["eval"].command):
        metrics = json.loads((evaluation / METRICS).read_text(encoding="utf-8"))
        table = (evaluation / TABLE).read_text(encoding="utf-8").rstrip("\n")
        written_s = (evaluation / METRICS).stat().st_mtime
    date = datetime.datetime.fromtimestamp(written_s, datetime.UTC).date().isoformat()
    versions = ", ".join(f"{name} {manifest['versions'][name]}" for name in VERSIONS if name in manifest["versions"])
    counts = json.loads((directory / workdir.STORE / artifacts.MANIFEST).read_text(encoding="utf-8"))["counts"]
    log = ", ".join(f"{counts[name] - (name in COUNTS[:2]):,} {name}" for name in COUNTS)
    title = f"### {directory.resolve().name}, {date}"
    made = f"Evaluated on {date} with {versions}. The log holds {log}."
    return "\n\n".join([title, made, table, _differences(metrics), _costs(directory)]) + "\n"


def _differences(metrics: dict[str, Any]) -> str:
    """Paired by session, with their 95 % intervals over users."""
    lines = ["| paired difference | metric | mean | 95 % interval |", "|---|---|---:|---|"]
    for pair, row in metrics["differences"].items():
        for metric, v in row.items():
            if v["count"]:
                lines.append(f"| {pair} | {metric} | {v['mean']:+.4f} | [{v['low']:+.4f}, {v['high']:+.4f}] |")
    return "\n".join(lines)


def _costs(directory: Path) -> str:
    """Seconds that each stage took when it was last made, and what it takes on disk."""
    lines = ["| stage | seconds | MB |", "|---|---:|---:|"]
    for name in (workdir.STORE, *workdir.STAGES):
        place = directory / name / artifacts.MANIFEST
        if place.is_file():
            seconds = json.loads(place.read_text(encoding="utf-8")).get("seconds")
            size = sum(file.stat().st_size for file in place.parent.rglob("*") if file.is_file())
            lines.append(f"| {name} | {'-' if seconds is None else f'{seconds:.0f}'} | {size / 1e6:,.1f} |")
    return "\n".join(lines)
