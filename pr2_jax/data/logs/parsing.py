"""Typed columns from cells of text or of a Parquet type, by column expressions; checks each cell against the schema.

CSV arrives as text (records.py), so that a bad cell is a fault with a row number and no failure of the reader.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from pr2_jax.data.logs.mapping import Source
from pr2_jax.data.logs.records import ROW
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

VALUE, FAULT = "__value__", "__fault__"
TYPES = {Kind.FLAG: pl.Boolean, Kind.WORDS: pl.String, Kind.TEXT: pl.String}
"""Of typed columns; of all other kinds Int64. Lists of words stay text here (`parse_words`)."""


def typed(table: Table, sources: Mapping[str, Source], frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """`ROW`, every column of the table and a `FAULT` flag for each. Columns without a source are null, without fault.

    `frame` has `ROW` and the file's columns; `name` is the file's, for messages.
    """
    dtypes = frame.schema
    exempt = _left_out() if table is SEARCH and "item_type" in sources else pl.lit(False)
    raw, values, faults = {}, {}, {}
    for column in table.columns:
        source = sources.get(column.name)
        if source is None:
            values[column.name] = pl.lit(None, dtype=TYPES.get(column.kind, pl.Int64))
            faults[f"{FAULT}{column.name}"] = pl.lit(False)
            continue
        dtype, cell = dtypes[source.name], pl.col(f"{VALUE}{column.name}")
        raw[f"{VALUE}{column.name}"] = _cell(column, source, dtype, name)
        # Two steps, so that no cell is parsed more than once.
        values[column.name] = _value(column, cell, dtype, source)
        fault = _fault(column, cell, pl.col(column.name), source)
        faults[f"{FAULT}{column.name}"] = (fault & ~exempt if column.of_result else fault).fill_null(False)
    # The file's columns may have our names, with other contents: they go before ours come.
    kept = [pl.col(sources["item_type"].name).alias("__type__")] if table is SEARCH and "item_type" in sources else []
    steps = frame.lazy().select(ROW, *kept, **raw).with_columns(**values)
    return steps.select(ROW, *table.names(), **faults).collect()


def cell_texts(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column of the file as text, for people to read."""
    dtype = frame.schema[name]
    column = _list_text(name, dtype) if dtype == pl.List else pl.col(name).cast(pl.String, strict=False)
    return frame.select(column.alias("value")).to_series()


def _left_out() -> pl.Expr:
    return (~pl.col("__type__").cast(pl.String).str.strip_chars().is_in(RESULT_TYPES)).fill_null(False)


def _cell(column: Column, source: Source, dtype: pl.DataType, name: str) -> pl.Expr:
    """The cell as stripped text or as a number, null where it says "missing" and may."""
    cell = pl.col(source.name)
    if is_textual(dtype):
        text = cell.cast(pl.String).str.strip_chars()
        if column.filled and column.kind is not Kind.TEXT:
            return text  # no number can be read from "missing" either, so it need not be told apart
        missing = text == "" if column.verbatim or source.text else text.is_in(MISSING)
        return pl.when(missing).then(None).otherwise(text)
    if dtype == pl.Null:
        return cell.cast(pl.String)
    if column.kind is Kind.WORDS:
        wanted = dtype.inner == pl.String if source.text and dtype == pl.List else False
        if dtype == pl.List and (wanted or dtype.inner.is_numeric() or dtype.inner == pl.Null):
            return cell.list.join(" ") if wanted else _list_text(source.name, dtype)
        expected = "text, or a list of text" if source.text else column.kind.value
        raise BadInput(f"{name}, column {source.name}: is {dtype}, expected {expected}")
    if column.kind is Kind.TEXT:
        return cell.cast(pl.String)
    if dtype == pl.Float32 and column.kind is Kind.TIME:
        raise BadInput(f"{name}, column {source.name}: is Float32, which cannot hold ms since 1970, expected Float64")
    if dtype.is_float():
        return cell.fill_nan(None)
    if dtype.is_decimal():
        return cell.cast(pl.Float64)
    moment = dtype == pl.Datetime and column.kind in (Kind.DATE, Kind.TIME)
    if dtype.is_integer() or dtype == pl.Boolean or moment or (dtype == pl.Date and column.kind is Kind.DATE):
        return cell
    raise BadInput(f"{name}, column {source.name}: is {dtype}, expected {column.kind.value}")


def _list_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A list as text. A missing element makes it unreadable, so that the cell is a fault."""
    elements = pl.element().cast(pl.String).fill_null("nothing")
    joined = pl.col(name).cast(pl.List(dtype.inner)).list.eval(elements).list.join(", ")
    return pl.lit("[") + joined + pl.lit("]")


def _value(column: Column, raw: pl.Expr, dtype: pl.DataType, source: Source) -> pl.Expr:
    textual, temporal = is_textual(dtype) or dtype == pl.Null, dtype.is_temporal()
    match column.kind:
        case Kind.WORDS | Kind.TEXT:
            return raw
        case Kind.ID | Kind.KEY | Kind.COUNT:
            return whole(raw, dtype)
        case Kind.FLAG:
            number = whole(raw, dtype)
            said = pl.when(number.is_in([0, 1])).then(number == 1)
            if not is_textual(dtype):
                return said
            word = raw.str.to_lowercase()
            return pl.coalesce(said, pl.when(word.is_in(["true", "false"])).then(word == "true"))
        case Kind.SPAN:
            return _rounded(raw, textual, source.scale)
        case Kind.TIME:
            return raw.dt.epoch("ms") if temporal else _rounded(raw, textual, source.scale)
        case Kind.DATE:
            if temporal:
                zoned = dtype == pl.Datetime and dtype.time_zone is not None
                offset = 0 if zoned else PLATFORM_UTC_OFFSET_MS
                moment = raw.dt.epoch("ms") if zoned else raw.cast(pl.Datetime("ms")).dt.epoch("ms") - offset
                return pl.when(moment > -offset).then(moment.clip(1)).otherwise(0).fill_null(0)
            return _date(raw, textual)


def _rounded(raw: pl.Expr, textual: bool, scale: int = 1) -> pl.Expr:
    """int64, the nearest to `scale` times the number."""
    number = raw.cast(pl.Float64, strict=False) if textual else raw.cast(pl.Float64)
    if scale != 1:
        number = number * scale
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


def _fault(column: Column, raw: pl.Expr, value: pl.Expr, source: Source) -> pl.Expr:
    """True where the cell breaks the column's rule."""
    match column.kind:
        case Kind.WORDS:
            unreadable = pl.lit(False) if source.text else raw.is_not_null() & ~raw.str.contains(WORD_LIST)
        case Kind.TIME:
            unreadable = value.is_null() | ~value.is_between(EARLIEST_MS, LATEST_MS)
        case Kind.SPAN | Kind.COUNT | Kind.KEY:
            unreadable = (value.is_null() & raw.is_not_null()) | (value < 0).fill_null(False)
        case _:
            unreadable = value.is_null() & raw.is_not_null()
    return unreadable | raw.is_null() if column.filled else unreadable


_NUMBER = r"-?\d{1,18}(?:\.0*)?"
WORD_LIST = rf"^\[\s*(?:{_NUMBER}(?:(?:\s*,\s*|\s+){_NUMBER})*\s*)?\]$"
"""[20, 34, 3] as logs write it, [20 34 3] and [20. 34. 3.] as arrays are printed, [] for none."""
LARGEST_EXACT = 2.0**53  # of whole numbers written as floats


def is_textual(dtype: pl.DataType) -> bool:
    """Whether the cells are text."""
    return dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)


def whole(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """int64; a float is taken where it is whole (KuaiSAR writes some ids as 12.0); null for anything else."""
    if not is_textual(dtype) and not dtype.is_float() and not dtype.is_decimal():
        return raw.cast(pl.Int64, strict=False)
    number = raw.cast(pl.Float64, strict=False)
    exact = pl.when((number == number.floor()) & (number.abs() <= LARGEST_EXACT)).then(number)
    exact = exact.cast(pl.Int64, strict=False)
    return pl.coalesce(raw.cast(pl.Int64, strict=False), exact) if is_textual(dtype) else exact


def parse_words(texts: pl.Series) -> pl.Series:
    """`"[20, 34, 3]"` → list of int64; missing → empty list. Every text must already match WORD_LIST."""
    if texts.str.contains(".", literal=True).any():
        texts = texts.str.replace_all(r"\.0*", "")
    return texts.fill_null("[]").str.extract_all(r"-?\d+").cast(pl.List(pl.Int64))
