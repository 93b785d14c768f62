"""Records of a part: every one is found, or said to be malformed, at the line where it begins."""

from __future__ import annotations

import csv
import io
import random
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pr2_jax.data.logs import records, scanning
from pr2_jax.data.logs.records import ROW, Block, blocks, header
from pr2_jax.data.logs.sources import Part
from pr2_jax.errors import BadInput
from tests.data.plain_csv import read_plainly


def part_of(path: Path, content: str | bytes, **constants: str) -> Part:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Part(path.name, "parquet" if path.suffix == ".parquet" else "csv", constants, path)


def read(part: Part, block_bytes: int = 1 << 20) -> tuple[list[tuple[int, list[str]]], dict[int, str]]:
    """(line, cells) of the records, line -> reason of the malformed; the counts agree."""
    good, bad, physical = [], {}, 0
    for block in blocks(part, header(part), block_bytes):
        good += [(row[0], [cell or "" for cell in row[1:]]) for row in block.frame.iter_rows()]
        bad |= {malformed.line: malformed.reason for malformed in block.malformed}
        physical += block.physical
    assert physical == len(good) + len(bad)
    return good, bad


def read_text(tmp_path: Path, text: str, block_bytes: int = 1 << 20):
    return read(part_of(tmp_path / "t.csv", text), block_bytes)


def random_text(rng: random.Random, width: int) -> str:
    """Rows of a writer with a few bytes spoiled, or anything."""
    if rng.random() < 0.5:
        pieces = ['"', ",", "\n", "\r\n", "a", "é", " ", '""', ',"', '",', '"\n', '\n"', "\t"]
        return "".join(rng.choices(pieces, rng.choices(range(1, 8), k=len(pieces)), k=rng.randint(0, 120)))
    cells = ["1", "", "[20, 34]", "a\nb", 'q"q', ",", "x\r\ny", "\n\n", " ", "1,2\n3,4", '"', "abc"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerows(rng.choices(cells, k=width) for _ in range(rng.randint(0, 30)))
    text = file.getvalue()[: rng.choice([None, -1])]
    for _ in range(rng.choice([0, 0, 1, 2, 5]) if text else 0):
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(['"', ",", "", "\n"]) + text[place + 1 :]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_equal_a_plain_reader(seed, tmp_path):
    rng = random.Random(seed)
    for _ in range(60):
        width = rng.randint(1, 4)
        text = random_text(rng, width)
        head = ",".join(f"c{k}" for k in range(width)) + "\n"
        good, bad = read_text(tmp_path, head + text, rng.choice([1, 7, 30, 100, 1 << 20]))
        expected, reasons = read_plainly(text, width)
        assert good == expected, text
        assert bad.keys() == reasons.keys(), text
        quotes = ("a stray quote", "a quoted cell that never ends")
        assert all(bad[line] == reason or (reason is None and bad[line] in quotes) for line, reason in reasons.items())


def test_what_a_csv_writer_wrote_comes_back(tmp_path):
    """Big enough that the parser cuts it into pieces for its threads."""
    rng = random.Random(0)
    cells = ["", "1", 'say "so"', "[20, 34]", "line\nbreak", "crlf\r\nbreak", " blank ", "空", '"', "a,b"]
    rows = [[str(row), *rng.choices(cells, k=5)] for row in range(30_000)]
    file = io.StringIO()
    csv.writer(file).writerows([["id", *"abcde"], *rows])
    good, bad = read_text(tmp_path, file.getvalue(), 300_000)
    assert bad == {}
    assert [cells for _, cells in good] == rows
    line = 2
    for at, row in good:
        assert at == line
        line += 1 + sum(cell.count("\n") for cell in row)


ODD = {
    "no line end": ("a,b\n1,2\n3,4", [2, 3], {}),
    "blank lines": ("\n \r\na,b\r\n\r\n1,2\r\n  \t\r\n3,4\r\n", [5, 7], {}),
    "cells too many": ("a,b\n1,2,3\n4,5\n6\n", [3], {2: "3 cells, expected 2", 4: "1 cell, expected 2"}),
    "a quote in a cell": ('a,b\n1,x"y\n2,3\n4,x"y\n5,6\n', [3, 5], {2: "a stray quote", 4: "a stray quote"}),
    "two quotes in a cell": ('a,b\n1,x"y"z\n2,3\n', [3], {2: "a stray quote"}),
    "text behind a closing quote": ('a,b\n"1"x,2\n"3" ,4\n5,6\n', [4], {2: "a stray quote", 3: "a stray quote"}),
    "cell that never ends": ('a,b\n1,2\n3,"4\n5,6\n', [2, 4], {3: "a quoted cell that never ends"}),
    "cell that never ends, alone": ('a,b\n1,"2', [], {2: "a quoted cell that never ends"}),
    "cell with line breaks": ('a,b\n1,"x\n\n y\n"\n2,3\n', [2, 6], {}),
    "line breaks in two cells": ('a,b\n"x\n1","2\ny"\n3,4\n', [2, 5], {}),
    "two stray quotes in one column": ('a,b\n1,"2\n3,4\n5,6"\n7,8\n', [3, 5], {2: "a stray quote", 4: "a stray quote"}),
    "the same beside good quotes": (
        'a,b\n"1,1","2\n3,4\n"5,5",6"\n7,8\n',
        [3, 5],
        {2: "a stray quote", 4: "a stray quote"},
    ),
    "no stray quotes with one column": ('a\n"x\ny"\n\n""\n1\n', [2, 5, 6], {}),
    "many records between two quotes": (
        'a,b,c\n1,"2,2,3\n' + "1,2,3\n" * 8 + '1,2,2",3\n4,5,6\n',
        [*range(3, 11), 12],
        {2: "a stray quote", 11: "a stray quote"},
    ),
    "few records between two quotes": ('a,b,c\n1,"2,2,3\n' + "1,2,3\n" * 7 + '1,2,2",3\n4,5,6\n', [2, 11], {}),
}


@pytest.mark.parametrize("block_bytes", [1, 16, 1 << 20])
@pytest.mark.parametrize("odd", ODD)
def test_odd_lines_cost_themselves_alone(odd, block_bytes, tmp_path):
    text, lines, malformed = ODD[odd]
    good, bad = read_text(tmp_path, text, block_bytes)
    assert [line for line, _ in good] == lines
    assert bad == malformed


def test_cells_as_they_are(tmp_path):
    part = part_of(tmp_path / "t.csv", b'\xef\xbb\xbf" a ",b \r\n"say ""so""",\xff\r\n"",\r\n x ,"y\r\nz"\r\n')
    assert header(part) == ["a", "b"]
    (block,) = blocks(part, ["b", "a"])
    assert block.frame.columns == [ROW, "b", "a"]
    assert block.frame["a"].to_list() == ['say "so"', "", " x "]
    assert block.frame["b"].to_list() == ["�", None, "y\r\nz"]
    assert block.frame[ROW].to_list() == [2, 3, 4]


def test_a_byte_order_mark_inside_is_text(tmp_path):
    part = part_of(tmp_path / "t.csv", "a,b\n\ufeff1,2\n")
    assert read(part, 1)[0] == [(2, ["\ufeff1", "2"])]


def test_text_of_malformed_is_short(tmp_path):
    part = part_of(tmp_path / "t.csv", "a,b\n" + "空" * 5000 + "\n")
    (block,) = blocks(part, ["a"])
    assert [malformed.text for malformed in block.malformed] == ["空" * 200]


def test_partition_columns_come_as_text(tmp_path):
    part = part_of(tmp_path / "t.csv", "a,b\n1,2\n", day="3", a="of the directory")
    assert header(part) == ["a", "b", "day"]
    (block,) = blocks(part, ["day", "a"])
    assert block.frame.rows() == [(2, "3", "1")]
    (block,) = blocks(part, ["day"])
    assert block.frame.rows() == [(2, "3")]


HEADERS = {
    "empty": (b"", "t.csv is empty, expected a header line"),
    "blank": (b"\xef\xbb\xbf \r\n\n", "t.csv is empty, expected a header line"),
    "twice": (b"a, b,c,b\n1,2,3,4\n", r"t.csv, row 1: column 'b' stands twice in the header \(places 2, 4\)"),
    "wide characters": ("a,b\n".encode("utf-16"), "t.csv is UTF-16 text, expected UTF-8"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_header_that_cannot_be_used(fault, tmp_path):
    content, pattern = HEADERS[fault]
    with pytest.raises(BadInput, match=pattern):
        header(part_of(tmp_path / "t.csv", content))


def test_header_with_a_line_break(tmp_path):
    part = part_of(tmp_path / "t.csv", '"a\nb",c\n1,2\n')
    assert header(part) == ["a\nb", "c"]
    assert read(part)[0] == [(3, ["1", "2"])]


def test_cells_of_any_length(tmp_path):
    cell, broken = "x, y " * 400_000, "x, y\n" * 400_000
    good, bad = read_text(tmp_path, f'a,b,c\n1,"{cell}",2\n3,"{broken}",4\n5,6,7\n', 1 << 16)
    assert bad == {}
    assert good[:2] == [(2, ["1", cell, "2"]), (3, ["3", broken, "4"])]
    assert good[2][0] == 4 + 400_000


@pytest.mark.parametrize("block_bytes", [1, 1000])
def test_a_record_with_line_breaks_is_given_up_at_its_bound(block_bytes, monkeypatch, tmp_path):
    monkeypatch.setattr(scanning, "LONGEST_JOIN_BYTES", 20)
    fits, longer = '1,"' + "x\n" * 7 + '"\n', '2,"' + "x\n" * 7 + 'yy"\n'
    good, bad = read_text(tmp_path, "a,b\n" + fits + longer + "3,4\n", block_bytes)
    assert [line for line, _ in good] == [2, 18]
    assert sorted(bad) == list(range(10, 18))
    assert bad[10] == "a quoted cell that never ends"


@pytest.mark.parametrize("line", ['1,2,"3\n', '1,"2\n', '"1,2,3\n'])
def test_work_grows_with_the_file_and_not_faster(line, monkeypatch, tmp_path):
    """Bytes looked at, with a stray quote in each line, and with one at the start of a long file without any other."""
    looked_at = []

    def counted(data: bytes, *others):
        looked_at.append(len(data))
        return scanning.scan(data, *others)

    monkeypatch.setattr(records, "scan", counted)
    for text in (line * 5_000, line + "1,2,x\n" * 5_000, line + "1\n" * 20_000, line + "\n" * 40_000):
        looked_at.clear()
        read_text(tmp_path, "a,b,c\n" + text, 1 << 12)
        assert sum(looked_at) < 4 * len(text) + (1 << 13)


def test_a_parser_that_disagrees_is_no_log(monkeypatch, tmp_path):
    part = part_of(tmp_path / "t.csv", "a,b\n1,2\n3,4\n")
    made = pl.read_csv
    monkeypatch.setattr(records.pl, "read_csv", lambda *args, **kwargs: made(*args, **kwargs).head(1))
    with pytest.raises(BadInput, match=r"t.csv, lines 2 to 3, cannot be accounted for: 2 records .*, 1 when parsed"):
        list(blocks(part, ["a"]))


def test_leaving_early_ends_the_thread(tmp_path):
    before = threading.active_count()
    made = blocks(part_of(tmp_path / "t.csv", "a,b\n" + "1,2\n" * 1000), ["a"], 100)
    next(made)
    made.close()
    assert threading.active_count() == before


TYPED = {"id": [1, 2, 3, 4, 5], "words": [[1.0, 2.0], [], None, [3.0], [4.0]], "kind": ["a", None, "b", "a", ""]}


def parquet(path: Path, compression: str = "snappy", rows: int = 2, **constants: str) -> Part:
    table = pa.table(TYPED)
    table = table.set_column(2, "kind", table["kind"].dictionary_encode())
    pq.write_table(table, path, compression=compression, row_group_size=rows)
    return Part(path.name, "parquet", constants, path)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("block_rows", [1, 3, 4, 100])
def test_parquet(compression, block_rows, tmp_path):
    part = parquet(tmp_path / "t.parquet", compression, day="3")
    assert header(part) == ["id", "words", "kind", "day"]
    made: list[Block] = list(blocks(part, ["day", "kind", "words"], block_rows=block_rows))
    assert all(block.physical == block.frame.height <= block_rows for block in made)
    frame = pl.concat([block.frame for block in made])
    assert frame.schema == {ROW: pl.Int64, "day": pl.String, "kind": pl.String, "words": pl.List(pl.Float64)}
    assert frame[ROW].to_list() == [1, 2, 3, 4, 5]
    assert frame["words"].to_list() == TYPED["words"]
    assert frame["kind"].to_list() == TYPED["kind"]
    assert sum(block.frame.height for block in blocks(part, ["day"], block_rows=block_rows)) == 5


def test_damaged_parquet(tmp_path):
    part = parquet(tmp_path / "t.parquet")
    whole = part.path.read_bytes()
    for cut in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        part.path.write_bytes(whole[:cut])
        with pytest.raises(BadInput, match=r"t.parquet is not a readable Parquet file"):
            header(part)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.integers(4, len(whole) - 8)] ^= 0xFF
        part.path.write_bytes(damaged)
        try:
            frames = [block.frame for block in blocks(part, header(part)[:2])]
        except BadInput as error:
            assert "t.parquet" in str(error)  # noqa: PT017
        else:
            assert sum(map(len, frames)) == 5
