"""Requests as people and programs write them, against what they say."""

from __future__ import annotations

import datetime
import decimal
import gzip
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pr2_jax.errors import BadInput
from pr2_jax.search import requests_file
from pr2_jax.search.requests_file import BLOCK, read_requests


def _read(path: Path) -> list[tuple[str, int | None, Any]]:
    blocks = list(read_requests(path))
    assert all(len(block.key) <= BLOCK for block in blocks)
    return [row for block in blocks for row in zip(block.key, block.user, block.query, strict=True)]


def _csv(path: Path, text: str) -> list[tuple[str, int | None, Any]]:
    path.write_text(text, encoding="utf-8")
    return _read(path)


@pytest.mark.parametrize("name", ["in.csv", "IN.CSV", "in.csv.gz", "in.CSV.GZ", "in.csv.zst", "in[1]*.csv"])
def test_csv_of_any_name_and_compression(tmp_path, name):
    frame = pl.DataFrame({"user_id": ["12", "13"], "query": ["space", "喜剧电影"]})
    if name.lower().endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(frame.write_csv().encode()))
    elif name.endswith(".zst"):
        frame.lazy().sink_csv(tmp_path / name, compression="zstd")
    else:
        frame.write_csv(tmp_path / name)
    (tmp_path / "in1a.csv").write_text("user_id,query\nx,not this one\n")
    assert _read(tmp_path / name) == [("1", 12, "space"), ("2", 13, "喜剧电影")]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"])
def test_parquet_of_any_compression(tmp_path, compression):
    frame = pl.DataFrame({"user_id": [12, None], "query": [[20, 34], None]})
    frame.write_parquet(tmp_path / "in.PARQUET", compression=compression)
    assert _read(tmp_path / "in.PARQUET") == [("1", 12, [20, 34]), ("2", None, [])]


def test_a_compressed_file_cut_short(tmp_path):
    whole = gzip.compress(b"user_id,query\n" + b"1,a\n" * 5000)
    (tmp_path / "in.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"in\.csv\.gz.*(cut short|damaged|truncated)"):
        _read(tmp_path / "in.csv.gz")


def test_users_in_text(tmp_path):
    cells = ("12", "12.0", " 12 ", "-3", "", "NaN", "NULL", f"{2**63 - 1}")
    found = _csv(tmp_path / "in.csv", "user_id,query\n" + "".join(f"{cell},a\n" for cell in cells))
    assert [user for _, user, _ in found] == [12, 12, 12, -3, None, None, None, 2**63 - 1]


@pytest.mark.parametrize(
    ("cells", "dtype", "users"),
    [
        ([12.0, math.nan, None], pl.Float64, [12, None, None]),
        ([12.0, math.nan, None], pl.Float32, [12, None, None]),
        ([12, None], pl.UInt64, [12, None]),
        ([decimal.Decimal("12.00"), None], pl.Decimal(10, 2), [12, None]),
        (["12.0", None], pl.Categorical, [12, None]),
        ([None, None], pl.Null, [None, None]),
    ],
)
def test_users_in_parquet(tmp_path, cells, dtype, users):
    frame = pl.DataFrame({"user_id": pl.Series(cells, dtype=dtype), "query": ["a"] * len(cells)})
    frame.write_parquet(tmp_path / "in.parquet")
    assert [user for _, user, _ in _read(tmp_path / "in.parquet")] == users


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([1.0, 1.5], r"request 2, column user_id: 1\.5, expected a raw user id"),
        ([2.0**60], "request 1, column user_id"),
        ([5, 2**63], f"request 2, column user_id: {2**63}"),
        ([None, False], "request 2, column user_id: False"),
        ([datetime.date(2024, 1, 1)], "request 1, column user_id"),
        (["1", "1e400"], "request 2, column user_id: '1e400'"),
        ([decimal.Decimal("1.5")], "request 1, column user_id"),
    ],
)
def test_users_that_are_none(tmp_path, cells, said):
    pl.DataFrame({"user_id": pl.Series(cells), "query": ["a"] * len(cells)}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadInput, match=said):
        _read(tmp_path / "in.parquet")


@pytest.mark.parametrize(
    ("cells", "dtype", "queries"),
    [
        ([[20, 34], []], pl.List(pl.Int32), [[20, 34], []]),
        ([[20.0, 34.0], None], pl.List(pl.Float64), [[20, 34], []]),
        ([["space", "20"]], pl.List(pl.String), [["space", "20"]]),
        ([[], []], pl.List(pl.Null), [[], []]),
        ([[20, 34]], pl.Array(pl.Int64, 2), [[20, 34]]),
        ([20, None], pl.Int64, [[20], []]),
        ([20.0, math.nan], pl.Float64, [[20], []]),
        (["space", None, " "], pl.Categorical, ["space", "", ""]),
        ([None], pl.Null, [""]),
    ],
)
def test_queries_in_parquet(tmp_path, cells, dtype, queries):
    frame = pl.DataFrame({"user_id": [1] * len(cells), "query": pl.Series(cells, dtype=dtype)})
    frame.write_parquet(tmp_path / "in.parquet")
    assert [query for _, _, query in _read(tmp_path / "in.parquet")] == queries


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([[1], [2.5]], r"request 2, column query: '\[2\.5\]', expected words or a list such as \[20, 34\]"),
        ([[1.0, None]], "request 1, column query"),
        ([["a", None]], "request 1, column query"),
        ([[math.nan]], "request 1, column query"),
        ([[True]], "request 1, column query"),
        ([[[1]]], "request 1, column query"),
        ([2.5], "request 1, column query"),
    ],
)
def test_queries_that_are_none(tmp_path, cells, said):
    frame = pl.DataFrame({"user_id": [1] * len(cells), "query": pl.Series(cells, strict=False)})
    frame.write_parquet(tmp_path / "in.parquet")
    with pytest.raises(BadInput, match=said):
        _read(tmp_path / "in.parquet")


def test_queries_in_text(tmp_path):
    text = 'user_id,query\n1," Space, Comedy! "\n1,"[20, 34]"\n1,"[20.0, 34.0]"\n1,[20 34]\n1,\n1,null\n1,[]\n1,20 34\n'
    queries = ["Space, Comedy!", [20, 34], [20, 34], [20, 34], "", "null", [], "20 34"]
    assert [query for _, _, query in _csv(tmp_path / "in.csv", text)] == queries


def test_a_mark_of_order_blanks_in_the_header_and_empty_rows(tmp_path):
    text = '\ufeff user_id , query ,note\n\n12,a,x\n,,\n"","",""\n13,b,\n\n'
    assert _csv(tmp_path / "in.csv", text) == [("1", 12, "a"), ("2", 13, "b")]
    assert sum(block.blank for block in read_requests(tmp_path / "in.csv")) == 2
    assert _csv(tmp_path / "in.csv", "user_id,query,note\n,,x\n") == [("1", None, "")]


@pytest.mark.parametrize("line", ["13,b", '13,"b"c,', "13,b,x,y", '13,"never'])
def test_a_record_that_cannot_be_parsed_is_refused_with_its_line(line, tmp_path):
    """And never the ones behind it."""
    with pytest.raises(BadInput, match=r"in\.csv, row 3: .*expected"):
        _csv(tmp_path / "in.csv", f"user_id,query,note\n12,a,x\n{line}\n14,c,z\n")


def test_many_empty_rows(tmp_path):
    text = "user_id,query\n" + ",\n" * (3 * BLOCK) + "12,a\n"
    assert _csv(tmp_path / "in.csv", text) == [("1", 12, "a")]
    with pytest.raises(BadInput, match="no request in it"):
        _csv(tmp_path / "in.csv", "user_id,query\n,\n")


def test_requests_without_an_id_are_numbered(tmp_path):
    """By their place; the number of another one's id gives way."""
    ids = ["", "x", "NaN", "1", "", "3-2", "", "7-2"]
    found = _csv(tmp_path / "in.csv", "user_id,query,request_id\n" + "".join(f"1,a,{one}\n" for one in ids))
    assert [key for key, _, _ in found] == ["1-2", "x", "3", "1", "5", "3-2", "7", "7-2"]
    found = _csv(tmp_path / "in.csv", "user_id,query,request_id\n1,a,\n1,a,\n1,a,1\n1,a,1-2\n1,a,2\n")
    assert [key for key, _, _ in found] == ["1-3", "2-2", "1", "1-2", "2"]


@pytest.mark.parametrize(
    ("cells", "keys"),
    [
        ([5, None, 2], ["5", "2-2", "2"]),
        ([5.0, math.nan, 2.0, 0.5], ["5", "2-2", "2", "0.5"]),
        ([None, None], ["1", "2"]),
    ],
)
def test_ids_in_parquet(tmp_path, cells, keys):
    frame = pl.DataFrame({"user_id": [1] * len(cells), "query": ["a"] * len(cells), "request_id": cells})
    frame.write_parquet(tmp_path / "in.parquet")
    assert [key for key, _, _ in _read(tmp_path / "in.parquet")] == keys


def test_a_number_given_in_a_later_block_gives_way(tmp_path, monkeypatch):
    monkeypatch.setattr(requests_file, "BLOCK", 2)
    found = _csv(tmp_path / "in.csv", "user_id,query,request_id\n" + "1,a,\n" * 5 + "1,a,2\n")
    assert [key for key, _, _ in found] == ["1", "2-2", "3", "4", "5", "2"]


def test_an_id_for_the_second_time_is_named_by_its_request(tmp_path):
    with pytest.raises(BadInput, match=r"request 3, column request_id: 'x' for the second time, expected one each"):
        _csv(tmp_path / "in.csv", "user_id,query,request_id\n1,a,x\n\n1,a,\n1,a, x\n")
