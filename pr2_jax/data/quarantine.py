"""Bad rows: kept aside with the reason, counted, and too many of them end the ingest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl

from pr2_jax.data.parsing import FAULT, ROW, raw_cells
from pr2_jax.data.schema import EARLIEST_MS, LATEST_MS, Kind, Table
from pr2_jax.errors import BadInput

QUARANTINE_FILE = "quarantine.csv"
COLUMNS = {"table": pl.String, "line": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String}
SECONDS = (EARLIEST_MS // 1000, LATEST_MS // 1000)


@dataclasses.dataclass
class Quarantine:
    """Collects the bad rows of all tables. `max_bad_share` of a table's rows may be bad."""

    max_bad_share: float
    _parts: list[pl.DataFrame] = dataclasses.field(default_factory=list)

    def take_cells(self, table: Table, path: Path, typed: pl.DataFrame) -> pl.DataFrame:
        """Sets aside the rows with a faulty cell; returns the good ones without the flags."""
        flags = [f"{FAULT}{name}" for name in table.names()]
        bad = typed.filter(pl.any_horizontal(flags)).select(ROW, *flags)
        if len(bad):
            texts = raw_cells(table, path, bad[ROW])
            for column in table.columns:
                rows = bad.filter(pl.col(f"{FAULT}{column.name}"))[ROW]
                cells = texts.filter(pl.col(ROW).is_in(rows.implode())).select(ROW, pl.col(column.name).alias("value"))
                self._refuse_seconds(path, column.name, column.kind, cells, len(typed))
                self.add(path, column.name, cells, _reason(column.kind, column.filled))
        return typed.filter(~pl.any_horizontal(flags)).drop(flags) if len(bad) else typed.drop(flags)

    def take_rows(self, path: Path, good: pl.DataFrame, bad: pl.Expr, column: str, reason: str) -> pl.DataFrame:
        """Sets aside the rows where `bad` holds, whose fault only shows beside other rows."""
        flagged = good.with_columns(bad.alias("__bad__"))
        if not flagged["__bad__"].any():
            return good
        cells = flagged.filter(pl.col("__bad__")).select(ROW, pl.col(column).cast(pl.String).alias("value"))
        self.add(path, column, cells, pl.lit(reason))
        return flagged.filter(~pl.col("__bad__")).drop("__bad__")

    def add(self, path: Path, column: str, cells: pl.DataFrame, reason: pl.Expr) -> None:
        """`cells` holds ROW and `value`, as text, of each bad cell."""
        made = {"table": pl.lit(path.name), "line": pl.col(ROW).cast(pl.Int64), "column": pl.lit(column)}
        self._parts.append(cells.select(**made, value=pl.col("value"), reason=reason))

    def table(self) -> pl.DataFrame:
        """Every bad cell: table, line, column, value, reason; by table and line."""
        if not self._parts:
            return pl.DataFrame(schema=COLUMNS)
        return pl.concat(self._parts).sort("table", "line", maintain_order=True)

    def bad_rows(self, path: Path) -> int:
        """How many rows of one table were set aside."""
        return self.table().filter(pl.col("table") == path.name)["line"].n_unique()

    def check_share(self, path: Path, rows: int) -> None:
        """BadInput naming the first bad row where more than `max_bad_share` of the table's rows are bad."""
        bad = self.bad_rows(path)
        if bad <= self.max_bad_share * rows:
            return
        first = self.table().filter(pl.col("table") == path.name).row(0, named=True)
        value = "nothing" if first["value"] is None else repr(first["value"])
        raise BadInput(
            f"{path.name}, row {first['line']}, column {first['column']}: found {value}, {first['reason']}; "
            f"{bad} of {rows} rows ({bad / rows:.2%}) are bad, data.max_bad_share allows {self.max_bad_share:.2%}"
        )

    def _refuse_seconds(self, path: Path, column: str, kind: Kind, cells: pl.DataFrame, rows: int) -> None:
        """Most of a time column in seconds is no stray row: the whole table is in the wrong unit."""
        if kind is not Kind.TIME:
            return
        seconds = cells.filter(pl.col("value").cast(pl.Float64, strict=False).is_between(*SECONDS))
        if 2 * len(seconds) > rows:
            line, value = seconds.row(0)
            raise BadInput(
                f"{path.name}, row {line}, column {column}: found {value!r}, which is seconds since 1970, "
                f"expected milliseconds; so are {len(seconds)} of {rows} rows: multiply the column by 1000"
            )


def _reason(kind: Kind, filled: bool) -> pl.Expr:
    expected = pl.lit(f"expected {kind.value}" + ("" if filled else ", or nothing"))
    if kind is not Kind.TIME:
        return expected
    number = pl.col("value").cast(pl.Float64, strict=False)
    return (
        pl.when(number.is_between(*SECONDS))
        .then(pl.lit("which is seconds since 1970, expected ms"))
        .otherwise(expected)
    )
