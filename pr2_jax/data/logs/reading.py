"""Reads the files of one table into one typed frame and counts every physical record.

A record is kept, quarantined, an exact repeat, or left out for a reason. `TableCount.check` compares the sum with the
number of records that the byte scanner (CSV) or the file's footer (Parquet) found, independently of the parser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pr2_jax.data.logs import records
from pr2_jax.data.logs.mapping import Source, listed, resolve
from pr2_jax.data.logs.parsing import TYPES, typed
from pr2_jax.data.logs.quarantine import Quarantine
from pr2_jax.data.logs.records import ROW
from pr2_jax.data.logs.sources import Part
from pr2_jax.data.schema import FEED, Table
from pr2_jax.errors import BadInput

PART = "__part__"  # which of the table's files, UInt16


@dataclasses.dataclass(frozen=True)
class TableCount:
    """What became of the physical records of one table: read = kept + repeats + quarantined + the sum of left_out."""

    read: int
    kept: int
    repeats: int
    quarantined: int
    left_out: dict[str, int]
    mended: int = 0  # of those kept: there is a stray quote in a column that is not read

    def check(self, name: str) -> TableCount:
        """Itself. BadInput where the sum is not what was counted in the file."""
        found = self.kept + self.repeats + self.quarantined + sum(self.left_out.values())
        if found != self.read:
            raise BadInput(
                f"{name}: {self.read:,} records by count of the file, but {found:,} by reading: kept {self.kept:,}, "
                f"repeats {self.repeats:,}, bad {self.quarantined:,}, left out {sum(self.left_out.values()):,}; this "
                "is a fault of pr2, please report it with the file's first rows"
            )
        return self


@dataclasses.dataclass(frozen=True)
class ReadTable:
    """The good rows of a table, each once: `PART`, `ROW` and its columns, typed; rows in the order of the files."""

    table: Table
    rows: pl.DataFrame
    repeats: int  # exact repeats of earlier rows in everything that is read, which are left out
    bad: pl.DataFrame  # as `rows`: the bad ones of a feed, for what is known of the time that they took
    read: int  # physical records
    parts: tuple[str, ...]  # the files' names
    sources: dict[str, Source]  # by our name, for the columns that are there
    mended: int = 0  # records with a stray quote in a column that is not read

    @property
    def name(self) -> str:
        """For messages: the file, or the table where it has several files."""
        return self.parts[0] if len(self.parts) == 1 else self.table.name

    def count(
        self, quarantine: Quarantine, kept: int | None = None, left_out: dict[str, int] | None = None
    ) -> TableCount:
        """What became of its records; without `kept`, which counts itself, all good rows are."""
        kept = len(self.rows) if kept is None else kept
        return TableCount(self.read, kept, self.repeats, quarantine.rows(self.table), left_out or {}, self.mended)


def read_table(table: Table, parts: Sequence[Part], mapping: Mapping[str, Source], quarantine: Quarantine) -> ReadTable:
    """Reads all parts of a table, a block at a time. Bad rows go to the quarantine, exact repeats are left out.

    BadInput for a header that does not fit, for parts whose columns differ, and for too many bad rows.
    """
    headers = [records.header(part) for part in parts]
    _refuse_unlike(parts, headers)
    frames, bad, read, mended = [], [], 0, 0
    sources = resolve(table, parts[0].name, headers[0], mapping)
    wanted = list(dict.fromkeys(source.name for source in sources.values()))
    for number, part in enumerate(parts):
        for block in records.blocks(part, wanted):
            quarantine.take_malformed(table, part.name, block.malformed)
            cells = typed(table, sources, block.frame, part.name)
            good, others = quarantine.take_cells(table, part.name, sources, block.frame, cells)
            in_part = pl.lit(number, dtype=pl.UInt16).alias(PART)
            frames.append(good.with_columns(in_part))
            bad += [others.with_columns(in_part)] if table is FEED else []
            read += block.physical
            mended += block.mended
            quarantine.check_share(table, read, so_far=True)
    if not read and table.required:
        name = parts[0].name if len(parts) == 1 else table.name
        raise BadInput(f"{name} has a header but no rows, expected {table.meaning}")
    names = tuple(part.name for part in parts)
    once, repeats = without_repeats(table, pl.concat([empty(table), *frames]))
    once = _without_conflicts(table, names, once, quarantine)
    return ReadTable(table, once, repeats, pl.concat([empty(table), *bad]), read, names, sources, mended)


def without_repeats(table: Table, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows without exact repeats of earlier ones in everything that is read, and how many those were."""
    cells = rows.select(table.names())
    # One 64-bit hash a row finds the few rows that can be repeats; only these are compared in full.
    place = cells.hash_rows(seed=7).is_duplicated().arg_true()
    again = place.filter(~cells[place].select(pl.struct(pl.all()).is_first_distinct()).to_series())
    if not len(again):
        return rows, 0
    keep = np.ones(len(rows), bool)
    keep[again.to_numpy()] = False
    return rows.filter(pl.Series(keep)), len(again)


def _without_conflicts(
    table: Table, names: tuple[str, ...], rows: pl.DataFrame, quarantine: Quarantine
) -> pl.DataFrame:
    """Quarantines rows that describe again, and otherwise, the user, video or word of an earlier row."""
    if table.unique is None:
        return rows
    again = ~rows[table.unique].is_first_distinct()
    if not again.any():
        return rows
    file = pl.lit(pl.Series(list(names))).gather(pl.col(PART)).alias("table")
    cells = rows.filter(again).select(file, ROW, pl.col(table.unique).cast(pl.String).alias("value"))
    quarantine.take_rows(table, table.unique, cells, "which an earlier row already has")
    return rows.filter(~again)


def empty(table: Table) -> pl.DataFrame:
    """No rows, of a table that is not there."""
    kinds = {column.name: TYPES.get(column.kind, pl.Int64) for column in table.columns}
    return pl.DataFrame(schema={ROW: pl.Int64, **kinds, PART: pl.UInt16})


def _refuse_unlike(parts: Sequence[Part], headers: Sequence[list[str]]) -> None:
    for part, header in zip(parts[1:], headers[1:], strict=True):
        lacks = [name for name in headers[0] if name not in header]
        more = [name for name in header if name not in headers[0]]
        if lacks or more:
            told = [f"lacks {listed(lacks)}"] if lacks else []
            told += [f"has {listed(more)}"] if more else []
            raise BadInput(
                f"{part.name} {' and '.join(told)}, unlike {parts[0].name}: expected the same columns in all part files"
            )
