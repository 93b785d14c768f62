"""Reads a part block by block: text from CSV, native types from Parquet, and the malformed records.

The byte scanner or the Parquet footer counts the records, never the parser; the parser must agree. A thread reads,
decompresses and scans the next block while the caller works on one.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pr2_jax.data.logs.scanning import Malformed, Scan, scan
from pr2_jax.data.logs.sources import PARQUET, Part
from pr2_jax.data.logs.streams import first_line
from pr2_jax.errors import BadInput

ROW = "__row__"
BOM = b"\xef\xbb\xbf"
WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
HEAD_BYTES = 1 << 16
LONGEST_HEADER_BYTES = 16 << 20
PARSER = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError, *PARSER)
Piece = TypeVar("Piece")


@dataclasses.dataclass(frozen=True)
class Block:
    """Some records of a part. An empty cell of a CSV is null, or "" where it was quoted.

    `frame` holds ROW (int64: the line where the record begins, header = 1; in Parquet the row, from 1) and the columns
    asked for. `physical` counts the records, the malformed among them; `mended` those of the frame that had a stray
    quote in another column.
    """

    frame: pl.DataFrame
    malformed: tuple[Malformed, ...]
    physical: int
    mended: int = 0


def header(part: Part) -> list[str]:
    """Names of the columns, and of the partition columns that the file itself lacks. Raises BadInput."""
    if part.format == PARQUET:
        with _parquet(part) as file:
            names = file.schema_arrow.names
    else:
        with part.open() as stream:
            names = _Head.read(part, stream).names
    for name in names:
        if name and names.count(name) > 1:
            where = ", ".join(str(place + 1) for place, other in enumerate(names) if other == name)
            raise BadInput(f"{part.name}, row 1: column {name!r} stands twice in the header (places {where})")
    return [*names, *(name for name in part.constants if name not in names)]


def blocks(
    part: Part, columns: Sequence[str], block_bytes: int = 32 << 20, block_rows: int = 1 << 20
) -> Iterator[Block]:
    """The records of a part, in order; `columns` are names of `header(part)`, partition columns come as text.

    A block of CSV is of about `block_bytes`, more where a record is longer; one of Parquet of `block_rows` at most.
    Raises BadInput for a part that cannot be read to its end, or whose records cannot be accounted for.
    """
    if part.format == PARQUET:
        made = _parquet_blocks(part, columns, block_rows)
    else:
        made = _csv_blocks(part, columns, block_bytes)
    with contextlib.closing(made):
        for block in made:
            constants = [pl.lit(part.constants[name]).alias(name) for name in columns if name not in block.frame]
            frame = block.frame.with_columns(constants).select(ROW, *columns)
            yield dataclasses.replace(block, frame=frame)


def _ahead(pieces: Generator[Piece, None, None]) -> Generator[Piece, None, None]:
    """The same pieces, each made in a thread while the caller works on the previous one."""
    with ThreadPoolExecutor(1, "pr2-read") as pool:
        coming = pool.submit(next, pieces, None)
        try:
            while (piece := coming.result()) is not None:
                coming = pool.submit(next, pieces, None)
                yield piece
        finally:
            pool.shutdown()
            pieces.close()


@dataclasses.dataclass(frozen=True)
class _Head:
    """The header record of a CSV, the bytes read behind it, and the line where these begin."""

    names: list[str]
    rest: bytes
    next_line: int

    @classmethod
    def read(cls, part: Part, stream: BinaryIO, at_once: int = HEAD_BYTES) -> _Head:
        data, ended = b"", False
        while not ended:
            more = stream.read(max(at_once, len(data)))
            ended = not more
            data += more
            if data[:2] in WIDE:
                raise BadInput(f"{part.name} is {WIDE[data[:2]]} text, expected UTF-8")
            begin = len(BOM) if data.startswith(BOM) else 0
            record, after, blank = _first_record(data, begin, ended)
            if record is not None:
                line = 1 + blank + record.count(b"\n") + (not record.endswith(b"\n"))
                text = record.decode("utf-8", "replace")
                names = [name.strip() for name in next(csv.reader(io.StringIO(text, newline="")), [])]
                _refuse_foreign(part, text, names)
                return cls(names, data[after:], line)
            if len(data) > LONGEST_HEADER_BYTES:
                raise BadInput(
                    f"{part.name} has no line end in its first {len(data) >> 20} MiB, expected a header line"
                )
        raise BadInput(f"{part.name} is empty, expected a header line")


def _refuse_foreign(part: Part, text: str, names: list[str]) -> None:
    """BadInput for a header of another file format."""
    if "\x00" in text:
        raise BadInput(f"{part.name} has NUL bytes in its header, as UTF-16 text has, expected UTF-8")
    if "\r" in text.strip("\r\n"):
        raise BadInput(f"{part.name} ends its lines with a carriage return alone, expected line feeds")
    for separator, said in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and separator in names[0]:
            raise BadInput(f"{part.name} has {said} between its cells, expected commas")


def _first_record(data: bytes, begin: int, ended: bool) -> tuple[bytes | None, int, int]:
    """(the record, where the next one begins, blank lines before it); None where more bytes are needed."""
    blank, record = 0, begin
    while begin < len(data):
        end = data.find(b"\n", begin) + 1 or (len(data) if ended else 0)
        if not end:
            return None, 0, 0
        if record == begin and not data[begin:end].strip():
            blank, record = blank + 1, end
        elif data.count(b'"', record, end) % 2 == 0:
            return data[record:end], end, blank
        begin = end
    if ended and record < len(data):  # a quote too many: its first line is the header
        end = data.find(b"\n", record) + 1 or len(data)
        return data[record:end], end, blank
    return None, 0, 0


def _csv_blocks(part: Part, columns: Sequence[str], block_bytes: int) -> Generator[Block, None, None]:
    with part.open() as stream:
        head = _Head.read(part, stream, min(HEAD_BYTES, block_bytes))
        wanted = [name for name in columns if name in head.names]
        with contextlib.closing(_ahead(_scans(stream, head, block_bytes, wanted))) as scans:
            for found in scans:
                frame = _parse(part, found, head.names, wanted)
                physical = len(found.line_R) + len(found.malformed)
                yield Block(frame, found.malformed, physical, found.mended)


def _scans(stream: BinaryIO, head: _Head, block_bytes: int, wanted: list[str]) -> Generator[Scan, None, None]:
    """Blocks of bytes with whole records, scanned. A block that holds no whole record is read on to twice its size."""
    data, line, last = head.rest, head.next_line, False
    read = {head.names.index(name) for name in wanted}
    while not last:
        more = stream.read(max(block_bytes - len(data), len(data), 1))
        last = not more
        data += more if more or not data or data.endswith(b"\n") else b"\n"
        found = scan(data, len(head.names), line, last, read)
        data, line = data[found.used :], line + found.lines
        if len(found.line_R) or found.malformed:
            yield found


def _parse(part: Part, found: Scan, names: list[str], wanted: list[str]) -> pl.DataFrame:
    """The cells of the wanted columns as text. BadInput where the parser sees other records than the scanner."""
    places = [names.index(name) for name in wanted] or [0]
    if len(found.line_R) == 0:
        return pl.DataFrame(schema={ROW: pl.Int64} | dict.fromkeys(wanted, pl.String))
    text, dummy = found.text, 0
    if text.startswith(BOM):  # of a cell: the parser would take it away from the first record
        text, dummy = b'""' + b"," * (len(names) - 1) + b"\n" + text, 1
    schema = {str(place): pl.String for place in range(len(names))}
    try:
        frame = pl.read_csv(text, has_header=False, schema=schema, columns=places, encoding="utf8-lossy")
    except PARSER as error:
        raise BadInput(f"{_where(part, found)} cannot be read as CSV ({first_line(error)})") from None
    frame = frame.slice(dummy)
    if frame.height != len(found.line_R):
        raise BadInput(
            f"{_where(part, found)} cannot be accounted for: {len(found.line_R)} records by their bytes, "
            f"{frame.height} when parsed"
        )
    columns = [frame[str(place)].alias(name) for place, name in zip(places, wanted, strict=False)]
    return pl.DataFrame([pl.Series(ROW, found.line_R, pl.Int64), *columns])


def _where(part: Part, found: Scan) -> str:
    return f"{part.name}, lines {found.line_R[0]} to {found.line_R[-1]},"


@contextlib.contextmanager
def _parquet(part: Part) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(part.path, page_checksum_verification=True)
    except UNREADABLE as error:
        raise BadInput(f"{part.name} is not a readable Parquet file ({first_line(error)})") from None
    with file:
        yield file


def _parquet_blocks(part: Part, columns: Sequence[str], block_rows: int) -> Generator[Block, None, None]:
    with _parquet(part) as file:
        wanted = [name for name in columns if name in file.schema_arrow.names]
        row, expected = 1, file.metadata.num_rows
        try:
            with contextlib.closing(_ahead(_batches(file, wanted, block_rows))) as batches:
                for batch in batches:
                    row_R = pl.Series(ROW, np.arange(row, row + batch.num_rows), pl.Int64)
                    columns = _plain(pl.DataFrame(pa.Table.from_batches([batch]))).get_columns() if wanted else []
                    row += batch.num_rows
                    yield Block(pl.DataFrame([row_R, *columns]), (), batch.num_rows)
        except UNREADABLE as error:
            raise BadInput(f"{part.name} is a damaged Parquet file ({first_line(error)})") from None
        if row - 1 != expected:
            raise BadInput(f"{part.name} cannot be accounted for: {expected} rows by its footer, {row - 1} when read")


def _batches(file: pq.ParquetFile, wanted: list[str], block_rows: int) -> Generator[pa.RecordBatch, None, None]:
    """Batches of at most `block_rows` rows. Row groups are read together while they are smaller than that."""
    groups, rows = [], 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if groups and rows + size > block_rows:
            yield from file.iter_batches(block_rows, groups, wanted)
            groups, rows = [], 0
        groups, rows = [*groups, group], rows + size
    if groups:
        yield from file.iter_batches(block_rows, groups, wanted)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Text as text, also where the file holds it as a dictionary or as bytes that are UTF-8."""
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Categorical | pl.Enum):
            frame = frame.with_columns(pl.col(name).cast(pl.String))
        elif kind == pl.Binary:
            with contextlib.suppress(pl.exceptions.PolarsError):
                frame = frame.with_columns(pl.col(name).cast(pl.String))
    return frame
