"""Raw leak probe: raw files are cut and ingested anew, and a search must read the same bits.

A leak of ingest itself (a click filed under an earlier search, an outcome dated too early) is also in every cut of the
store. So this cuts the files, by code that shares nothing with ingest: it drops later searches, feed views that had not
begun, and outcomes that were not known yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.config import Config
from pr2_jax.data.history.probe import Past
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.logs.mapping import names_of
from pr2_jax.data.schema import TABLES
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput
from pr2_jax.evaluation.leak_probe import probe_day, probe_training
from pr2_jax.search.system import System

FEED, SEARCHES = "rec_inter", "src_inter"
OUTCOMES = ("playing_time", "click", "like", "follow", "forward")
"""Outcome columns of a view, or of a shown result."""
NOTHING = ("", "\\N", "NULL", "null", "None", "nan", "NaN", "UNKNOWN", "empty")
NEVER = 1 << 62
EARLIEST, LATEST = 946_684_800_000, 4_102_444_800_000  # the years 2000 and 2100


def run(workdir: Path, config: Config, input_path: Path) -> None:
    """Probes a finished work directory against the log that it was made from; prints one line. Raises LeakFound."""
    if names_of(config.data) or any(getattr(config.data.columns, table.name).strip() for table in TABLES):
        raise BadInput("--raw-probe reads logs in KuaiSAR's names, ms and word ids: this one has names of its own")
    system = System.open(workdir, config)
    with raw_past(input_path, config, system.store) as past:
        judged = probe_day(system, config, system.store.cuts.test_ms, past)
        trained = probe_training(system, config, past)
    print(
        f"raw leak probe: {judged} searches of the test day and {trained} searches of a training day read the same "
        f"numbers from {input_path.name} without their future"
    )


@contextlib.contextmanager
def raw_past(input_path: Path, config: Config, store: LogStore) -> Iterator[Past]:
    """Logs without their future from raw files, in rows of the store that was made from them.

    BadInput where the files give another log, already with their future.
    """
    with _opened(input_path) as root:
        raw = RawLog.of(root)

        def at(before_ms: int) -> LogStore:
            with tempfile.TemporaryDirectory(prefix="pr2-raw-") as place:
                raw.write(Path(place), before_ms)
                lenient = dataclasses.replace(config.data, max_bad_share=1.0)
                return LogStore.from_tables(read_log(Path(place), lenient, whole=False), like=store)

        if difference := _difference(at(NEVER), store):
            raise BadInput(f"{input_path}: not the log that this work directory was made from ({difference} differ)")
        yield Past(at, raw.first_ms)


def _difference(one: LogStore, other: LogStore) -> str | None:
    """The first interaction column that differs."""
    for group in ("sessions", "impressions", "events"):
        for name, column in vars(getattr(other, group)).items():
            if column is not None and not np.array_equal(getattr(getattr(one, group), name), column):
                return f"{group}.{name}"
    return None


@dataclasses.dataclass(frozen=True)
class RawLog:
    """Both interaction tables as the files have them, and the paths of the other tables."""

    tables: dict[str, pl.DataFrame]
    began_ms: dict[str, np.ndarray]  # of each view, and of each result's session
    ended_ms: dict[str, np.ndarray]  # when it had been played; at once where the log does not say
    parquet: bool
    others: tuple[Path, ...]

    @staticmethod
    def of(root: Path) -> RawLog:
        parts = {name: _parts(root, name) for name in (FEED, SEARCHES)}
        others = tuple(place for place in sorted(root.iterdir()) if _stem(place) not in parts)
        tables = {name: _read(files) for name, files in parts.items() if files}
        moments = {name: (_views if name == FEED else _results)(frame) for name, frame in tables.items()}
        began_ms, ended_ms = ({name: both[i] for name, both in moments.items()} for i in (0, 1))
        parquet = any(file.suffix == ".parquet" for files in parts.values() for file in files)
        return RawLog(tables, began_ms, ended_ms, parquet, others)

    @property
    def first_ms(self) -> int:
        """The earliest time after which neither table is empty."""
        return max(int(began[began >= 0].min(initial=NEVER)) for began in self.began_ms.values())

    def write(self, directory: Path, before_ms: int) -> None:
        """The log as its files would have been just before that time. Rows keep their order."""
        for place in self.others:
            (directory / place.name).symlink_to(place.resolve())
        for name, frame in self.tables.items():
            begun, unknown = pl.Series(self.began_ms[name] < before_ms), pl.Series(self.ended_ms[name] >= before_ms)
            told = [column for column in OUTCOMES if column in frame.columns]
            hidden = [pl.when(unknown).then(None).otherwise(pl.col(column)).alias(column) for column in told]
            cut = frame.with_columns(hidden).filter(begun)
            if self.parquet:
                cut.write_parquet(directory / f"{name}.parquet")
            else:
                cut.write_csv(directory / f"{name}.csv", line_terminator="\n")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Path]:
    """The directory that holds the tables, also one level down or in a zip."""
    with contextlib.ExitStack() as stack:
        if path.is_file():
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pr2-raw-")))
            with zipfile.ZipFile(path) as archive:  # extractall keeps members inside the directory
                archive.extractall(scratch)
            path = scratch
        places = [path, *sorted(place for place in path.iterdir() if place.is_dir())]
        found = [place for place in places if _parts(place, SEARCHES)]
        if not found:
            raise BadInput(f"{path} holds no {SEARCHES}, expected the log that the work directory was made from")
        yield found[0]


def _stem(place: Path) -> str:
    return place.name.split(".")[0]


def _parts(root: Path, name: str) -> list[Path]:
    """The files of one table, in order: one file, or all below a directory of that name."""
    out: list[Path] = []
    for place in sorted(root.iterdir()):
        if _stem(place) == name:
            inside = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
            out += [file for file in inside if {".csv", ".parquet"} & set(file.suffixes)]
    return out


def _read(files: list[Path]) -> pl.DataFrame:
    csv = functools.partial(pl.read_csv, infer_schema=False, encoding="utf8-lossy", truncate_ragged_lines=True)
    try:
        return pl.concat([(pl.read_parquet if file.suffix == ".parquet" else csv)(file) for file in files])
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{files[0].name} cannot be read plainly, as the raw leak probe does ({error})") from None


def _views(feed: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """When each view began and ended. Views of a person with one timestamp follow one another.

    A row that ingest cannot use has no moment (-1), but takes its time where person and timestamp are known. A repeated
    row has the moments of its first.
    """
    names = ("user_id", "item_id", "timestamp", "playing_time", "duration_ms")
    columns = {name: _number(feed, name) for name in names}
    flags = {name: _number(feed, name) for name in OUTCOMES[1:]}
    usable = pl.all_horizontal(
        *(columns[name].is_not_null() for name in names[:3]),
        *(_missing(feed, name) | (columns[name] >= 0).fill_null(False) for name in names[3:]),
        *(_missing(feed, name) | flag.is_in([0, 1]).fill_null(False) for name, flag in flags.items()),
    )
    same = [name for name in (*names, *flags) if name in feed.columns]
    rows = feed.with_row_index("row").select(usable.alias("usable"), pl.col("row").first().over(same), **columns)
    clock: dict[tuple[int, int], int] = {}
    began, ended = np.full((2, len(feed)), -1, np.int64)
    for row, (usable_row, first, user, _, time, play, length) in enumerate(rows.iter_rows()):
        if first < row:
            began[row], ended[row] = began[first], ended[first]
        elif user is not None and time is not None and EARLIEST <= time <= LATEST:
            start = clock.get((user, time), time)
            spans = [span for span in (play, length) if span is not None and span >= 0]
            clock[user, time] = min(start + (spans[0] if spans else 0), NEVER)
            if usable_row:
                began[row], ended[row] = start, clock[user, time]
    return began, ended


def _results(searches: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """When each result's session began, and when the result had been played; of one shown twice, both."""
    shown = ("user_id", "search_session_id", "search_session_timestamp", "item_id")
    rows = searches.select(**{name: _number(searches, name) for name in (*shown, "playing_time", "duration_ms")})
    play = pl.coalesce(pl.col("playing_time").max().over(shown), pl.col("duration_ms").max().over(shown), 0)
    began = pl.col("search_session_timestamp")
    rows = rows.select(began=began.fill_null(-1), ended=(began + play).fill_null(-1))
    return rows["began"].to_numpy(), rows["ended"].to_numpy()


def _missing(frame: pl.DataFrame, name: str) -> pl.Expr:
    if name not in frame.columns:
        return pl.lit(True)
    return pl.col(name).is_null() | pl.col(name).cast(pl.String).str.strip_chars().is_in(NOTHING)


def _number(frame: pl.DataFrame, name: str) -> pl.Expr:
    """The cell as a whole number, a half rounded up; null where it is none, or where there is no such column."""
    if name not in frame.columns:
        return pl.lit(None, pl.Int64)
    if frame.schema[name].is_temporal():
        return pl.col(name).dt.epoch("ms")
    cell = pl.col(name).cast(pl.Int64) if frame.schema[name] == pl.Boolean else pl.col(name)
    text = cell.cast(pl.String).str.strip_chars()
    number = (text.cast(pl.Float64, strict=False) + 0.5).floor().cast(pl.Int64, strict=False)
    return pl.coalesce(text.cast(pl.Int64, strict=False), number)
