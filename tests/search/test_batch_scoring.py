"""`pr2 score`: files of requests in, ranked results out, and everything that can be wrong with a file."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.cli import entry
from pr2_jax.search import batch_scoring
from pr2_jax.search.requests_file import BLOCK

K = 5


@pytest.fixture
def asked(engine, watcher, known_query) -> pl.DataFrame:
    """A known person, a stranger, nobody, no words, no known word; words as text, as ids."""
    store = engine.system.store
    ids = [int(store.words.raw_id[row]) for row in store.word_rows(known_query.split())]
    some = int(store.users.raw_id[3])
    rows = [
        ("a", watcher, known_query),
        ("b", 987_654_321, known_query),
        ("c", None, known_query.split()[0]),
        ("d", some, ""),
        ("e", some, "zzqqxx"),
        ("f", some, str(ids)),
    ]
    return pl.DataFrame(rows, schema={"request_id": pl.String, "user_id": pl.Int64, "query": pl.String}, orient="row")


@pytest.fixture
def score(engine, finished, monkeypatch):
    """Scores into a file with the engine that is open already."""
    monkeypatch.setattr(batch_scoring.SearchEngine, "load", lambda workdir: engine)
    return lambda requests, out, k=K: batch_scoring.score_file(finished, requests, out, k)


def _trec(path: Path) -> list[tuple[str, int, int, float]]:
    with path.open(encoding="utf-8") as file:
        lines = [line.split() for line in file]
    assert all(line[1] == "Q0" and line[5] == "pr2" and len(line) == 6 for line in lines)
    return [(line[0], int(line[3]), int(line[2]), float(line[4])) for line in lines]


def test_every_way_in_and_out_agrees(score, asked, tmp_path):
    asked.write_csv(tmp_path / "in.csv")
    asked.write_parquet(tmp_path / "in.parquet")
    for source in ("csv", "parquet"):
        for target in ("parquet", "run"):
            score(tmp_path / f"in.{source}", tmp_path / f"{source}.{target}")
    assert (tmp_path / "csv.run").read_bytes() == (tmp_path / "parquet.run").read_bytes()
    by_csv, by_parquet = (pl.read_parquet(tmp_path / f"{source}.parquet") for source in ("csv", "parquet"))
    assert by_csv.equals(by_parquet)
    columns = by_csv.select("request_id", "rank", "video_id", "score").rows()
    assert [row[:3] for row in columns] == [row[:3] for row in _trec(tmp_path / "csv.run")]
    for ours, line in zip(columns, _trec(tmp_path / "csv.run"), strict=True):
        assert np.float32(ours[3]) == np.float32(line[3])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["in.csv", "in.parquet", "csv.run", "csv.parquet", "parquet.run", "parquet.parquet"]
    )


def test_results_are_those_of_the_engine(score, engine, asked, tmp_path):
    asked.write_csv(tmp_path / "in.csv")
    score(tmp_path / "in.csv", tmp_path / "out.parquet")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["request_id"].unique(maintain_order=True).to_list() == asked["request_id"].to_list()
    for key, user, query in asked.rows():
        part = out.filter(pl.col("request_id") == key)
        words = [int(word) for word in query[1:-1].split(",")] if query.startswith("[") else query
        found = engine.search(user, words, K).results
        assert part["rank"].to_list() == list(range(1, K + 1))
        assert part["video_id"].to_list() == [result.video_id for result in found]
        np.testing.assert_allclose(part["score"], [result.score for result in found], atol=1e-4)
        for head in ("click", "long_play", "like"):
            np.testing.assert_allclose(part[f"p_{head}"], [result.heads[head] for result in found], atol=1e-4)
        for channel in engine.searcher.channels:
            assert part[f"by_{channel}"].to_list() == [channel in result.channels for result in found]


def test_the_unknown_are_served_and_counted(score, asked, tmp_path, capsys):
    asked.write_csv(tmp_path / "in.csv")
    score(tmp_path / "in.csv", tmp_path / "out.run")
    said = capsys.readouterr().err
    assert "6 requests, 2 unknown users, 1 empty queries, 1 queries without a known word;" in said
    with (tmp_path / "in.csv").open("a") as file:
        file.write("\n,,\ng,,!?\n")
    score(tmp_path / "in.csv", tmp_path / "out.run")
    said = capsys.readouterr().err
    assert "7 requests, 3 unknown users, 2 empty queries, 1 queries without a known word, 1 empty rows passed" in said


def test_lists_of_words_in_parquet(score, engine, known_query, tmp_path):
    store = engine.system.store
    ids = [int(store.words.raw_id[row]) for row in store.word_rows(known_query.split())]
    frame = pl.DataFrame({"user_id": [1, 1], "query": [ids, []]}, schema_overrides={"query": pl.List(pl.Int64)})
    frame.write_parquet(tmp_path / "ids.parquet")
    frame.with_columns(query=pl.Series([known_query, ""])).write_parquet(tmp_path / "text.parquet")
    for name in ("ids", "text"):
        score(tmp_path / f"{name}.parquet", tmp_path / f"{name}.run")
    assert (tmp_path / "ids.run").read_bytes() == (tmp_path / "text.run").read_bytes()


def test_order_is_kept_across_blocks(score, engine, known_query, tmp_path):
    """More requests than a block, a few kinds of them in turn: same kind, same answer, in the file's order."""
    users = [int(raw) for raw in np.asarray(engine.system.store.users.raw_id)[1:8]]
    count = BLOCK + 17
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("user_id", "query"), *((users[n % 7], known_query) for n in range(count))]
        )  # fmt: skip
    score(tmp_path / "in.csv", tmp_path / "out.parquet", 20)
    score(tmp_path / "in.csv", tmp_path / "out.run", 20)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["request_id"].to_list() == [str(n) for n in range(1, count + 1) for _ in range(20)]
    assert [line[0] for line in _trec(tmp_path / "out.run")] == out["request_id"].to_list()
    ids = out["video_id"].to_numpy().reshape(count, 20)
    np.testing.assert_array_equal(ids, ids[np.arange(count) % 7])
    assert len(np.unique(ids[:7], axis=0)) > 1


BAD = {
    "no user column": ("in.csv", "user,query\n1,a\n", r"no column 'user_id' among user, query"),
    "no query column": ("in.csv", "user_id,words\n1,a\n", r"no column 'query' among user_id, words"),
    "a user that is none": ("in.csv", "user_id,query\n1,a\nBob,b\n", r"request 2, column user_id: 'Bob'"),
    "a user beyond 64 bits": ("in.csv", "user_id,query\n99999999999999999999,a\n", r"request 1, column user_id"),
    "a list that ends early": ("in.csv", 'user_id,query\n1,"[20, 34"\n', r"request 1, column query: '\[20, 34'"),
    "a list of text": ("in.csv", 'user_id,query\n1,"[a, b]"\n', r"request 1, column query"),
    "a list with halves": ("in.csv", 'user_id,query\n1,"[1.5]"\n', r"request 1, column query"),
    "a list with infinity": ("in.csv", 'user_id,query\n1,"[1e999]"\n', r"request 1, column query"),
    "a word id beyond 64 bits": ("in.csv", f'user_id,query\n1,"[{"9" * 30}]"\n', r"request 1, column query"),
    "an id for the second time": (
        "in.csv",
        "user_id,query,request_id\n1,a,x\n2,a,x\n",
        r"request 2, column request_id: 'x'",
    ),
    "no request": ("in.csv", "user_id,query\n", r"no request in it"),
    "an empty file": ("in.csv", "", r"in\.csv is empty, expected a header line"),
    "a row with too many fields": ("in.csv", "user_id,query\n1,a\n1,a,b,c\n", r"in\.csv, row 3: 4 cells, expected 2"),
    "UTF-16": ("in.csv", "user_id,query\n1,a\n".encode("utf-16"), r"in\.csv is UTF-16 text, expected UTF-8"),
    "no Parquet in it": ("in.parquet", "user_id,query\n1,a\n", r"in\.parquet is not a readable Parquet file"),
    "another ending": ("in.txt", "user_id,query\n1,a\n", r"\.csv, \.csv\.gz, \.csv\.zst or \.parquet, not \.txt"),
    "a column twice": ("in.csv", "user_id,query,user_id\n1,a,2\n", r"row 1: column 'user_id' stands twice"),
}


@pytest.mark.parametrize("suffix", ["parquet", "run"])
@pytest.mark.parametrize("case", BAD)
def test_bad_requests(score, finished, case, suffix, tmp_path, capsys):
    """One clear line, exit status 2, nothing half-written: also where the bad row comes after a block of good ones."""
    name, text, expected = BAD[case]
    source, out = tmp_path / name, tmp_path / f"out.{suffix}"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    arguments = ["score", "--workdir", str(finished), "--requests", str(source), "--out", str(out)]
    _refused(arguments, expected, capsys)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def _refused(arguments, expected, capsys):
    assert entry.main(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("pr2: error: ")
    assert re.search(expected, line), line


def test_a_bad_row_after_a_good_block(score, known_query, tmp_path):
    rows = [("user_id", "query"), *[(1, known_query)] * (BLOCK + 3), ("x", "y")]
    (tmp_path / "in.csv").write_text("".join(f"{user},{query}\n" for user, query in rows))
    for suffix in ("parquet", "run"):
        with pytest.raises(batch_scoring.BadInput, match=rf"request {BLOCK + 4}, column user_id: 'x'"):
            score(tmp_path / "in.csv", tmp_path / f"out.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_users_in_parquet_that_are_no_whole_numbers(score, tmp_path):
    for value in (12.5, math.inf, True, [1]):
        pl.DataFrame({"user_id": [value], "query": ["a"]}).write_parquet(tmp_path / "in.parquet")
        with pytest.raises(batch_scoring.BadInput, match="request 1, column user_id"):
            score(tmp_path / "in.parquet", tmp_path / "out.run")


def test_bad_places_for_the_result(score, finished, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("user_id,query\n1,a\n")
    (tmp_path / "taken.run").mkdir()
    for out, expected in (
        ("out.json", r"written as \.parquet or \.run, not \.json"),
        ("no/such/out.run", r"directory .*no/such does not exist"),
        ("taken.run", r"taken\.run: is a directory"),
    ):
        arguments = ["score", "--workdir", str(finished), "--requests", str(tmp_path / "in.csv"), "--out"]
        _refused([*arguments, str(tmp_path / out)], expected, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "taken.run"]


def test_an_older_result_survives_a_bad_file(score, tmp_path):
    (tmp_path / "in.csv").write_text("user_id,query\nBob,a\n")
    (tmp_path / "out.run").write_text("kept\n")
    with pytest.raises(batch_scoring.BadInput):
        score(tmp_path / "in.csv", tmp_path / "out.run")
    assert (tmp_path / "out.run").read_text() == "kept\n"
