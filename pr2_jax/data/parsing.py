"""One file → one typed polars frame, each cell checked against the schema. Everything is column expressions.

CSV is read as text and parsed here, so that a bad cell is a fault with a row number and not a failure of the reader.
"""

from __future__ import annotations

import csv
import difflib
import io
from pathlib import Path

import polars as pl

from pr2_jax.data.cells import WORD_LIST, is_textual, whole
from pr2_jax.data.schema import (
    EARLIEST_MS,
    LATEST_MS,
    MISSING,
    PLATFORM_UTC_OFFSET_MS,
    RESULT_TYPES,
    SEARCH,
    Column,
    Kind,
    Table,
)
from pr2_jax.errors import BadInput

ROW = "__row__"  # line number in a CSV (the header is line 1), row number in a Parquet file
VALUE, FAULT = "__value__", "__fault__"


def scan(table: Table, path: Path) -> pl.LazyFrame:
    """The columns of `table`, unparsed, with `ROW`. Raises BadInput for a header that does not fit."""
    if path.suffix == ".parquet":
        try:
            frame = pl.scan_parquet(path)
            header = frame.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadInput(f"{path.name} is not a readable Parquet file ({_first_line(error)})") from None
        first_row = 1
    else:
        header = _csv_header(path)
        frame = pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=True, encoding="utf8-lossy")
        frame = frame.rename(dict(zip(_read_names(frame, path), header, strict=True)))
        first_row = 2
    for name in table.names():
        if name not in header:
            close = difflib.get_close_matches(name, [other for other in header if other not in table.names()], 1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise BadInput(f"{path.name} has no column {name!r}{hint} (it has {', '.join(header)})")
    return frame.select(table.names()).with_row_index(ROW, offset=first_row)


def read_typed(table: Table, path: Path) -> pl.DataFrame:
    """`ROW`, the table's columns as int64, bool or text, and `FAULT.<column>` flags. WORDS stay text here."""
    frame = scan(table, path)
    schema = frame.collect_schema()
    exempt = _left_out() if table is SEARCH else pl.lit(False)
    raw, values, faults = {}, {}, {}
    for column in table.columns:
        name, cell, value = column.name, pl.col(column.name), pl.col(f"{VALUE}{column.name}")
        raw[name] = _cell(column, schema[name], path)
        values[f"{VALUE}{name}"] = _value(column, cell, schema[name])
        fault = _fault(column, cell, value)
        faults[f"{FAULT}{name}"] = (fault & ~exempt if column.of_result else fault).fill_null(False)
    named = {name: pl.col(f"{VALUE}{name}") for name in table.names()}
    try:
        # Three steps, so that no cell is parsed more than once.
        steps = frame.with_columns(**raw).with_columns(**values).select(ROW, **named, **faults)
        typed = steps.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path.name} cannot be read as a table ({_first_line(error)})") from None
    if table.required and typed.is_empty():
        raise BadInput(f"{path.name} has a header but no rows, expected {table.meaning}")
    return typed


def raw_cells(table: Table, path: Path, rows: pl.Series) -> pl.DataFrame:
    """What stands in the file, as text, in the rows whose `ROW` is given."""
    frame = scan(table, path).filter(pl.col(ROW).is_in(rows.implode()))
    as_text = [
        pl.col(name) if kind == pl.String else _list_text(name) if kind == pl.List else pl.col(name).cast(pl.String)
        for name, kind in frame.collect_schema().items()
        if name != ROW
    ]
    return frame.select(ROW, *as_text).collect(engine="streaming")


def _left_out() -> pl.Expr:
    kind = pl.col("item_type").cast(pl.String).str.strip_chars()
    return (~kind.is_in(RESULT_TYPES)).fill_null(False)


def _cell(column: Column, dtype: pl.DataType, path: Path) -> pl.Expr:
    """The cell as stripped text or as a number, null where it says "missing" and may."""
    cell = pl.col(column.name)
    if is_textual(dtype):
        text = cell.cast(pl.String).str.strip_chars()
        if column.filled and column.kind is not Kind.TEXT:
            return text  # no number can be read from "missing" either, so it need not be told apart
        missing = text == "" if column.verbatim else text.is_in(MISSING)
        return pl.when(missing).then(None).otherwise(text)
    if column.kind is Kind.WORDS:
        if not (isinstance(dtype, pl.List) and dtype.inner.is_integer()):
            raise BadInput(f"{path.name}, column {column.name}: is {dtype}, expected {column.kind.value}")
        return _list_text(column.name)
    if column.kind is Kind.TEXT:
        return cell.cast(pl.String)
    if dtype.is_float():
        return cell.fill_nan(None)
    if dtype.is_integer() or dtype == pl.Boolean or (column.kind in (Kind.DATE, Kind.TIME) and dtype.is_temporal()):
        return cell
    raise BadInput(f"{path.name}, column {column.name}: is {dtype}, expected {column.kind.value}")


def _list_text(name: str) -> pl.Expr:
    return pl.lit("[") + pl.col(name).cast(pl.List(pl.String)).list.join(", ") + pl.lit("]")


def _value(column: Column, raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    textual = is_textual(dtype)
    match column.kind:
        case Kind.WORDS | Kind.TEXT:
            return raw
        case Kind.ID | Kind.COUNT:
            return whole(raw, dtype)
        case Kind.FLAG:
            number = whole(raw, dtype)
            return pl.when(number.is_in([0, 1])).then(number == 1)
        case Kind.SPAN:
            return _rounded(raw, textual)
        case Kind.TIME:
            return raw.dt.epoch("ms") if dtype.is_temporal() else _rounded(raw, textual)
        case Kind.DATE:
            if dtype.is_temporal():
                moment = raw.cast(pl.Datetime("ms")).dt.epoch("ms") - PLATFORM_UTC_OFFSET_MS
                return pl.when(moment > -PLATFORM_UTC_OFFSET_MS).then(moment.clip(1)).otherwise(0).fill_null(0)
            return _date(raw, textual)


def _rounded(raw: pl.Expr, textual: bool) -> pl.Expr:
    number = raw.cast(pl.Float64, strict=False) if textual else raw.cast(pl.Float64)
    return number.round(mode="half_away_from_zero").cast(pl.Int64, strict=False)


def _date(raw: pl.Expr, textual: bool) -> pl.Expr:
    """ms since 1970, 0 = not known. Dates are midnight in Beijing; anything before 1970 counts as 1970."""
    number = _rounded(raw, textual)
    if not textual:
        return number.clip(0).fill_null(0)
    day = raw.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    clock = raw.str.slice(11, 8).str.to_time("%H:%M:%S", strict=False)
    midnight = day.cast(pl.Datetime("ms")).dt.epoch("ms")
    since = midnight + clock.cast(pl.Int64).fill_null(0) // 1_000_000
    # 1970-1-1 pads; an earlier date is a real one, and the oldest that the store can hold is 1 ms.
    moment = pl.when(since == 0).then(0).otherwise((since - PLATFORM_UTC_OFFSET_MS).clip(1))
    padded = pl.when(raw.str.contains(r"^1970-0?1-0?1\b")).then(0)
    return pl.coalesce(padded, moment, number.clip(0), pl.when(raw.is_null()).then(0))


def _fault(column: Column, raw: pl.Expr, value: pl.Expr) -> pl.Expr:
    """True where the cell breaks the column's rule."""
    match column.kind:
        case Kind.WORDS:
            unreadable = raw.is_not_null() & ~raw.str.contains(WORD_LIST)
        case Kind.TIME:
            unreadable = value.is_null() | ~value.is_between(EARLIEST_MS, LATEST_MS)
        case Kind.SPAN | Kind.COUNT:
            unreadable = (value.is_null() & raw.is_not_null()) | (value < 0).fill_null(False)
        case Kind.TEXT:
            unreadable = pl.lit(False)
        case _:
            unreadable = value.is_null() & raw.is_not_null()
    return unreadable | raw.is_null() if column.filled else unreadable


def _csv_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})") from None
    header = [name.strip() for name in next(csv.reader(io.StringIO(first)), [])]
    if not header:
        raise BadInput(f"{path.name} is empty, expected a header line")
    for name in header:
        if header.count(name) > 1:
            where = ", ".join(str(place + 1) for place, other in enumerate(header) if other == name)
            raise BadInput(f"{path.name}, row 1: column {name!r} stands twice in the header (places {where})")
    return header


def _read_names(frame: pl.LazyFrame, path: Path) -> list[str]:
    try:
        return frame.collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path.name} cannot be read as CSV ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
