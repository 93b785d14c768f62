"""Checks a whole log without writing anything and reports all problems at once; ingest stops at the first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl

from pr2_jax.config import Config
from pr2_jax.data.ingest.ingest_report import IngestReport, table_line
from pr2_jax.data.logs.log_tables import log_tables, read_tables, refuse_unusable
from pr2_jax.data.logs.mapping import names_of
from pr2_jax.data.logs.quarantine import Quarantine, described
from pr2_jax.data.logs.sources import open_log
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput

EXAMPLES = 3
"""Bad rows of each kind that are shown."""


@dataclasses.dataclass(frozen=True)
class Examination:
    """`lines` for people to read; `problems`: what `pr2 ingest` would refuse, each in one line."""

    lines: list[str]
    problems: list[str]


def examine(input_path: Path, config: Config) -> Examination:
    """Reads a log as `pr2 ingest` would. BadInput only where there is no log to read."""
    data, problems = config.data, []
    quarantine = Quarantine(data.max_bad_share)
    with open_log(Path(input_path), names_of(data)) as files:
        read = read_tables(files, data, quarantine, problems)
        lines = [table_line(one.name, one.count(quarantine)) for one in read.values()]
        if not problems:
            try:
                tables = log_tables(read, files, quarantine)
                refuse_unusable(tables)
                lines = IngestReport.of(tables, LogStore.from_tables(tables)).lines()
            except BadInput as error:
                problems.append(str(error))
    return Examination([*lines, *_kinds(quarantine.table())], problems)


def _kinds(bad: pl.DataFrame) -> list[str]:
    """The first bad rows of each kind, with how many there are."""
    lines = []
    for _, kind in bad.group_by("table", "column", "reason", maintain_order=True):
        lines.append(f"bad       {len(kind):,} x {described(kind.row(0, named=True))}")
        lines += [f"          {described(row)}" for row in kind[1:EXAMPLES].iter_rows(named=True)]
    return lines
