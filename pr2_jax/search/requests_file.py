"""Reader of request files (CSV or Parquet with `user_id` and `query`), block by block, by the rules of ingest."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.data.logs import records
from pr2_jax.data.logs.mapping import listed
from pr2_jax.data.logs.parsing import LARGEST_EXACT, WORD_LIST, is_textual, parse_words, whole
from pr2_jax.data.logs.sources import CSV, PARQUET, Part
from pr2_jax.data.schema import MISSING
from pr2_jax.errors import BadInput

BLOCK = 256
INT64 = np.iinfo(np.int64)
USER, QUERY, KEY = "user_id", "query", "request_id"
COLUMNS = f"{USER} (raw id), {QUERY} (words, or a list of word ids such as [20, 34]) and, if you like, {KEY}"
SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".parquet")
BLANK = "__blank__"


@dataclasses.dataclass(frozen=True)
class RequestBlock:
    """Consecutive requests. A query is a text, or a list of words and raw word ids."""

    key: list[str]
    user: list[int | None]  # None = no person
    query: list[str | list[int | str]]
    blank: int = 0  # skipped rows of a CSV, in which every cell is empty


def read_requests(path: Path) -> Iterator[RequestBlock]:
    """Blocks of requests in file order; a block may be empty. BadInput names the request that cannot be used.

    A missing user (also NaN) is no person. A request without a `request_id` gets its number among the file's requests
    (1, 2, ...), or the first of N-2, N-3, ... that no other request has.
    """
    given, start = _given_keys(path), 0
    for frame in _frames(path):
        for rows in frame.iter_slices(BLOCK):
            requests = rows.filter(~rows[BLANK])
            users, queries = _users(path, requests[USER], start), _queries(path, requests[QUERY], start)
            yield RequestBlock(_keys(requests, start, given), users, queries, len(rows) - len(requests))
            start += len(requests)
    if not start:
        raise BadInput(f"{path}: no request in it; expected rows of {COLUMNS}")


def _frames(path: Path) -> Iterator[pl.DataFrame]:
    """Columns USER, QUERY and, if the file has it, KEY, unparsed; BLANK marks lines of a CSV without a value.

    BadInput names the line of a malformed record.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        ending = path.suffix or "a file without ending"
        raise BadInput(f"{path}: requests are read from {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, not {ending}")
    part = Part(str(path), PARQUET if name.endswith(".parquet") else CSV, {}, path)
    names = records.header(part)
    for column in (USER, QUERY):
        if column not in names:
            raise BadInput(f"{path}: no column {column!r} among {listed(names)}; expected {COLUMNS}")
    wanted = [column for column in (USER, QUERY, KEY) if column in names]
    read = wanted if part.format == PARQUET else list(dict.fromkeys(names))
    for block in records.blocks(part, read):
        for bad in block.malformed:
            raise BadInput(f"{path}, row {bad.line}: {bad.reason} ({bad.text!r}), expected {COLUMNS}")
        blank = pl.lit(False)
        if part.format == CSV:
            blank = pl.all_horizontal((pl.col(one).str.strip_chars() == "").fill_null(True) for one in read)
        yield block.frame.select(*wanted, blank.alias(BLANK))


def _given_keys(path: Path) -> set[str]:
    """All request ids of the file. BadInput names one that occurs twice."""
    given: set[str] = set()
    number = 0
    for frame in _frames(path):
        if KEY not in frame.columns:
            return given
        for key in _texts(frame.filter(~frame[BLANK])[KEY]):
            number += 1
            if key in given:
                raise BadInput(
                    f"{path}: request {number}, column {KEY}: {key!r} for the second time, expected one each"
                )
            if key is not None:
                given.add(key)
    return given


def _keys(rows: pl.DataFrame, start: int, given: set[str]) -> list[str]:
    keys = _texts(rows[KEY]) if KEY in rows.columns else [None] * len(rows)
    return [_unused(start + n, given) if key is None else key for n, key in enumerate(keys, 1)]


def _unused(number: int, given: set[str]) -> str:
    names = itertools.chain([str(number)], (f"{number}-{turn}" for turn in itertools.count(2)))
    return next(name for name in names if name not in given)


def _texts(cells: pl.Series) -> list[str | None]:
    """As text, None where missing; whole numbers held as floats are written without a point."""
    if cells.dtype.is_float():
        values = [int(value) if _is_whole(value) else value for value in cells.fill_nan(None)]
    else:
        values = _stripped(cells).to_list()
    return [None if value is None else str(value) for value in values]


def _stripped(cells: pl.Series) -> pl.Series:
    """Text without blanks around it, null where it is a word for "missing"; NaN becomes null."""
    if is_textual(cells.dtype):
        text = cells.cast(pl.String).str.strip_chars()
        return text.set(text.is_in(MISSING), None)
    return cells.fill_nan(None) if cells.dtype.is_float() else cells


def _users(path: Path, cells: pl.Series, start: int) -> list[int | None]:
    raw = _stripped(cells.cast(pl.String) if cells.dtype.is_decimal() else cells)
    if raw.dtype.is_numeric() or is_textual(raw.dtype):
        users = raw.to_frame("user").select(whole(pl.col("user"), raw.dtype)).to_series()
    else:  # dates, booleans and lists are no ids
        users = pl.Series([None] * len(raw), dtype=pl.Int64)
    bad = users.is_null() & raw.is_not_null()
    if bad.any():
        at = int(bad.arg_true()[0])
        raise BadInput(f"{path}: request {start + at + 1}, column {USER}: {cells[at]!r}, expected a raw user id")
    return users.to_list()


def _queries(path: Path, cells: pl.Series, start: int) -> list[str | list[int | str]]:
    if isinstance(cells.dtype, pl.List | pl.Array):
        lists = cells.cast(pl.List(cells.dtype.inner)).to_list()
        found = [[_element(word) for word in given or ()] for given in lists]
        shown = [str(given) for given in lists]
    elif cells.dtype.is_numeric():  # one word id each
        found = [[] if value is None else [_element(value)] for value in _stripped(cells)]
        shown = [str(value) for value in cells]
    else:
        texts = cells.cast(pl.String).fill_null("").str.strip_chars()
        as_list = texts.str.starts_with("[")
        readable = as_list & texts.str.contains(WORD_LIST)
        ids = parse_words(texts.set(~readable, None)).to_list()
        # A list that cannot be read becomes [None], which is refused below.
        found = [ids[n] if readable[n] else [None] if as_list[n] else text for n, text in enumerate(texts)]
        shown = texts.to_list()
    for number, (query, text) in enumerate(zip(found, shown, strict=True), start + 1):
        if not isinstance(query, str) and None in query:
            raise BadInput(
                f"{path}: request {number}, column {QUERY}: {text[:60]!r}, expected words or a list such as [20, 34]"
            )
    return found


def _element(word: object) -> str | int | None:
    """A word, or a word id, perhaps held as a float; None for anything else."""
    if isinstance(word, str):
        return word
    return whole_number(int(word) if _is_whole(word) else word)


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT


def whole_number(value: object) -> int | None:
    """A raw id: a whole number of 64 bits, or its digits; None for anything else."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    return value if type(value) is int and INT64.min <= value <= INT64.max else None
