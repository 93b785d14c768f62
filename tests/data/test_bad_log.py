"""One test a message: a log that cannot be used ends in one line that says where, what, and what was expected."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.errors import BadInput


def refuse(path: Path, pattern: str, config: DataConfig | None = None) -> str:
    """The message of the refusal; one line, nothing written."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(BadInput) as caught:
        read_log(path, config or DataConfig())
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(pattern, message), message
    assert sorted(path.parent.rglob("*")) == before
    return message


def drop(tiny, table: str) -> None:
    del tiny.tables[table]


def rename_video(tiny) -> None:
    tiny.rename("src_inter", "item_id", "video_id")


def rename_two(tiny) -> None:
    rename_video(tiny)
    tiny.rename("src_inter", "click_cnt", "clicks")


def double_header(tiny) -> None:
    tiny.rename("rec_inter", "time", "timestamp")


def only_header(tiny) -> None:
    tiny.tables["src_inter"] = tiny.tables["src_inter"][:1]


def one_day(tiny) -> None:
    times = [str(1_684_737_000_000 + place * 1000) for place in range(len(tiny.tables["src_inter"]) - 1)]
    tiny.put_all("src_inter", "search_session_timestamp", times)


def two_days(tiny) -> None:
    """The first two of four days are gone."""
    rows = tiny.tables["src_inter"]
    early = max(int(row[3]) for row in rows[1:]) - 2 * 86_400_000
    tiny.tables["src_inter"] = rows[:1] + [row for row in rows[1:] if int(row[3]) > early]


def seconds(tiny) -> None:
    tiny.put_all("rec_inter", "timestamp", [cell[:10] for cell in tiny.column("rec_inter", "timestamp")])


def nothing_to_search(tiny) -> None:
    tiny.put_all("src_inter", "item_type", ["USER"] * (len(tiny.tables["src_inter"]) - 1))


def nobody_clicks(tiny) -> None:
    tiny.put_all("src_inter", "click_cnt", ["0"] * (len(tiny.tables["src_inter"]) - 1))


def nobody_clicks_at_the_end(tiny) -> None:
    """No click on the last day."""
    times = [int(time) for time in tiny.column("src_inter", "search_session_timestamp")]
    clicks = tiny.column("src_inter", "click_cnt")
    late = max(times) + 1 - 86_400_000
    tiny.put_all("src_inter", "click_cnt", ["0" if t >= late else c for t, c in zip(times, clicks, strict=True)])


def one_search_years_ahead(tiny) -> None:
    """The last day of the log is its day, on which nobody clicked anything."""
    tiny.put("src_inter", 6, "search_session_timestamp", "1900000000000")
    tiny.put("src_inter", 6, "click_cnt", "0")


STRUCTURE: dict[str, tuple[Callable, str]] = {
    "missing table": (lambda log: drop(log, "src_inter"), r"has no src_inter\.csv"),
    "renamed column": (rename_video, r"src_inter\.csv has no column 'item_id', did you mean 'video_id'\?"),
    "two renamed columns": (
        rename_two,
        r"no column 'item_id', .* and no column 'click_cnt'.*'item_id=NAME,click_cnt=NAME'",
    ),
    "duplicated header": (double_header, r"rec_inter\.csv, row 1: column 'timestamp' stands twice .*places 5, 6"),
    "empty table": (only_header, r"src_inter\.csv has a header but no rows"),
    "one day": (one_day, r"no search session before the validation day; the searches span 0\.0 days"),
    "two days": (two_days, r"no search session before the validation day; .* expected at least 3 days with searches"),
    "seconds": (seconds, r"rec_inter\.csv, row 2, column timestamp: found '\d{10}', which is seconds since 1970"),
    "no click": (nobody_clicks, r"src_inter: column click_cnt: no result was clicked before the validation day"),
    "no click at last": (nobody_clicks_at_the_end, r"column click_cnt: no result was clicked on the test day"),
    "years ahead": (one_search_years_ahead, r"latest search is src_inter\.csv, row 6, of 2030-03-17 17:46:40"),
    "only left-out types": (nothing_to_search, r"column item_type: found 'USER', as no other row has VIDEO or IMAGE"),
}


@pytest.mark.parametrize("fault", STRUCTURE)
def test_structure_fails_at_once(fault, tiny, tmp_path):
    spoil, pattern = STRUCTURE[fault]
    spoil(tiny)
    refuse(tiny.write(tmp_path / "log"), pattern)


def test_missing_table_suggests_the_nearest_file(tiny_dir):
    (tiny_dir / "src_inter.csv").rename(tiny_dir / "src_intr.csv")
    refuse(tiny_dir, r"has no src_inter\.csv .*did you mean src_intr\.csv\?")


def test_missing_place(tmp_path):
    refuse(tmp_path / "nowhere", r"nowhere: no such file or directory")


def test_file_that_is_no_log(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path / "notes.txt", r"neither a directory nor a zip")


def test_file_without_a_byte(tiny_dir):
    (tiny_dir / "rec_inter.csv").write_bytes(b"")
    refuse(tiny_dir, r"rec_inter\.csv is empty, expected a header line")


def test_two_copies_of_a_table(tiny_dir):
    (tiny_dir / "rec_inter.parquet").write_bytes(b"")
    refuse(tiny_dir, r"holds both rec_inter\.csv and rec_inter\.parquet")


def test_two_logs_in_one_directory(tiny, tmp_path):
    for name in ("KuaiSAR_v2", "KuaiSAR-small"):
        tiny.write(tmp_path / "both" / name)
    refuse(tmp_path / "both", r"holds 2 logs \(KuaiSAR-small, KuaiSAR_v2\): name one")


def test_broken_parquet(tiny_dir):
    (tiny_dir / "rec_inter.csv").unlink()
    (tiny_dir / "rec_inter.parquet").write_bytes(b"PAR1 but not really")
    refuse(tiny_dir, r"rec_inter\.parquet is not a readable Parquet file")


CELLS = {
    "word list": ("src_inter", "keyword", "[3, four]", "a list of word ids such as"),
    "caption": ("item_features", "caption", "[1 2", "a list of word ids such as"),
    "negative time": ("rec_inter", "timestamp", "-5", "between the years 2000 and 2100"),
    "absurd time": ("src_inter", "search_session_timestamp", "99999999999999", "between the years 2000 and 2100"),
    "stray seconds": ("rec_inter", "timestamp", "1684737014", "which is seconds since 1970, expected ms"),
    "play time": ("rec_inter", "playing_time", "-0.6", "a number of ms >= 0"),
    "no clicks": ("src_inter", "click_cnt", "", "a whole number >= 0"),
    "infinite play time": ("rec_inter", "playing_time", "inf", "a number of ms >= 0"),
    "flag": ("rec_inter", "like", "2", "0 or 1"),
    "user": ("rec_inter", "user_id", "1.5", "a whole number"),
    "nobody": ("src_inter", "user_id", "-1", "an id, a whole number >= 0"),
    "no video": ("rec_inter", "item_id", "-7", "an id, a whole number >= 0"),
    "clicks": ("src_inter", "click_cnt", "-1", "a whole number >= 0"),
    "date": ("item_features", "upload_time", "yesterday", "a date such as"),
    "item twice": ("item_features", "item_id", "1", "which an earlier row already has"),
}


@pytest.mark.parametrize("fault", CELLS)
def test_bad_cell_names_the_first_row_and_the_share(fault, tiny, tmp_path):
    table, column, value, expected = CELLS[fault]
    tiny.put(table, 5, column, value)
    rows = len(tiny.tables[table]) - 1
    found = "nothing" if value == "" else re.escape(repr(value))
    where = rf"^{table}\.csv, row 5, column {column}: found {found}"
    pattern = rf"{where}, .*{re.escape(expected)}.*; 1 of {rows} rows .* are bad"
    refuse(tiny.write(tmp_path / "log"), pattern, DataConfig(max_bad_share=0.0))


def test_stray_bad_rows_are_set_aside(tiny, tmp_path):
    tiny.put("rec_inter", 9, "playing_time", "-3")
    tiny.put("rec_inter", 4, "like", "maybe")
    log = tiny.write(tmp_path / "log")
    tables = read_log(log, DataConfig())
    assert tables.counts["rec_inter.csv"].quarantined == 2
    assert len(tables.feed) == 298
    assert tables.quarantined.write_csv().splitlines() == [
        "table,line,column,value,reason",
        'rec_inter.csv,4,like,maybe,"expected 0 or 1 (or true, false), or nothing"',
        'rec_inter.csv,9,playing_time,-3,"expected a number of ms >= 0, or nothing"',
    ]
    with pytest.raises(BadInput, match=r"row 4, column like: found 'maybe'.*; 2 of 300 rows \(0\.67%\) are bad"):
        read_log(log, DataConfig(max_bad_share=0.006))


def test_a_row_with_too_few_cells_is_a_bad_row(tiny_dir):
    path = tiny_dir / "src_inter.csv"
    lines = path.read_text().splitlines()
    lines[10] = lines[10].rsplit(",", 4)[0]
    path.write_text("\n".join(lines) + "\n")
    tables = read_log(tiny_dir, DataConfig())
    assert tables.quarantined.rows() == [("src_inter.csv", 11, "", lines[10], "5 cells, expected 9")]


def zipped(log: Path, target: Path, names: Callable[[str], str] = lambda name: f"KuaiSAR/{name}") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(log.iterdir()):
            archive.writestr(names(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return target


def test_truncated_zip(tiny_dir, tmp_path):
    whole = zipped(tiny_dir, tmp_path / "whole.zip")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:5000])
    refuse(cut, r"cut\.zip is a truncated or damaged zip")


def test_damaged_member(tiny_dir, tmp_path):
    whole = zipped(tiny_dir, tmp_path / "whole.zip")
    data = bytearray(whole.read_bytes())
    data[400:440] = bytes(40)
    whole.write_bytes(data)
    refuse(whole, r"whole\.zip is a truncated or damaged zip")


@pytest.mark.parametrize("name", ["../rec_inter.csv", "KuaiSAR/../../rec_inter.csv", "..\\rec_inter.csv"])
def test_member_that_climbs_out(name, tiny_dir, tmp_path):
    bad = zipped(tiny_dir, tmp_path / "bad.zip", lambda file: name if file == "rec_inter.csv" else file)
    refuse(bad, r"climbs out of the directory; refused, nothing was unpacked")


@pytest.mark.parametrize("name", ["/tmp/rec_inter.csv", "C:\\rec_inter.csv"])
def test_absolute_member(name, tiny_dir, tmp_path):
    bad = zipped(tiny_dir, tmp_path / "bad.zip", lambda file: name if file == "rec_inter.csv" else file)
    refuse(bad, r"has an absolute path; refused, nothing was unpacked")


def test_zip_without_a_log(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuse(tmp_path / "other.zip", r"has no src_inter\.csv")


CONTENT = {
    "NaN": (np.array([[1, 2], [3, np.nan]], np.float32), [1, 2], r"row 1, column 1: found nan \(item 2\), .* finite"),
    "one axis": (np.ones(4, np.float32), [1, 2], r"content\.npy is float32 \[4\], expected float \[videos, width\]"),
    "no width": (np.ones((2, 0), np.float32), [1, 2], r"content\.npy is float32 \[2, 0\]"),
    "whole numbers": (np.ones((2, 3), np.int32), [1, 2], r"content\.npy is int32"),
    "other length": (np.ones((3, 2), np.float32), [1, 2], r"has 3 rows but content_ids\.npy has 2"),
    "id twice": (np.ones((2, 2), np.float32), [5, 5], r"content_ids\.npy, row 1: item 5 stands twice"),
    "ids as text": (np.ones((2, 2), np.float32), ["1", "2"], r"content_ids\.npy is <U1 \[2\], expected whole numbers"),
}


@pytest.mark.parametrize("fault", CONTENT)
def test_content(fault, tiny, tmp_path):
    vectors, ids, pattern = CONTENT[fault]
    tiny.arrays = {"content.npy": vectors, "content_ids.npy": np.array(ids)}
    refuse(tiny.write(tmp_path / "log"), pattern)


def test_content_without_ids(tiny, tmp_path):
    tiny.arrays = {"content.npy": np.ones((2, 2), np.float32)}
    refuse(tiny.write(tmp_path / "log"), r"has content\.npy but no content_ids\.npy")


def test_truncated_content(tiny, tmp_path):
    tiny.arrays = {"content.npy": np.ones((20, 8), np.float32), "content_ids.npy": np.arange(20)}
    log = tiny.write(tmp_path / "log")
    (log / "content.npy").write_bytes((log / "content.npy").read_bytes()[:200])
    refuse(log, r"content\.npy is not a readable \.npy array")


def test_two_logs_in_a_zip(tiny, tmp_path):
    for name in ("a", "b"):
        tiny.write(tmp_path / "both" / name)
    refuse(
        Path(shutil.make_archive(str(tmp_path / "logs"), "zip", tmp_path / "both")), r"logs\.zip holds 2 logs \(a, b\)"
    )
