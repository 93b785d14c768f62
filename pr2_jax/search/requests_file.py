"""Reading a file of requests, block by block: CSV or Parquet with `user_id` and `query`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from pr2_jax.errors import BadInput

BLOCK = 256
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
    frame = _scan(path)
    names = frame.collect_schema().names()
    for column in (USER, QUERY):
        if column not in names:
            raise BadInput(f"{path}: no column {column!r} among {', '.join(names)}; expected {COLUMNS}")
    wanted = [USER, QUERY, *([KEY] if KEY in names else [])]
    start = 0
    for part in frame.select(wanted).collect_batches(chunk_size=BLOCK, maintain_order=True):
        for rows in part.iter_slices(BLOCK):
            yield _block(path, rows, start)
            start += len(rows)
    if not start:
        raise BadInput(f"{path}: no request in it; expected rows of {COLUMNS}")


def _scan(path: Path) -> pl.LazyFrame:
    try:
        if path.suffix == ".csv":
            return pl.scan_csv(path, infer_schema=False)
        if path.suffix == ".parquet":
            return pl.scan_parquet(path)
        raise BadInput(f"{path}: requests are read from .csv or .parquet, not {path.suffix or 'a file without ending'}")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadInput(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _block(path: Path, rows: pl.DataFrame, start: int) -> RequestBlock:
    users: list[int | None] = []
    words: list[list[int | str]] = []
    for number, (user, query) in enumerate(zip(rows[USER], rows[QUERY], strict=True), start + 1):
        try:
            users.append(None if user in (None, "") else int(user))
        except ValueError:
            raise BadInput(f"{path}: request {number}, column {USER}: {user!r}, expected a raw user id") from None
        words.append(_words(path, number, query))
    key = [str(k) for k in rows[KEY]] if KEY in rows.columns else [str(start + n + 1) for n in range(len(rows))]
    return RequestBlock(key, users, words)


def _words(path: Path, number: int, query: object) -> list[int | str]:
    if isinstance(query, pl.Series):
        return query.to_list()
    text = "" if query is None else str(query).strip()
    if not text.startswith("["):
        return text.split()
    try:
        return [int(word) for word in json.loads(text)]
    except (ValueError, TypeError):
        raise BadInput(
            f"{path}: request {number}, column {QUERY}: {text[:60]!r}, expected words or a list such as [20, 34]"
        ) from None
