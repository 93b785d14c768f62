"""Whatever way the files of a log lie there, the same tables are found; what cannot be used is said in one line."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from pr2_jax.data.logs.records import blocks, header
from pr2_jax.data.logs.sources import LogSources, Part, open_log
from pr2_jax.data.schema import TABLES
from pr2_jax.errors import BadInput

CSV = b"a,b\n" + b"".join(b'%d,"[%d, 2]"\n' % (row, row) for row in range(50))
REQUIRED = [table.name for table in TABLES if table.required]


def packed(codec: str, content: bytes = CSV) -> bytes:
    """zstd frames of the command line carry a checksum; these carry none."""
    return gzip.compress(content) if codec == "gz" else pa.compress(content, codec="zstd", asbytes=True)


def parquet(content: bytes = CSV) -> bytes:
    file = io.BytesIO()
    pl.read_csv(content, infer_schema=False).write_parquet(file)
    return file.getvalue()


def write(log: Path, **files: bytes) -> Path:
    """`files` by path, with the required tables beside them that no path begins with."""
    paths = {f"{name}.csv": CSV for name in REQUIRED if not any(path.startswith(name) for path in files)} | files
    for path, content in paths.items():
        (log / path).parent.mkdir(parents=True, exist_ok=True)
        (log / path).write_bytes(content)
    return log


def zipped(log: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(log.rglob("*")):
            if file.is_file():
                archive.write(file, inside + str(file.relative_to(log)))
    return target


def rows(part: Part) -> list[tuple]:
    names = header(part)
    return [row[1:] for block in blocks(part, names) for row in block.frame.iter_rows()]


def read_all(path: Path, names: dict[str, str] | None = None) -> None:
    with open_log(path, names) as log:
        for parts in log.tables.values():
            for part in parts:
                rows(part)


def refuse(path: Path, pattern: str, names: dict[str, str] | None = None) -> None:
    """Reads everything; the refusal is one line."""
    with pytest.raises(BadInput, match=pattern) as caught:
        read_all(path, names)
    assert "\n" not in str(caught.value)


def parts_of(log: LogSources) -> list[str]:
    return [part.name for part in log.tables["rec_inter"]]


FORMS: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "csv": ({"rec_inter.csv": CSV}, ["rec_inter.csv"]),
    "suffix in capitals": ({"rec_inter.CSV.Gz": packed("gz")}, ["rec_inter.CSV.Gz"]),
    "gzip": ({"rec_inter.csv.gz": packed("gz")}, ["rec_inter.csv.gz"]),
    "gzip without a suffix": ({"rec_inter.csv": packed("gz")}, ["rec_inter.csv"]),
    "gzip in members": ({"rec_inter.csv.gz": packed("gz", CSV[:90]) + packed("gz", CSV[90:])}, ["rec_inter.csv.gz"]),
    "zstd": ({"rec_inter.csv.zst": packed("zst")}, ["rec_inter.csv.zst"]),
    "zstd in frames": ({"rec_inter.csv.zst": packed("zst", CSV[:90]) + packed("zst", CSV[90:])}, ["rec_inter.csv.zst"]),
    "parquet": ({"rec_inter.parquet": parquet()}, ["rec_inter.parquet"]),
    "parquet with its codec": ({"rec_inter.snappy.parquet": parquet()}, ["rec_inter.snappy.parquet"]),
    "parts": (
        {"rec_inter/part-2.csv": CSV, "rec_inter/part-10.csv.gz": packed("gz"), "rec_inter/deep/er/0.csv": CSV},
        ["rec_inter/deep/er/0.csv", "rec_inter/part-2.csv", "rec_inter/part-10.csv.gz"],
    ),
    "what an engine leaves": (
        {
            "rec_inter.parquet/part-0.c000.snappy.parquet": parquet(),
            "rec_inter.parquet/_SUCCESS": b"",
            "rec_inter.parquet/.part-0.c000.snappy.parquet.crc": b"crc",
            "rec_inter.parquet/_temporary/0/part-1.parquet": b"half",
        },
        ["rec_inter.parquet/part-0.c000.snappy.parquet"],
    ),
    "no suffixes": (
        {"rec_inter.csv/000000_0": CSV, "rec_inter.csv/000001_0.gz": packed("gz"), "rec_inter.csv/2": b""},
        ["rec_inter.csv/000000_0", "rec_inter.csv/000001_0.gz"],
    ),
    "no suffixes, parquet": ({"rec_inter.parquet/part-0": parquet()}, ["rec_inter.parquet/part-0"]),
    "empty parts": (
        {"rec_inter.csv.gz/0.csv.gz": packed("gz", b""), "rec_inter.csv.gz/1.csv.gz": packed("gz")},
        ["rec_inter.csv.gz/1.csv.gz"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["directory", "nested", "zip", "nested zip"])
def test_every_form_is_the_same_table(form, place, tmp_path):
    files, names = FORMS[form]
    log = write(tmp_path / "outer" / "KuaiSAR", **files)
    path = {"directory": log, "nested": log.parent}.get(place)
    path = path or zipped(log, tmp_path / "log.zip", "KuaiSAR/" if place == "nested zip" else "")
    with open_log(path) as found:
        assert parts_of(found) == names
        assert found.left_out == {}
        for part in found.tables["rec_inter"]:
            assert rows(part) == [(str(row), f"[{row}, 2]") for row in range(50)]
            assert (part.path is None) == ("zip" in place and part.format == "csv")
            assert len(part.digest()) == 64


def test_digest_is_of_the_bytes_as_stored(tmp_path):
    digests = []
    for name, content in (("a", packed("gz")), ("b", packed("gz", CSV + b"9,9\n"))):
        log = write(tmp_path / name, **{"rec_inter.csv.gz": content})
        for path in (log, zipped(log, tmp_path / f"{name}.zip")):
            with open_log(path) as found:
                digests.append(found.tables["rec_inter"][0].digest())
    assert digests[0] == digests[1] != digests[2] == digests[3]


@pytest.mark.parametrize("zip_it", [False, True])
def test_partition_directories(zip_it, tmp_path):
    files = {
        "rec_inter/day=10/hour=1/part.csv": CSV,
        "rec_inter/day=3/hour=__HIVE_DEFAULT_PARTITION__/part.csv": CSV,
        "rec_inter/day=3/_hour=a%20b%2Fc/part.csv": CSV,
    }
    log = write(tmp_path / "log", **files)
    with open_log(zipped(log, tmp_path / "log.zip") if zip_it else log) as found:
        constants = [part.constants for part in found.tables["rec_inter"]]
    assert constants == [{"day": "3", "_hour": "a b/c"}, {"day": "3", "hour": ""}, {"day": "10", "hour": "1"}]


def test_a_link_to_a_directory_above_is_not_followed_for_ever(tmp_path):
    log = write(tmp_path / "log", **{"rec_inter/day=1/part.csv": CSV})
    (log / "rec_inter" / "day=1" / "again").symlink_to(log / "rec_inter")
    with open_log(log) as found:
        assert parts_of(found) == ["rec_inter/day=1/part.csv"]


@pytest.mark.parametrize("name", ["watch_events", "watch_events.csv.gz"])
def test_names_of_ones_own(name, tmp_path):
    log = write(tmp_path / "log", **{"watch_events.csv.gz": packed("gz"), "rec_inter.csv": b"another\n1\n"})
    with open_log(log, {"rec_inter": name}) as found:
        assert parts_of(found) == ["watch_events.csv.gz"]


NAMES: dict[str, tuple[dict[str, str], str]] = {
    "no such file": (
        {"rec_inter": "watch_event"},
        r"has no 'watch_event', .* table rec_inter; did you mean watch_events",
    ),
    "no such table": ({"rec_intr": "watch_events"}, r"'rec_intr' is no table of a log .*; did you mean rec_inter\?"),
    "two tables": ({"rec_inter": "watch_events", "words": "watch_events"}, "named for two tables, rec_inter and words"),
    "two spellings": (
        {"rec_inter": "watch_events", "words": "watch_events.csv"},
        "watch_events.csv is named for two tables, rec_inter and words",
    ),
    "that of another": ({"words": "src_inter"}, "src_inter.csv is named for two tables, src_inter and words"),
}


@pytest.mark.parametrize("fault", NAMES)
def test_names_that_do_not_fit(fault, tmp_path):
    names, pattern = NAMES[fault]
    refuse(write(tmp_path / "log", **{"watch_events.csv": CSV}), pattern, names)


UNUSABLE: dict[str, tuple[dict[str, bytes], str]] = {
    "two copies": ({"{}.csv": CSV, "{}.parquet": parquet()}, "holds both {}.csv and {}.parquet: keep one"),
    "file and parts": ({"{}.csv": CSV, "{}/0.csv": CSV}, "holds both {} and {}.csv: keep one"),
    "mixed parts": ({"{}/0.csv": CSV, "{}/1.parquet": parquet()}, "has {}/0.csv and {}/1.parquet in one table"),
    "other parts": ({"{}/0.csv": CSV, "{}/1.orc": b"ORC"}, "has {}/1.orc, which is neither .csv nor .parquet"),
    "parts of no kind": ({"{}/0": CSV}, "has {}/0, which is neither .csv nor .parquet"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_only_a_table_that_is_needed_stops_the_reading(fault, tmp_path):
    for table in ("src_inter", "social_network"):
        files, why = (
            {key.replace("{}", table): value for key, value in UNUSABLE[fault][0].items()},
            UNUSABLE[fault][1],
        )
        log, why = write(tmp_path / table, **files), why.replace("{}", table)
        if table in REQUIRED:
            refuse(log, f"{table} {why}")
        else:
            with open_log(log) as found:
                assert table not in found.tables
                assert found.left_out[table].startswith(why)


def test_an_empty_directory_of_a_tables_name_is_none(tmp_path):
    log = write(tmp_path / "log")
    (log / "social_network").mkdir()
    (log / "social_network" / "_SUCCESS").touch()
    with open_log(log) as found:
        assert "social_network" not in {*found.tables, *found.left_out}


def test_missing_table_suggests_the_nearest(tmp_path):
    log = write(tmp_path / "log", **{"src_inter.csv": CSV})
    (log / "src_inter.csv").rename(log / "src_intr.csv.gz")
    refuse(log, r"has no src_inter\.csv \(or \.parquet\).*, .*; did you mean src_intr\.csv\.gz\?")
    refuse(zipped(log, tmp_path / "log.zip"), r"did you mean src_intr\.csv\.gz\?")


@pytest.mark.parametrize("codec", ["gz", "zst"])
def test_a_stream_that_is_cut_short_is_never_taken_as_whole(codec, tmp_path):
    whole = packed(codec, CSV * 40)
    assert len(whole) > 100
    cuts = [*range(1, 16), *range(16, len(whole) - 12, 40), *range(len(whole) - 12, len(whole))]
    log = tmp_path / "log"
    for cut in cuts:
        write(log, **{f"rec_inter.csv.{codec}": whole[:cut]})
        refuse(log, rf"^rec_inter\.csv\.{codec} is a truncated or damaged (gzip|zstd) file \(.*\): download it again")
    refuse(zipped(log, tmp_path / "log.zip"), rf"^rec_inter\.csv\.{codec} is a truncated or damaged")


def test_a_gzip_whose_checksum_is_wrong(tmp_path):
    damaged = bytearray(packed("gz"))
    damaged[-6] ^= 1
    refuse(write(tmp_path, **{"rec_inter.csv.gz": bytes(damaged)}), "is a truncated or damaged gzip")


def cut(content: bytearray) -> bytes:
    return bytes(content[: len(content) // 2])


def spoil_member(content: bytearray) -> bytes:
    content[60:80] = bytes(20)
    return bytes(content)


def want_password(content: bytearray) -> bytes:
    for place in (6, content.rindex(b"PK\x01\x02") + 8):
        content[place] |= 1
    return bytes(content)


def unknown_compression(content: bytearray) -> bytes:
    for place in (8, content.rindex(b"PK\x01\x02") + 10):
        content[place] = 99
    return bytes(content)


DAMAGE: dict[Callable, str] = {
    cut: r"log\.zip is a truncated or damaged zip",
    spoil_member: r"log\.zip is a truncated or damaged zip \(src_inter\.csv: .*\): download it again",
    want_password: r"log\.zip cannot be unpacked \(.*password.*\): unzip it and give the directory",
    unknown_compression: r"log\.zip cannot be unpacked \(.*compression.*\): unzip it and give the directory",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_zip(damage, tmp_path, monkeypatch):
    """One member, of the one table that every log needs."""
    monkeypatch.setattr("pr2_jax.data.logs.sources.TABLES", [table for table in TABLES if table.name == "src_inter"])
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("src_inter.csv", CSV * 10)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    refuse(path, DAMAGE[damage])


@pytest.mark.parametrize("name", ["../rec_inter.csv", "a/../../b", "..\\b", "/tmp/b", "C:\\b"])
def test_unsafe_members(name, tmp_path):
    path = zipped(write(tmp_path / "log"), tmp_path / "log.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, CSV)
    refuse(path, r"member .* (climbs out of the directory|has an absolute path); refused, nothing was unpacked")


def test_several_logs_and_none(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "both" / name)
    refuse(tmp_path / "both", r"both holds 2 logs \(a, b\): name one of them")
    refuse(zipped(tmp_path / "both", tmp_path / "both.zip"), r"2 logs \(a, b\): unpack it and name one of them")
    refuse(tmp_path / "nowhere", "no such file or directory")
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path / "notes.txt", "is neither a directory nor a zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    refuse(tmp_path / "other.zip", r"has no src_inter\.csv \(or \.parquet\) at its top or one directory down")


@pytest.mark.parametrize("zip_it", [False, True])
def test_content(zip_it, tmp_path):
    log = write(tmp_path / "log", **{"content.npy": b"vectors", "content_ids.npy": b"ids"})
    with open_log(zipped(log, tmp_path / "log.zip") if zip_it else log) as found:
        assert (found.content.read_bytes(), found.content_ids.read_bytes()) == (b"vectors", b"ids")
    (log / "content_ids.npy").unlink()
    refuse(log, r"has content\.npy but no content_ids\.npy: the two go together")
