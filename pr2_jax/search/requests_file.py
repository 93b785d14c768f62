"""Reading a file of requests, block by block: CSV or Parquet with `user_id` and `query`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.errors import BadInput

BLOCK = 256
INT64 = np.iinfo(np.int64)
USER, QUERY, KEY = "user_id", "query", "request_id"
COLUMNS = f"{USER} (raw id), {QUERY} (words, or a list of word ids such as [20, 34]) and, if you like, {KEY}"


@dataclasses.dataclass(frozen=True)
class RequestBlock:
    """Some consecutive requests."""

    key: list[str]
    user: list[int | None]
    words: list[list[int | str]]


def read_requests(path: Path) -> Iterator[RequestBlock]:
    """Blocks of requests in file order. BadInput names the column or the row that cannot be used.

    `request_id` is the row's number where the file has none. An empty user is nobody in particular.
    """
    start, keys = 0, set()
    for part in _parts(path):
        for rows in part.iter_slices(BLOCK):
            yield _block(path, rows, start, keys)
            start += len(rows)
    if not start:
        raise BadInput(f"{path}: no request in it; expected rows of {COLUMNS}")


def _parts(path: Path) -> Iterator[pl.DataFrame]:
    """Polars reads lazily, so a broken file shows at any of these steps."""
    if path.suffix not in (".csv", ".parquet"):
        raise BadInput(f"{path}: requests are read from .csv or .parquet, not {path.suffix or 'a file without ending'}")
    try:
        frame = pl.scan_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.scan_parquet(path)
        names = frame.collect_schema().names()
        for column in (USER, QUERY):
            if column not in names:
                raise BadInput(f"{path}: no column {column!r} among {', '.join(names)}; expected {COLUMNS}")
        wanted = [USER, QUERY, *([KEY] if KEY in names else [])]
        yield from frame.select(wanted).collect_batches(chunk_size=BLOCK, maintain_order=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _block(path: Path, rows: pl.DataFrame, start: int, keys: set[str]) -> RequestBlock:
    users: list[int | None] = []
    words: list[list[int | str]] = []
    for number, (user, query) in enumerate(zip(rows[USER], rows[QUERY], strict=True), start + 1):
        if user in (None, ""):
            users.append(None)
        elif (raw := whole(user)) is None:
            raise BadInput(f"{path}: request {number}, column {USER}: {user!r}, expected a raw user id")
        else:
            users.append(raw)
        words.append(_words(path, number, query))
    if KEY not in rows.columns:
        return RequestBlock([str(start + n + 1) for n in range(len(rows))], users, words)
    key = [str(k) for k in rows[KEY]]
    for number, given in enumerate(key, start + 1):
        if given in keys:
            raise BadInput(f"{path}: request {number}, column {KEY}: {given!r} for the second time, expected one each")
        keys.add(given)
    return RequestBlock(key, users, words)


def _words(path: Path, number: int, query: object) -> list[int | str]:
    if isinstance(query, pl.Series):
        given = query.to_list()
        text = str(given)
    else:
        text = "" if query is None else str(query).strip()
        if not text.startswith("["):
            return text.split()
        try:
            given = json.loads(text)
        except ValueError:
            given = [None]
    words = [word if isinstance(word, str) and isinstance(query, pl.Series) else whole(word) for word in given]
    if None in words:
        raise BadInput(
            f"{path}: request {number}, column {QUERY}: {text[:60]!r}, expected words or a list such as [20, 34]"
        )
    return words


def whole(value: object) -> int | None:
    """A raw id: a whole number of 64 bits, or its digits; None for anything else."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    return value if type(value) is int and INT64.min <= value <= INT64.max else None
