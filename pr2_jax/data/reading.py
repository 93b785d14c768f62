"""The files of one table → one typed frame, every physical record counted.

A record is kept, quarantined, an exact repeat, or left out for a reason; `TableCount.check` holds the sum against the
number of records that the byte scanner (CSV) or the file's footer (Parquet) found, which the parser has no part in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pr2_jax.data import records
from pr2_jax.data.mapping import Source, resolve
from pr2_jax.data.parsing import TYPES, typed
from pr2_jax.data.quarantine import Quarantine
from pr2_jax.data.records import ROW
from pr2_jax.data.schema import Table
from pr2_jax.data.sources import Part
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
    """The well-formed rows of a table: `PART`, `ROW` and its columns, typed; rows in the order of the files."""

    table: Table
    rows: pl.DataFrame
    read: int  # physical records
    parts: tuple[str, ...]  # the files' names
    sources: dict[str, Source]  # by our name, for the columns that are there
    mended: int = 0  # records with a stray quote in a column that is not read

    @property
    def name(self) -> str:
        """What people call it: the file, or the table where it has several."""
        return self.parts[0] if len(self.parts) == 1 else self.table.name

    def without_repeats(self) -> tuple[pl.DataFrame, int]:
        """The rows without exact repeats of earlier ones in everything that is read, and how many those were."""
        names = list(self.table.names())
        if len(self.rows) < 2:
            return self.rows, 0
        # One 64-bit hash a row finds the few rows that can be repeats; only these are compared in full.
        shared = self.rows.select(names).hash_rows(seed=7).is_duplicated()
        if not shared.any():
            return self.rows, 0
        place = shared.arg_true()
        again = place.filter(~self.rows.select(names)[place].select(pl.struct(names).is_first_distinct()).to_series())
        if not len(again):
            return self.rows, 0
        keep = np.ones(len(self.rows), bool)
        keep[again.to_numpy()] = False
        return self.rows.filter(pl.Series(keep)), len(again)

    def values(self, rows: pl.DataFrame, column: str) -> pl.DataFrame:
        """Some of its rows for the quarantine: the file's name, ROW and the cell of a column as text."""
        names = pl.Series("table", list(self.parts))
        return rows.select(
            pl.lit(names).gather(pl.col(PART)).alias("table"), ROW, pl.col(column).cast(pl.String).alias("value")
        )


def read_table(table: Table, parts: Sequence[Part], mapping: Mapping[str, Source], quarantine: Quarantine) -> ReadTable:
    """Reads all parts of a table, a block at a time. Bad rows go to the quarantine.

    BadInput for a header that does not fit, for parts whose columns differ, and for too many bad rows.
    """
    headers = [records.header(part) for part in parts]
    _refuse_unlike(parts, headers)
    frames, read, mended, sources = [], 0, 0, resolve(table, parts[0].name, headers[0], mapping)
    wanted = list(dict.fromkeys(source.name for source in sources.values()))
    for number, part in enumerate(parts):
        for block in records.blocks(part, wanted):
            quarantine.take_malformed(table, part.name, block.malformed)
            cells = typed(table, sources, block.frame, part.name)
            good = quarantine.take_cells(table, part.name, sources, block.frame, cells)
            frames.append(good.with_columns(pl.lit(number, dtype=pl.UInt16).alias(PART)))
            read += block.physical
            mended += block.mended
            quarantine.check_share(table, read, so_far=True)
    rows = pl.concat(frames) if frames else empty(table)
    name = parts[0].name if len(parts) == 1 else table.name
    if not read and table.required:
        raise BadInput(f"{name} has a header but no rows, expected {table.meaning}")
    return ReadTable(table, rows, read, tuple(part.name for part in parts), sources, mended)


def empty(table: Table) -> pl.DataFrame:
    """No rows, of a table that is not there."""
    kinds = {column.name: TYPES.get(column.kind, pl.Int64) for column in table.columns}
    return pl.DataFrame(schema={ROW: pl.Int64, **kinds, PART: pl.UInt16})


def _refuse_unlike(parts: Sequence[Part], headers: Sequence[list[str]]) -> None:
    for part, header in zip(parts[1:], headers[1:], strict=True):
        lacks = [name for name in headers[0] if name not in header]
        more = [name for name in header if name not in headers[0]]
        if lacks or more:
            told = [f"lacks {', '.join(lacks)}"] if lacks else []
            told += [f"has {', '.join(more)}"] if more else []
            raise BadInput(
                f"{part.name} {' and '.join(told)}, unlike {parts[0].name}: expected the same columns in all part files"
            )
