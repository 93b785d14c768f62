"""A doctor for logs: reads everything, writes nothing, and tells all that is wrong at once, where ingest stops at the
first thing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl

from pr2_jax.config import Config
from pr2_jax.data.ingest.ingest_report import IngestReport, table_line
from pr2_jax.data.logs.log_tables import LogTables, log_tables, read_tables, refuse_unusable
from pr2_jax.data.logs.mapping import names_of
from pr2_jax.data.logs.quarantine import Quarantine, described
from pr2_jax.data.logs.reading import ReadTable
from pr2_jax.data.logs.sources import LogSources, open_log
from pr2_jax.data.schema import Table
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

    def refused(_: Table, error: BadInput) -> None:
        problems.append(str(error))

    with open_log(Path(input_path), names_of(data)) as files:
        read = read_tables(files, data, quarantine, refused)
        plain = [table_line(one.name, one.count(quarantine)) for one in read.values()]
        tables = _tables(read, files, quarantine, problems) if not problems else None
    if tables is not None:
        try:
            refuse_unusable(tables)
        except BadInput as error:
            problems.append(str(error))
    lines = plain if tables is None or problems else IngestReport.of(tables, LogStore.from_tables(tables)).lines()
    return Examination([*lines, *_kinds(quarantine.table())], problems)


def _tables(
    read: dict[str, ReadTable], files: LogSources, quarantine: Quarantine, problems: list[str]
) -> LogTables | None:
    try:
        return log_tables(read, files, quarantine)
    except BadInput as error:
        problems.append(str(error))
        return None


def _kinds(bad: pl.DataFrame) -> list[str]:
    """The first bad rows of each kind, with how many there are."""
    lines = []
    for _, kind in bad.group_by("table", "column", "reason", maintain_order=True):
        lines.append(f"bad       {len(kind):,} x {described(kind.row(0, named=True))}")
        lines += [f"          {described(row)}" for row in kind[1:EXAMPLES].iter_rows(named=True)]
    return lines
