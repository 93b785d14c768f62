"""Every way to hand over a log gives the same tables, and cells mean what the schema says."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.store import LogStore
from pr2_jax.data.tables import LogTables, read_log


def same(one: LogTables, other: LogTables) -> bool:
    frames = ("feed", "search", "users", "social", "videos", "words")
    assert all(getattr(one, name).equals(getattr(other, name)) for name in frames)
    assert one.queries.equals(other.queries)
    assert (one.sources, one.start_ms, one.end_ms) == (other.sources, other.start_ms, other.end_ms)
    return LogStore.from_tables(one).fingerprint == LogStore.from_tables(other).fingerprint


@pytest.fixture
def tables(tiny_dir) -> LogTables:
    return read_log(tiny_dir, DataConfig())


@pytest.mark.parametrize("inside", ["", "KuaiSAR_v2/"])
def test_zip_equals_directory(inside, tables, tiny_dir, tmp_path):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("__MACOSX/._rec_inter.csv", "not a table")
        for file in tiny_dir.iterdir():
            archive.write(file, inside + file.name)
    assert same(tables, read_log(tmp_path / "log.zip", DataConfig()))


def test_nested_directory_equals_directory(tables, tiny, tmp_path):
    tiny.write(tmp_path / "outer" / "KuaiSAR_v2")
    assert same(tables, read_log(tmp_path / "outer", DataConfig()))


def as_parquet(log: Path, table: str, typed: bool) -> None:
    """Rewrites a table as Parquet, of text or of proper types."""
    frame = pl.read_csv(log / f"{table}.csv", infer_schema=False)
    if typed:
        lists = [name for name in ("keyword", "caption") if name in frame.columns]
        text = [*lists, "search_source", "item_type", "upload_time", "upload_type"]
        text += ["time", "search_session_time", "word"]
        numbers = [name for name in frame.columns if name not in text and not name.endswith(("name", "name_en"))]
        frame = frame.with_columns(
            *(pl.col(name).str.extract_all(r"\d+").cast(pl.List(pl.Int32)) for name in lists),
            *(pl.col(name).cast(pl.Float64) for name in numbers),
        )
    frame.write_parquet(log / f"{table}.parquet")
    (log / f"{table}.csv").unlink()


@pytest.mark.parametrize("typed", [False, True])
def test_parquet_equals_csv(typed, tables, tiny_dir):
    for table in ("rec_inter", "src_inter", "user_features", "social_network", "item_features", "words"):
        as_parquet(tiny_dir, table, typed)
    assert same(tables, read_log(tiny_dir, DataConfig()))


def test_parquet_of_real_dates(tables, tiny_dir):
    frame = pl.read_csv(tiny_dir / "item_features.csv", infer_schema=False)
    dates = ["2023-04-22 00:00:00", "1970-01-01 00:00:00", "2023-05-01 08:30:00", "2023-04-20 22:13:20"]
    moments = pl.Series([dates[int(video) % 4] for video in frame["item_id"]]).str.to_datetime()
    frame.with_columns(moments.alias("upload_time")).write_parquet(tiny_dir / "item_features.parquet")
    (tiny_dir / "item_features.csv").unlink()
    assert same(tables, read_log(tiny_dir, DataConfig()))


def test_spelling_of_numbers_does_not_matter(tables, tiny, tmp_path):
    tiny.put_all("rec_inter", "user_id", [f" {cell}.0" for cell in tiny.column("rec_inter", "user_id")])
    tiny.put_all("src_inter", "keyword", [cell.replace(", ", ",") for cell in tiny.column("src_inter", "keyword")])
    times = [f"{int(cell):.12e}" for cell in tiny.column("src_inter", "search_session_timestamp")]
    tiny.put_all("src_inter", "search_session_timestamp", times)
    assert same(tables, read_log(tiny.write(tmp_path / "again"), DataConfig()))


def test_byte_order_mark_and_crlf(tables, tiny_dir):
    path = tiny_dir / "rec_inter.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert same(tables, read_log(tiny_dir, DataConfig()))


def test_other_types_are_counted_and_left_out(tables, tiny):
    count = tables.counts["src_inter.csv"]
    assert count.left_out == {"LIVE": 27, "USER": 27}
    assert (count.read, count.kept, count.quarantined) == (480, 480 - 54, 0)
    kinds = tiny.column("src_inter", "item_type")
    ids = np.array(tiny.column("src_inter", "item_id"), np.int64)
    kept = np.isin(kinds, ["VIDEO", "IMAGE_ATLAS"])
    np.testing.assert_array_equal(tables.search["video"], ids[kept])
    # The position counts every result, as the person saw them.
    np.testing.assert_array_equal(tables.search["position"], (np.arange(480) % 6)[kept])


def test_results_left_out_may_hold_anything(tables, tiny, tmp_path):
    for line, kind in enumerate(tiny.column("src_inter", "item_type"), start=2):
        if kind == "USER":
            tiny.put("src_inter", line, "item_id", "u_77")
            tiny.put("src_inter", line, "click_cnt", "")
    assert same(tables, read_log(tiny.write(tmp_path / "again"), DataConfig(max_bad_share=0.0)))


def test_a_later_row_of_a_left_out_type_still_ends_the_log(tables, tiny, tmp_path):
    last = str(tables.end_ms + 5000)
    tiny.tables["src_inter"].append(["101", "5000", "", last, "[1]", "USER_INPUT", "9", "1", "USER"])
    again = read_log(tiny.write(tmp_path / "again"), DataConfig())
    assert again.end_ms == int(last) + 1
    assert 5000 not in again.search["session"].to_list()


def test_upload_times(tables):
    upload = dict(tables.videos.select("video", "upload_ms").iter_rows())
    assert upload[4] == 1_682_092_800_000  # 2023-04-22 00:00 in Beijing
    assert upload[1] == 0  # 1970-1-1 pads
    assert upload[2] == 1_682_901_000_000  # 2023-05-01 08:30 in Beijing
    assert upload[3] == 1_682_000_000_000  # ms as they are


def test_old_films_are_older_than_1970(tiny, tmp_path):
    tiny.put("item_features", 2, "upload_time", "1936-02-05")
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    assert tables.videos["upload_ms"][0] == 1


def test_missing_and_padding_values(tables):
    videos = tables.videos.filter(pl.col("video").is_in([3, 4, 5, 7])).rows_by_key("video", named=True)
    assert videos[5][0]["author"] is None  # 0 pads
    assert videos[3][0]["author"] == 3
    assert [videos[v][0]["second_level_category_id"] for v in (3, 4, 5)] == [None, None, None]  # -1, 0, empty
    assert videos[7][0]["words"] == []
    assert videos[5][0]["kind"] is None
    assert tables.users["onehot_feat2"].null_count() == 11


def test_words_that_look_like_missing_are_words(tables):
    assert tables.words.filter(pl.col("word") == 39)["text"].to_list() == ["None"]


@pytest.mark.parametrize("absent", [True, False])
def test_social_network_may_be_absent_or_empty(absent, tables, tiny, tmp_path):
    tiny.tables["social_network"] = tiny.tables["social_network"][:1]
    log = tiny.write(tmp_path / "log2")
    if absent:
        (log / "social_network.csv").unlink()
        (log / "words.csv").unlink()
    again = read_log(log, DataConfig())
    assert again.social.columns == ["user", "follows"]
    assert len(again.social) == 0
    assert again.feed.equals(tables.feed)


def test_session_time_is_the_smallest_of_its_rows(tiny, tmp_path):
    first = int(tiny.tables["src_inter"][1][3])
    tiny.put("src_inter", 2, "search_session_timestamp", str(first + 700))
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    assert tables.search["time_ms"].to_list()[:4] == [first] * 4


def test_several_queries_in_a_session(tiny, tmp_path):
    tiny.put("src_inter", 4, "keyword", "[39, 40]")
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    assert tables.odd_sessions == 1
    assert tables.search["query"][:4].n_unique() == 1
