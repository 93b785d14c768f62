"""Collects bad rows with their reasons, and refuses a table with too many of them."""

from __future__ import annotations

import collections
import dataclasses

import polars as pl

from pr2_jax.data.logs.mapping import Source
from pr2_jax.data.logs.parsing import FAULT, cell_texts
from pr2_jax.data.logs.records import ROW
from pr2_jax.data.logs.scanning import Malformed
from pr2_jax.data.schema import EARLIEST_MS, LATEST_MS, Column, Kind, Table
from pr2_jax.errors import BadInput

QUARANTINE_FILE = "quarantine.csv"
COLUMNS = {"table": pl.String, "line": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String}
SECONDS = (EARLIEST_MS // 1000, LATEST_MS // 1000)
LONGEST = 200
"""Characters of a bad cell that are kept."""
HOPELESS = 200_000
"""Bad rows of a table after which, where they are most of it so far, the rest is not read."""


@dataclasses.dataclass
class _Bad:
    """The bad rows of one table. `cells` may have several of a row."""

    rows: int = 0
    cells: list[pl.DataFrame] = dataclasses.field(default_factory=list)
    in_seconds: int = 0  # rows whose time is in seconds since 1970


@dataclasses.dataclass
class Quarantine:
    """Collects the bad rows of all tables. `max_bad_share` of a table's rows may be bad."""

    max_bad_share: float
    _of: dict[str, _Bad] = dataclasses.field(default_factory=lambda: collections.defaultdict(_Bad))

    def take_malformed(self, table: Table, name: str, malformed: tuple[Malformed, ...]) -> None:
        """Sets aside what is no record of the file called `name`."""
        if malformed:
            cells = [(one.line, one.text, one.reason) for one in malformed]
            self._add(table, name, "", pl.DataFrame(cells, schema=[ROW, "value", "reason"], orient="row"))
            self._of[table.name].rows += len(malformed)

    def take_cells(
        self, table: Table, name: str, sources: dict[str, Source], frame: pl.DataFrame, typed: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Sets aside the rows with a faulty cell; returns the good ones and the bad ones, without the flags.

        `frame` has the cells as they stand in the file, row by row with `typed`.
        """
        flags = [f"{FAULT}{column}" for column in table.names()]
        bad_N = typed.select(pl.any_horizontal(flags)).to_series()
        if not bad_N.any():
            return typed.drop(flags), typed.clear().drop(flags)
        bad, texts = typed.filter(bad_N), frame.filter(bad_N)
        for column in table.columns:
            faulty = bad[f"{FAULT}{column.name}"]
            if faulty.any():
                value = cell_texts(texts.filter(faulty), sources[column.name].name)
                cells = pl.DataFrame([bad.filter(faulty)[ROW], value])
                cells = cells.with_columns(_reason(table, column, sources[column.name]).alias("reason"))
                self._add(table, name, sources[column.name].name, cells)
                self._count_seconds(table, column, cells)
        self._of[table.name].rows += len(bad)
        return typed.filter(~bad_N).drop(flags), bad.drop(flags)

    def take_rows(self, table: Table, column: str, rows: pl.DataFrame, reason: str) -> None:
        """Sets aside rows whose fault shows beside other rows. `rows` has `table` (the file's name), ROW, `value`."""
        for (name,), cells in rows.group_by("table", maintain_order=True):
            self._add(table, str(name), column, cells.select(ROW, "value").with_columns(reason=pl.lit(reason)))
        self._of[table.name].rows += len(rows)

    def table(self) -> pl.DataFrame:
        """Every bad cell: table (the file's name), line, column, value, reason; by table and line."""
        parts = [cells for bad in self._of.values() for cells in bad.cells]
        return pl.concat([pl.DataFrame(schema=COLUMNS), *parts]).sort("table", "line", maintain_order=True)

    def rows(self, table: Table) -> int:
        return self._of[table.name].rows

    def forget(self, table: Table) -> None:
        self._of.pop(table.name, None)

    def check_share(self, table: Table, rows: int, *, so_far: bool = False) -> None:
        """BadInput naming the first bad row where more than `max_bad_share` of the table's rows are bad.

        `so_far`: of a table that is still read; only what nothing can mend counts.
        """
        bad = self._of[table.name]
        if so_far and not (bad.rows > HOPELESS and 2 * bad.rows > rows and self.max_bad_share < 0.5):
            return
        self._refuse_seconds(table, bad, rows)
        if bad.rows <= self.max_bad_share * rows:
            return
        first = pl.concat(bad.cells).sort("table", "line", maintain_order=True).row(0, named=True)
        raise BadInput(
            f"{described(first)}; {bad.rows} of {rows} rows{' so far' if so_far else ''} ({bad.rows / rows:.2%}) are "
            f"bad, data.max_bad_share allows {self.max_bad_share:.2%}"
        )

    def _add(self, table: Table, name: str, column: str, cells: pl.DataFrame) -> None:
        """`cells` has ROW, `value` and `reason`."""
        line = pl.col(ROW).cast(pl.Int64).alias("line")
        value = pl.col("value").str.slice(0, LONGEST)
        told = cells.select(pl.lit(name).alias("table"), line, pl.lit(column).alias("column"), value, "reason")
        self._of[table.name].cells.append(told)

    def _count_seconds(self, table: Table, column: Column, cells: pl.DataFrame) -> None:
        if column.kind is Kind.TIME:
            seconds = cells["value"].cast(pl.Float64, strict=False).is_between(*SECONDS)
            self._of[table.name].in_seconds += int(seconds.sum())

    def _refuse_seconds(self, table: Table, bad: _Bad, rows: int) -> None:
        """Most of a time column in seconds is no stray row: the whole table is in the wrong unit."""
        if 2 * bad.in_seconds <= rows or not bad.in_seconds:
            return
        number = pl.col("value").cast(pl.Float64, strict=False)
        first = pl.concat(bad.cells).filter(number.is_between(*SECONDS)).row(0, named=True)
        ours = next(column.name for column in table.columns if column.kind is Kind.TIME)
        said = ours if ours == first["column"] else f"{ours}={first['column']}"
        raise BadInput(
            f"{first['table']}, row {first['line']}, column {first['column']}: found {first['value']!r}, which is "
            f"seconds since 1970, expected milliseconds; so are {bad.in_seconds} of {rows} rows: multiply the column "
            f"by 1000, or say --config.data.columns.{table.name}='{said} in s'"
        )


def described(cell: dict) -> str:
    """One row of `Quarantine.table` in words."""
    value = "nothing" if cell["value"] is None else repr(cell["value"])
    column = f", column {cell['column']}" if cell["column"] else ""
    return f"{cell['table']}, row {cell['line']}{column}: found {value}, {cell['reason']}"


def _reason(table: Table, column: Column, source: Source) -> pl.Expr:
    expected = pl.lit(f"expected {column.kind.value}" + ("" if column.filled else ", or nothing"))
    if column.kind is Kind.WORDS:
        hint = f"; words as text: --config.data.columns.{table.name}='{column.name} as text'"
        plain = pl.col("value").str.contains(r"^[^\[\]]*\p{L}")
        return pl.when(plain).then(expected + pl.lit(hint)).otherwise(expected)
    if column.kind is not Kind.TIME:
        return expected
    number = pl.col("value").cast(pl.Float64, strict=False)
    if source.scale != 1:
        said = f"which is ms since 1970, where data.columns says that {column.name} is in s"
        return pl.when(number.is_between(EARLIEST_MS, LATEST_MS)).then(pl.lit(said)).otherwise(expected)
    said = "which is seconds since 1970, expected ms"
    return pl.when(number.is_between(*SECONDS)).then(pl.lit(said)).otherwise(expected)
