"""A log is found as people have it: files, parts, partitions, packed, in a zip; and what cannot be read is said."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pr2_jax.config import DataConfig, FilesConfig
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.logs.sources import open_log
from pr2_jax.errors import BadInput

TABLE = "rec_inter"


def same(one: LogTables, other: LogTables) -> bool:
    return all(getattr(one, name).equals(getattr(other, name)) for name in ("feed", "search", "users", "videos"))


@pytest.fixture
def tables(tiny_dir) -> LogTables:
    return read_log(tiny_dir, DataConfig())


def packed(data: bytes, codec: str) -> bytes:
    """Two members, one behind the other, as engines write them."""
    half = len(data) // 2
    pack = gzip.compress if codec == "gz" else lambda part: pa.compress(part, "zstd", asbytes=True)
    return pack(data[:half]) + pack(data[half:])


def in_parts(log: Path, name: str, place: Callable[[int], str], count: int = 12) -> None:
    """Part files with a header each."""
    header, *rows = (log / f"{TABLE}.csv").read_bytes().splitlines(keepends=True)
    (log / f"{TABLE}.csv").unlink()
    for number in range(count):
        path = log / name / place(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = -(-len(rows) // count)
        path.write_bytes(b"".join([header, *rows[number * size : (number + 1) * size]]))
    (log / name / "_SUCCESS").write_bytes(b"")
    (log / name / ".part-0.csv.crc").write_bytes(b"\x00")
    (log / name / "part-99.csv").write_bytes(b"")


@pytest.mark.parametrize("suffix", ["csv.gz", "CSV.GZ", "csv.zst"])
def test_packed(suffix, tables, tiny_dir):
    path = tiny_dir / f"{TABLE}.csv"
    (tiny_dir / f"{TABLE}.{suffix}").write_bytes(packed(path.read_bytes(), suffix.lower().split(".")[1]))
    path.unlink()
    assert same(tables, read_log(tiny_dir, DataConfig()))


@pytest.mark.parametrize("name", [TABLE, f"{TABLE}.csv"])
@pytest.mark.parametrize("place", [lambda n: f"part-{n}.csv", lambda n: f"day={n:02}/hour=1/part-0.csv"])
def test_parts(name, place, tables, tiny_dir):
    in_parts(tiny_dir, name, place)
    assert same(tables, read_log(tiny_dir, DataConfig()))
    with zipfile.ZipFile(tiny_dir.parent / "log.zip", "w") as archive:
        for path in sorted(tiny_dir.rglob("*")):
            archive.write(path, Path("KuaiSAR_v2") / path.relative_to(tiny_dir))
    assert same(tables, read_log(tiny_dir.parent / "log.zip", DataConfig()))


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd", "lz4", "brotli", "uncompressed"])
def test_parquet_parts(codec, tables, tiny_dir):
    frame = pl.read_csv(tiny_dir / f"{TABLE}.csv")
    (tiny_dir / f"{TABLE}.csv").unlink()
    (tiny_dir / f"{TABLE}.parquet").mkdir()
    for number, part in enumerate(frame.iter_slices(100)):
        part.write_parquet(tiny_dir / f"{TABLE}.parquet" / f"part-{number}.{codec}.parquet", compression=codec)
    again = read_log(tiny_dir, DataConfig())
    assert same(tables, again)
    assert again.counts[TABLE].read == 300


def test_a_partition_column_is_a_column(tables, tiny, tmp_path):
    """`user_id=101/part-0.csv` whose file has no user."""
    log = tiny.write(tmp_path / "log")
    frame = pl.read_csv(log / f"{TABLE}.csv", infer_schema=False)
    (log / f"{TABLE}.csv").unlink()
    for (user,), rows in frame.group_by("user_id", maintain_order=True):
        place = log / TABLE / f"user_id={user}"
        place.mkdir(parents=True)
        rows.drop("user_id").write_csv(place / "part-0.csv")
    again = read_log(log, DataConfig())
    assert again.feed.sort("user", "time_ms").equals(tables.feed.sort("user", "time_ms"))


@pytest.mark.parametrize("codec", ["gz", "zst"])
def test_cut_short(codec, tiny_dir):
    path = tiny_dir / f"{TABLE}.csv"
    data = packed(path.read_bytes(), codec)
    path.unlink()
    for keep in (len(data) - 1, len(data) // 2 + 40, 10):
        (tiny_dir / f"{TABLE}.csv.{codec}").write_bytes(data[:keep])
        with pytest.raises(BadInput, match=rf"{TABLE}\.csv\.{codec}"):
            read_log(tiny_dir, DataConfig())


def test_parts_with_other_columns(tiny_dir):
    in_parts(tiny_dir, TABLE, lambda n: f"part-{n}.csv", 3)
    part = tiny_dir / TABLE / "part-1.csv"
    part.write_text(part.read_text().replace("click", "clicked", 1))
    with pytest.raises(BadInput, match=r"rec_inter/part-1\.csv lacks click and has clicked, unlike rec_inter/part-0"):
        read_log(tiny_dir, DataConfig())


def test_a_bad_row_is_named_by_its_part(tiny_dir):
    in_parts(tiny_dir, TABLE, lambda n: f"part-{n}.csv", 3)
    part = tiny_dir / TABLE / "part-2.csv"
    lines = part.read_text().splitlines()
    lines[4] = lines[4] + ",more"
    part.write_text("\n".join(lines))
    assert read_log(tiny_dir, DataConfig()).quarantined.rows() == [
        ("rec_inter/part-2.csv", 5, "", lines[4], "13 cells, expected 12")
    ]


def test_two_tables_in_one_file(tiny_dir):
    files = FilesConfig(rec_inter="src_inter")
    with pytest.raises(BadInput, match=r"src_inter\.csv is named for two tables"):
        read_log(tiny_dir, DataConfig(files=files))


def test_a_name_that_no_file_has(tiny_dir):
    shutil.move(tiny_dir / f"{TABLE}.csv", tiny_dir / "watched.csv")
    with pytest.raises(BadInput, match=r"has no 'wached'.*did you mean watched\.csv\?"):
        read_log(tiny_dir, DataConfig(files=FilesConfig(rec_inter="wached")))


def test_two_copies_of_what_no_stage_needs(tiny_dir):
    shutil.copy(tiny_dir / "social_network.csv", tiny_dir / "social_network.csv.gz")
    with open_log(tiny_dir) as found:
        assert "social_network" not in found.tables
        assert "holds both" in found.left_out["social_network"]


def test_csv_and_parquet_in_one_table(tiny_dir):
    in_parts(tiny_dir, TABLE, lambda n: f"part-{n}.csv", 2)
    pl.DataFrame({"user_id": [1]}).write_parquet(tiny_dir / TABLE / "part-7.parquet")
    with pytest.raises(BadInput, match="expected parts of one kind"):
        read_log(tiny_dir, DataConfig())


def batch(tiny, *views: tuple[str, str, str]) -> None:
    """One batch of a person of its own, handed out first: (playing_time, duration_ms, like) of each view."""
    header, *rows = tiny.tables[TABLE]
    time = str(min(int(float(row[5])) for row in rows) - 600_000)
    made = [["150", "3", play, length, "", time, "1", "0", like, "0", "0", "0"] for play, length, like in views]
    tiny.tables[TABLE] = [header, *made, *rows]


@pytest.mark.parametrize("bad", [("40000", "60000", "2"), ("-1", "40000", "0")])
def test_a_bad_row_takes_its_time_of_its_batch(bad, tiny, tmp_path):
    """It is no view, but what came behind it was watched later, and known later."""
    batch(tiny, bad, ("30000", "60000", "1"), ("5000", "60000", "0"))
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    mine = tables.feed.filter(pl.col("user") == 150)
    start = int(tiny.tables[TABLE][1][5])
    assert (mine["time_ms"] - start).to_list() == [40_000, 70_000]
    assert (mine["known_ms"] - start).to_list() == [70_000, 75_000]
    assert tables.counts[f"{TABLE}.csv"].quarantined == 1


def test_flags_in_words(tables, tiny, tmp_path):
    cells = tiny.column(TABLE, "like")
    tiny.put_all(TABLE, "like", [("false", "True")[int(cell)] for cell in cells])
    assert same(tables, read_log(tiny.write(tmp_path / "log2"), DataConfig()))


@pytest.mark.parametrize(
    ("dtype", "said"),
    [(pl.Float32, "cannot hold ms"), (pl.Date, "is Date"), (pl.Time, "is Time"), (pl.Duration, "is Dur")],
)
def test_types_that_are_no_time(dtype, said, tiny_dir):
    frame = pl.read_csv(tiny_dir / f"{TABLE}.csv")
    (tiny_dir / f"{TABLE}.csv").unlink()
    whole = pl.col("timestamp").cast(pl.Int64)
    spoilt = (
        whole.cast(pl.Float32)
        if dtype == pl.Float32
        else (whole % 86_400).cast(pl.Int32).cast(pl.Int64).cast(pl.Datetime("ms") if dtype == pl.Date else dtype)
    )
    spoilt = spoilt.cast(pl.Date) if dtype == pl.Date else spoilt
    frame.with_columns(spoilt.alias("timestamp")).write_parquet(tiny_dir / f"{TABLE}.parquet")
    with pytest.raises(BadInput, match=f"column timestamp: .*{said}"):
        read_log(tiny_dir, DataConfig())


def test_what_else_lies_there_is_said(tiny_dir):
    (tiny_dir / "rec_inter.tsv").write_text("a\tb\n")
    assert read_log(tiny_dir, DataConfig()).unread == ("rec_inter.tsv",)
    (tiny_dir / "user_features.csv").rename(tiny_dir / "user_featurs.csv")
    (tiny_dir / "notes.txt").write_text("notes")
    meant = "user_featurs.csv; did you mean user_features.csv?"
    assert read_log(tiny_dir, DataConfig()).unread == ("notes.txt", "rec_inter.tsv", meant)
    (tiny_dir / "words.parquet").symlink_to(tiny_dir / "nowhere")
    with pytest.raises(BadInput, match=r"words\.parquet is a link to nothing"):
        read_log(tiny_dir, DataConfig())


@pytest.mark.parametrize(("separator", "said"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(separator, said, tiny_dir):
    path = tiny_dir / f"{TABLE}.csv"
    path.write_text(path.read_text().replace(",", separator))
    with pytest.raises(BadInput, match=f"has {said} between its cells, expected commas"):
        read_log(tiny_dir, DataConfig())
