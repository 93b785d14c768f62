"""Logs spoilt at random, in their tables, bytes and structure: each is read with every row accounted for, or refused in
one line with nothing left behind.

`PR2_FUZZ_LOGS=2000 python -m pytest tests/data/test_fuzz.py` tries as many as one likes; the suite tries 100.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from pr2_jax.config import ColumnsConfig, Config, DataConfig, FilesConfig
from pr2_jax.data.ingest import ingest_report
from pr2_jax.data.ingest.ingest import ingest
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import Pr2Error

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "pr2-hypothesis")  # not into the checkout

SUITE = 100
LOGS = int(os.environ.get("PR2_FUZZ_LOGS", SUITE))
"""More than the suite's also go through the whole of ingest, with the exchange format."""
TABLES = ("rec_inter", "src_inter", "item_features", "user_features", "social_network", "words")
CELLS = (
    "", " ", "0", "-1", "1e400", "nan", "NULL", "12.0", "1e18", "99999999999999999999", "abc", "喜剧", '"', "[", "[1,2",
    "[1.0, 2.0]", "[]", "[99999999999999999999]", "1970-1-1", "2023-13-45", "\x00", "a,b", "a\nb", "'", "true",
    "1684737014", "-0", "0x1F", "١٢", "\u2028", "x" * 5000,
)  # fmt: skip
BYTES = (
    b'"',
    b"\n",
    b"\r",
    b",",
    b'""',
    b'",',
    b'\n"',
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[",
    b"\\",
    b" ",
    b"\xe5\x96",
)


def spoil_cells(log: Any, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 6)):
        rows = log.tables[rng.choice([name for name in log.tables if len(log.tables[name]) > 1])]
        row = rng.choice(rows[1:]) if rng.random() < 0.9 else rows[0]
        if row:
            row[rng.randrange(len(row))] = rng.choice(CELLS)


def spoil_rows(log: Any, rng: random.Random) -> None:
    name = rng.choice(list(log.tables))
    header, *rows = log.tables[name]
    match rng.randrange(6):
        case 0:
            rows += [list(rng.choice(rows)) for _ in range(rng.randint(1, 30))] if rows else []
        case 1:
            rng.shuffle(rows)
        case 2:
            rows = rows[: rng.randint(0, len(rows))]
        case 3 if rows:
            rng.choice(rows).append("more")
        case 4 if rows:
            del rng.choice(rows)[-1:]
        case _:
            rows.insert(rng.randint(0, len(rows)), [])
    log.tables[name] = [header, *rows]


def spoil_columns(log: Any, rng: random.Random) -> None:
    rows = log.tables[rng.choice(list(log.tables))]
    place = rng.randrange(max(len(rows[0]), 1))
    match rng.randrange(4):
        case 0:
            for row in rows:
                del row[place : place + 1]
        case 1:
            rows[0][place : place + 1] = [rng.choice(["", "user_id", "time", "item", '"', "reco_active_level"])]
        case 2:
            for row in rows:
                row.insert(place, rng.choice(["", "1", "other"]))
        case _:
            values = rng.choice(CELLS)
            for row in rows[1:]:
                if place < len(row):
                    row[place] = values


def spoil_days(log: Any, rng: random.Random) -> None:
    """Moves or drops whole stretches of time."""
    name, column = rng.choice([("rec_inter", "timestamp"), ("src_inter", "search_session_timestamp")])
    if column not in log.tables.get(name, [[]])[0]:
        return
    place, shift, scale = (
        log.tables[name][0].index(column),
        rng.choice([0, 1, 30]) * 86_400_000,
        rng.choice([1, 1, 3, 20]),
    )
    for row in log.tables[name][1:]:
        try:
            value = float(row[place])
        except (ValueError, IndexError):
            continue
        row[place] = str(int(1_684_737_000_000 + (value - 1_684_737_000_000) * scale + shift))


def spoil_bytes(directory: Path, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        if not files:
            return
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        at = rng.randint(0, len(data))
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(BYTES)
            case 1:
                data[at : at + rng.randint(1, 20)] = b""
            case 2:
                data[at : at + 1] = rng.choice(BYTES)
            case _ if rng.random() < 0.3:
                del data[at:]
        path.write_bytes(bytes(data))


def spoil_structure(directory: Path, rng: random.Random) -> None:
    files = sorted(path for path in directory.iterdir() if path.suffix == ".csv" and path.is_file())
    if not files:
        return
    path = rng.choice(files)
    match rng.randrange(8):
        case 0:
            path.unlink()
        case 1:
            path.rename(path.with_name(path.name.upper() if rng.random() < 0.5 else f"my_{path.name}"))
        case 2:
            (directory / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        case 3:
            (directory / f"{path.name}.zst").write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))
            path.unlink()
        case 4:
            lines = path.read_bytes().splitlines(keepends=True) or [b""]
            cut = rng.randint(1, len(lines))
            parts = directory / path.stem if rng.random() < 0.5 else directory / path.name
            path.unlink()
            for number, some in enumerate((lines[1:cut], lines[cut:])):
                part = parts / f"day={number}" / "part-0.csv"
                part.parent.mkdir(parents=True)
                part.write_bytes(b"".join([lines[0], *some]))
            (parts / "_SUCCESS").write_bytes(b"")
        case 5:
            try:
                frame = pl.read_csv(path, infer_schema=rng.random() < 0.5, truncate_ragged_lines=True)
            except (pl.exceptions.PolarsError, OSError):
                return
            codec = rng.choice(["snappy", "zstd", "gzip", "lz4", "uncompressed"])
            frame.write_parquet(path.with_suffix(".parquet"), compression=codec)
            path.unlink()
        case 6:
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
        case _:
            shutil.copy(path, path.with_suffix(".parquet"))


def zipped(directory: Path, rng: random.Random) -> Path:
    target = directory.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                archive.write(path, Path("KuaiSAR_v2") / path.relative_to(directory))
    if rng.random() < 0.2:
        spoil = bytearray(target.read_bytes())
        spoil[rng.randrange(len(spoil))] ^= 1 << rng.randrange(8)
        target.write_bytes(bytes(spoil))
    return target


def config_of(rng: random.Random) -> DataConfig:
    share = rng.choice([0.0, 0.01, 0.2, 1.0])
    if rng.random() < 0.8:
        return DataConfig(max_bad_share=share)
    columns = rng.choice(["user_id=user", "timestamp in s", "like=click, click=like", "timestamp=time", "x=y", ","])
    files = rng.choice(["", "my_rec_inter.csv", "src_inter"])
    return DataConfig(max_bad_share=share, columns=ColumnsConfig(rec_inter=columns), files=FilesConfig(rec_inter=files))


def accounted_for(tables: LogTables) -> None:
    for name, count in tables.counts.items():
        assert count.read == count.kept + count.repeats + count.quarantined + sum(count.left_out.values()), name
    for frame, file in ((tables.feed, "rec_inter"), (tables.users, "user_features"), (tables.videos, "item_features")):
        assert sum(count.kept for name, count in tables.counts.items() if name.startswith(file)) in (len(frame), 0)


def tried(read: Callable[[], None]) -> bool:
    """Whether it went well; a refusal is one line."""
    said = None
    try:
        read()
    except Pr2Error as refusal:
        said = str(refusal)
    assert said is None or (said.strip() and "\n" not in said)
    return said is None


def one_log(log: Any, rng: random.Random, whole: bool) -> None:
    for spoil in rng.choices([spoil_cells, spoil_rows, spoil_columns, spoil_days], k=rng.randint(0, 3)):
        spoil(log, rng)
    with tempfile.TemporaryDirectory() as scratch:
        place, work, config = log.write(Path(scratch) / "log"), Path(scratch) / "work", config_of(rng)
        for spoil in rng.choices([spoil_structure, spoil_bytes], k=rng.randint(0, 3)):
            spoil(place, rng)
        if rng.random() < 0.2:
            place = zipped(place, rng)

        def reads() -> None:
            tables = read_log(place, config)
            accounted_for(tables)
            LogStore.from_tables(tables)

        fine = tried(reads)
        if rng.random() < 0.3:
            healthy = []
            if tried(lambda: healthy.append(not ingest_report.examine(place, Config(data=config)).problems)):
                assert healthy == [fine]
        if whole:
            assert tried(lambda: ingest(place, Config(data=config), work) and None) == fine
            assert (work / "store" / "manifest.json").exists() == fine
            assert fine or not any(work.glob("*"))


@settings(
    max_examples=LOGS,
    deadline=20_000,
    derandomize=LOGS <= SUITE,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False))
def test_any_log_is_read_whole_or_refused_in_one_line(make_log, rng):
    one_log(make_log(), rng, whole=LOGS > SUITE)


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_of_ingest(seed, make_log):
    one_log(make_log(), random.Random(seed), whole=True)
