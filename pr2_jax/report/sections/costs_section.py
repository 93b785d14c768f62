"""Times and sizes of stages, from the work directory."""

from __future__ import annotations

from pathlib import Path

from pr2_jax import artifacts
from pr2_jax.config.ablation_config import WHOLE
from pr2_jax.drawing.charts import Row, Rows
from pr2_jax.report.blocks import Charts, Note, Section, Table
from pr2_jax.report.sections.training_section import RUNS
from pr2_jax.report.workdir_reader import Work
from pr2_jax.workdir import STAGES

PARTS = ("tfds", "store", *STAGES, "sweep_qrcf", "ablations", "abtest")
STEPS = [place for places in RUNS.values() for place in places]
COSTS = ("ms a step", "ms to retrieve", "ms a search", "MB")


def section(work: Work) -> Section:
    """From manifests, pace.json, ablations and the files themselves."""
    places = {name: work.directory / name for name in PARTS if (work.directory / name).is_dir()}
    manifests = {name: work.json(f"{name}/{artifacts.MANIFEST}") or {} for name in places}
    parts = [[name, manifests[name].get("seconds"), *_bytes(place)] for name, place in places.items()]
    seconds = sum(line[1] or 0.0 for line in parts)
    sizes = sum(line[2] for line in parts)
    rows = [Row(name, parts=(value,), text=f"{value:,.1f} s") for name, value, *_ in parts if value is not None]
    chart = Rows("cost_seconds", "Time of each stage", "Seconds that each stage took when it was last made.", "seconds",
                 rows, part_names=("seconds",))  # fmt: skip
    size = Rows("cost_bytes", "Size on disk", "Megabytes of files of each stage.", "MB",
                [Row(line[0], parts=(line[2] / 1e6,), text=f"{line[2] / 1e6:,.1f} MB") for line in parts],
                part_names=("MB",))  # fmt: skip
    columns = {"stage": "text", "time": "seconds", "on disk": "bytes", "files": "count"}
    blocks = [
        Charts([chart, size]),
        Table("costs", "Stages: time of the last making, size on disk", columns, parts),
        _paces(work),
        *_of_the_whole(work),
        Note(
            "The log's own reading is not timed (its manifest holds no time, so that the same log gives the same "
            "bytes). Peak memory is not recorded; “parameters” is what a model's weights take."
        ),
    ]
    return Section(
        f"{seconds / 60:.1f} minutes to make, {sizes / 1e6:,.0f} MB on disk.",
        "On the machine that made this work directory.",
        blocks,
    )


def _paces(work: Work) -> Table:
    lines = []
    for place in STEPS:
        pace, parameters = work.json(f"{place}/pace.json") or {}, _bytes(work.directory / place / "params")[0]
        if pace or parameters:
            lines.append([place, pace.get("steps"), pace.get("seconds_a_step"), parameters])
    columns = {"model": "text", "steps": "count", "a step": "seconds", "parameters": "bytes"}
    return Table("training_pace", "Training: steps of the last process, compilation apart", columns, lines)


def _bytes(directory: Path) -> tuple[float, int]:
    """Bytes and number of all files."""
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return float(sum(sizes)), len(sizes)


def _of_the_whole(work: Work) -> list[Table]:
    """Timings of the whole system from the ablations."""
    found = work.json("ablations/ablations.json")
    if not found:
        return []
    rows = {group: row[WHOLE.name] for group, row in found["test"]["tables"].items() if WHOLE.name in row}
    lines = [[g, *(row.get(c) for c in COSTS)] for g, row in rows.items() if any(c in row for c in COSTS)]
    caption = "The whole system as the ablations timed it, per search of a batch of 64"
    return [Table("search_times", caption, {"group": "text"} | dict.fromkeys(COSTS, "plain"), lines)]
