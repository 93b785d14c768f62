"""Every way to hand over a log gives the same tables, and cells mean what the schema says."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.config import ColumnsConfig, DataConfig, FilesConfig
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadConfig, BadInput


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


def sessions(tables: LogTables) -> list[tuple]:
    """(user, id, time, words) of every session, in the store's order."""
    store = LogStore.from_tables(tables)
    s, words = store.sessions, store.queries
    return [
        (
            int(store.users.raw_id[s.user[row]]),
            int(s.raw_id[row]),
            int(s.time_ms[row]),
            store.words.raw_id[
                words.words[words.first_word[s.query[row]] : words.first_word[s.query[row] + 1]]
            ].tolist(),
        )
        for row in range(len(s.raw_id))
    ]


def test_a_session_is_person_id_time_and_query(tiny, tmp_path):
    """Rows that differ in one of the four are of another session, also where their id was used before."""
    first = tiny.tables["src_inter"][1]
    later = str(int(first[3]) + 5 * 3_600_000)
    others = [(0, "112"), (1, "77"), (3, later), (4, "[39, 40]")]
    for place, value in others:
        row = list(first)
        row[place] = value
        tiny.tables["src_inter"].append(row)
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    assert tables.written["sessions"] == 84
    assert tables.written["reused_ids"] == 2  # the time and the query: other people may have equal ids
    found = sessions(tables)
    assert len(found) == 84
    said = (int(first[0]), int(first[1]), int(first[3]), [int(word) for word in first[4].strip("[]").split(", ")])
    for place, value in ((0, 112), (1, 77), (2, int(later)), (3, [39, 40])):
        changed = list(said)
        changed[place] = value
        assert found.count(tuple(changed)) == 1


def test_rows_of_a_session_may_stand_anywhere(tables, tiny, tmp_path):
    """Only the order among them counts."""
    header, *rows = tiny.tables["src_inter"]
    tiny.tables["src_inter"] = [header, *sorted(rows, key=lambda row: (int(row[1]) * 7919 % 101, row[1]))]
    again = read_log(tiny.write(tmp_path / "again"), DataConfig())
    assert LogStore.from_tables(again).fingerprint == LogStore.from_tables(tables).fingerprint


def test_a_video_twice_in_a_session_has_its_first_place_and_any_click(tiny, tmp_path):
    rows = tiny.tables["src_inter"]
    rows.insert(7, [*rows[2][:7], str(1 - int(rows[2][7])), "IMAGE_ATLAS"])
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    session = int(np.flatnonzero(np.asarray(store.sessions.raw_id) == int(rows[2][1]))[0])
    shown = slice(*store.sessions.first_impression[session : session + 2])
    video = np.asarray(store.impressions.video)[shown].tolist()
    row = int(store.video_rows(np.array([int(rows[2][6])]))[0])
    assert video.count(row) == 1
    assert store.impressions.clicks[shown][video.index(row)] == 1


def test_exact_repeats_are_dropped_and_counted(tables, tiny, tmp_path):
    for name, count in (("rec_inter", 20), ("item_features", 5), ("user_features", 2), ("src_inter", 3)):
        tiny.tables[name] += [list(row) for row in tiny.tables[name][1 : count + 1]]
    again = read_log(tiny.write(tmp_path / "again"), DataConfig(max_bad_share=0.0))
    assert same(tables, again)
    assert {name: count.repeats for name, count in again.counts.items() if count.repeats} == {
        "rec_inter.csv": 20,
        "item_features.csv": 5,
        "user_features.csv": 2,
        "src_inter.csv": 3,
    }
    for count in again.counts.values():
        assert count.read == count.kept + count.repeats + count.quarantined + sum(count.left_out.values())


V2 = {"src_inter": {"search_source": "search_session_source", "search_session_time": "time"}}
SMALL = {"user_features": {"rec_active_level": "reco_active_level"}}


@pytest.mark.parametrize("release", [V2, SMALL], ids=["v2", "small"])
def test_names_of_the_public_releases(release, tables, tiny, tmp_path):
    for table, names in release.items():
        for ours, theirs in names.items():
            tiny.rename(table, ours, theirs)
    assert same(tables, read_log(tiny.write(tmp_path / "again"), DataConfig()))


def test_an_odd_table_that_no_stage_needs_is_left_out(tables, tiny, tmp_path):
    tiny.tables["social_network"] = [["user", "friends"], ["101", "[102, 103]"]]
    again = read_log(tiny.write(tmp_path / "again"), DataConfig())
    assert len(again.social) == 0
    assert "has no column 'user_id'" in again.left_out["social_network"]
    assert again.feed.equals(tables.feed)


ABSENT = ("rec_inter", "user_features", "item_features")


@pytest.mark.parametrize("absent", [*((name,) for name in ABSENT), ABSENT])
def test_tables_that_may_be_absent(absent, tables, tiny, tmp_path):
    for name in absent:
        del tiny.tables[name]
    again = read_log(tiny.write(tmp_path / "again"), DataConfig())
    assert again.search.drop("query").equals(tables.search.drop("query"))
    assert LogStore.from_tables(again).counts.sessions == 80


def test_own_names_units_and_text(tables, tiny, tmp_path):
    """A log of other names, in seconds, with words as text, gives the same store but for word ids."""
    words = dict(tiny.tables["words"][1:])
    for table, column in (("src_inter", "keyword"), ("item_features", "caption")):
        cells = [cell.strip("[]").split(", ") for cell in tiny.column(table, column)]
        tiny.put_all(table, column, [", ".join(words.get(w, f"x{w}") for w in cell if w).upper() for cell in cells])
        tiny.rename(table, column, "text")
    times = [f"{int(float(cell)) / 1000:.3f}" for cell in tiny.column("rec_inter", "timestamp")]
    tiny.put_all("rec_inter", "timestamp", times)
    tiny.rename("rec_inter", "timestamp", "ts")
    tiny.rename("src_inter", "user_id", "who")
    log = tiny.write(tmp_path / "own")
    (log / "rec_inter.csv").rename(log / "watch_events.csv")
    config = DataConfig(
        files=FilesConfig(rec_inter="watch_events"),
        columns=ColumnsConfig(
            rec_inter="timestamp=ts in s",
            src_inter="user_id = who, keyword=text as text",
            item_features="caption=text as text",
        ),
    )
    again = read_log(log, config)
    assert again.feed.equals(tables.feed)
    assert again.search.drop("query").equals(tables.search.drop("query"))
    assert again.videos["words"].list.len().equals(tables.videos["words"].list.len())


def test_text_without_words_csv(tiny, tmp_path):
    del tiny.tables["words"]
    tiny.put_all("item_features", "caption", ["Space-Comedy! 喜剧" for _ in tiny.column("item_features", "caption")])
    tiny.put_all("src_inter", "keyword", ["space" for _ in tiny.column("src_inter", "keyword")])
    columns = ColumnsConfig(src_inter="keyword as text", item_features="caption as text")
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig(columns=columns))
    text = dict(tables.words.iter_rows())
    assert [text[word] for word in tables.videos["words"][0]] == ["space", "comedy", "喜", "剧"]
    assert [text[word] for word in tables.queries[0]] == ["space"]


BAD_MAPPINGS = {
    "no such column": (
        "user_id=usr",
        r"rec_inter\.csv has no column 'usr', which data\.columns\.rec_inter says is user_id",
    ),
    "not ours": ("user=user_id", r"data\.columns\.rec_inter: rec_inter has no column 'user', did you mean 'user_id'\?"),
    "twice": ("like=a, like=b", r"names 'like' twice"),
    "one for two ids": ("item_id=user_id", r"rec_inter takes column 'user_id' for user_id and for item_id"),
    "no unit": ("like=like in s", r"like is 0 or 1 .*: it has no unit"),
    "no words": ("like=like as text", r"only keyword and caption can be text"),
    "unreadable": ("= ts", r"cannot be read"),
    "wrong unit": ("timestamp in s", r"row 2, column timestamp: found '\d+\.0', which is ms since 1970, where data"),
}


@pytest.mark.parametrize("fault", BAD_MAPPINGS)
def test_a_mapping_that_does_not_fit(fault, tiny_dir):
    mapping, pattern = BAD_MAPPINGS[fault]
    with pytest.raises((BadInput, BadConfig), match=pattern):
        read_log(tiny_dir, DataConfig(columns=ColumnsConfig(rec_inter=mapping)))


def test_an_alias_and_its_column_in_one_file(tiny, tmp_path):
    for table in tiny.tables["user_features"]:
        table.append("1")
    tiny.tables["user_features"][0][-1] = "reco_active_level"
    with pytest.raises(BadInput, match=r"2 columns for rec_active_level: rec_active_level .*, reco_active_level"):
        read_log(tiny.write(tmp_path / "log"), DataConfig())


def test_without_a_click_column_a_valid_play_is_a_click(tiny, tmp_path):
    place = tiny.tables["rec_inter"][0].index("click")
    plays = [(float(row[2]), float(row[3])) for row in tiny.tables["rec_inter"][1:]]
    for row in tiny.tables["rec_inter"]:
        del row[place]
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    wanted = [play >= length if length <= 7_000 else round(play) > 7_000 for play, length in plays]
    assert tables.feed["click"].to_list() == wanted
