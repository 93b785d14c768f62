"""`read_log`: five files → `LogTables`, every row checked, with nothing written unless all is well."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import Cuts
from pr2_jax.data.content_files import BroughtContent, read_content
from pr2_jax.data.cuts import cuts_of
from pr2_jax.data.files import LogFiles, open_log
from pr2_jax.data.parsing import ROW, parse_words, read_typed
from pr2_jax.data.quarantine import Quarantine
from pr2_jax.data.schema import (
    CATEGORIES,
    DAY_MS,
    FEED,
    PROFILE,
    RESULT_TYPES,
    SEARCH,
    SOCIAL,
    USERS,
    VIDEOS,
    WORDS,
    Kind,
    Table,
)
from pr2_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class TableCount:
    """What became of the rows of one file: read = kept + quarantined + the sum of left_out."""

    read: int
    kept: int
    quarantined: int
    left_out: dict[str, int]


@dataclasses.dataclass(frozen=True)
class LogTables:
    """The log, checked and typed, still with raw ids. All ids and times int64.

    Only the order of rows that share a user (`feed`, `search`) carries meaning: the order shown.
    """

    feed: pl.DataFrame  # user video time_ms play_ms duration_ms click like follow forward
    search: pl.DataFrame  # user session time_ms query source video clicks position; VIDEO and IMAGE_ATLAS only
    queries: pl.Series  # distinct word lists (list of int64); `search.query` indexes it
    sources: tuple[str, ...]  # sorted; `search.source` indexes it, -1 = not known
    users: pl.DataFrame  # user, PROFILE columns (null = not known)
    social: pl.DataFrame  # user follows
    videos: pl.DataFrame  # video words author kind upload_ms CATEGORIES
    words: pl.DataFrame  # word text
    content: BroughtContent | None
    start_ms: int  # earliest time of any row
    end_ms: int  # latest time of a search row of any type, + 1
    counts: dict[str, TableCount]
    odd_sessions: int  # sessions whose rows disagree on the query: the first row's is taken
    quarantined: pl.DataFrame  # table line column value reason, of every bad cell


def read_log(path: Path, config: DataConfig, quarantine_path: Path | None = None) -> LogTables:
    """Reads a directory, a directory that holds one, or a zip, of CSV or Parquet files in KuaiSAR's format.

    Bad rows are set aside and, where `quarantine_path` is given, written there once everything else is well.
    Raises BadInput for whatever makes the log unusable, and for more than `config.max_bad_share` bad rows in a table.
    """
    quarantine = Quarantine(config.max_bad_share)
    with open_log(Path(path)) as files:
        tables = _read_tables(files, quarantine)
    _refuse_short(tables)
    _refuse_silent(tables)
    if quarantine_path is not None:
        tables.quarantined.write_csv(quarantine_path)
    return tables


def _read_tables(files: LogFiles, quarantine: Quarantine) -> LogTables:
    counts: dict[str, TableCount] = {}
    search, queries, sources, (first_ms, last_ms), odd = _read_search(files, quarantine, counts)
    feed = _read_plain(files, FEED, quarantine, counts).rename(
        {"user_id": "user", "item_id": "video", "timestamp": "time_ms", "playing_time": "play_ms"}
    )
    feed = feed.with_columns(pl.col("duration_ms").fill_null(0))
    users = _read_plain(files, USERS, quarantine, counts).rename({"user_id": "user"})
    videos = _read_plain(files, VIDEOS, quarantine, counts)
    social = _read_plain(files, SOCIAL, quarantine, counts)
    words = _read_plain(files, WORDS, quarantine, counts)
    videos = videos.select(
        pl.col("item_id").alias("video"),
        parse_words(videos["caption"]).alias("words"),
        pl.when(pl.col("author_id") > 0).then("author_id").alias("author"),
        pl.col("upload_type").alias("kind"),
        pl.col("upload_time").alias("upload_ms"),
        *(pl.when(pl.col(name) > 0).then(name).alias(name) for name in CATEGORIES),
    )
    earliest = feed["time_ms"].min()
    return LogTables(
        feed=feed.select("user", "video", "time_ms", "play_ms", "duration_ms", "click", "like", "follow", "forward"),
        search=search,
        queries=queries,
        sources=sources,
        users=users.select("user", *PROFILE),
        social=social.rename({"user_id": "user", "user_follow_id": "follows"}),
        videos=videos,
        words=words.rename({"word_id": "word", "word": "text"}).drop_nulls("text"),
        content=read_content(files.content, files.content_ids),
        start_ms=min(first_ms, earliest) if earliest is not None else first_ms,
        end_ms=last_ms + 1,
        counts=counts,
        odd_sessions=odd,
        quarantined=quarantine.table(),
    )


def _read_plain(files: LogFiles, table: Table, quarantine: Quarantine, counts: dict[str, TableCount]) -> pl.DataFrame:
    """A table whose rows stand alone but for a unique column. An absent optional table is an empty frame."""
    if table.name not in files.tables:
        types = {Kind.TEXT: pl.String, Kind.WORDS: pl.String, Kind.FLAG: pl.Boolean}
        return pl.DataFrame(schema={column.name: types.get(column.kind, pl.Int64) for column in table.columns})
    path = files.tables[table.name]
    typed = read_typed(table, path)
    good = quarantine.take_cells(table, path, typed)
    if table.unique is not None:
        again = ~pl.col(table.unique).is_first_distinct()
        good = quarantine.take_rows(path, good, again, table.unique, "which an earlier row already has")
    quarantine.check_share(path, len(typed))
    counts[path.name] = TableCount(len(typed), len(good), len(typed) - len(good), {})
    return good.drop(ROW)


def _read_search(
    files: LogFiles, quarantine: Quarantine, counts: dict[str, TableCount]
) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...], tuple[int, int], int]:
    """Search rows, distinct queries, sources, (first, last) time, sessions with more than one query."""
    path = files.tables[SEARCH.name]
    typed = read_typed(SEARCH, path)
    good = quarantine.take_cells(SEARCH, path, typed)
    session = "search_session_id"
    stranger = pl.col("user_id") != pl.col("user_id").first().over(session)
    good = quarantine.take_rows(path, good, stranger, "user_id", "expected the user of the session's first row")
    quarantine.check_share(path, len(typed))
    span = (good["search_session_timestamp"].min(), good["search_session_timestamp"].max())
    good = good.with_columns(
        # One session, one moment and one query, decided by all its rows, also those left out below.
        pl.col("search_session_timestamp").min().over(session).alias("time_ms"),
        pl.int_range(pl.len()).over(session).alias("position"),
    )
    kept = good.filter(pl.col("item_type").is_in(RESULT_TYPES))
    if kept.is_empty():
        raise BadInput(
            f"{path.name}, row {good[ROW][0]}, column item_type: found {good['item_type'][0]!r}, as no other row has "
            f"{' or '.join(RESULT_TYPES)} either: there is nothing to search in"
        )
    others = good.filter(~pl.col("item_type").is_in(RESULT_TYPES))["item_type"].value_counts().sort("item_type")
    counts[path.name] = TableCount(len(typed), len(kept), len(typed) - len(good), dict(others.iter_rows()))
    kept, queries, odd = _number_queries(kept, session)
    sources = tuple(kept["search_source"].drop_nulls().unique().sort())
    kinds = {"search_source": pl.String, "source": pl.Int64}
    numbers = pl.DataFrame({"search_source": sources, "source": range(len(sources))}, schema=kinds)
    kept = kept.join(numbers, on="search_source", how="left", maintain_order="left")
    kept = kept.select(
        pl.col("user_id").alias("user"),
        pl.col(session).alias("session"),
        "time_ms",
        "query",
        pl.col("source").fill_null(-1),
        pl.col("item_id").alias("video"),
        pl.col("click_cnt").alias("clicks"),
        "position",
    )
    return kept, queries, sources, span, odd


def _number_queries(kept: pl.DataFrame, session: str) -> tuple[pl.DataFrame, pl.Series, int]:
    """Adds `query`; returns the distinct word lists it indexes and how many sessions had several."""
    spellings = kept["keyword"].unique().sort()
    lists = parse_words(spellings)
    canonical = lists.cast(pl.List(pl.String)).list.join(" ")  # "[1,2]" and "[1, 2]" are one query
    distinct = pl.DataFrame({"canonical": canonical, "words": lists}).unique("canonical").sort("canonical")
    distinct = distinct.with_columns(pl.int_range(pl.len()).alias("query"))
    numbers = pl.DataFrame({"keyword": spellings, "canonical": canonical}).join(distinct, on="canonical", how="left")
    numbers = numbers.select("keyword", "query")
    kept = kept.join(numbers, on="keyword", how="left", nulls_equal=True, maintain_order="left")
    several = kept.group_by(session).agg(pl.col("query").n_unique().alias("n")).filter(pl.col("n") > 1)
    kept = kept.with_columns(pl.col("query").first().over(session))
    return kept, distinct["words"], len(several)


def _refuse_short(tables: LogTables) -> None:
    """Training needs sessions before the validation day, and choosing weights needs some on it."""
    times, cuts = tables.search["time_ms"], cuts_of(tables.search, tables.start_ms, tables.end_ms)
    days = (tables.end_ms - int(times.min())) / DAY_MS
    for name, count in _by_window(times, cuts)[:2]:
        if count == 0:
            raise BadInput(
                f"{SEARCH.name}: no search session {name}; the searches span {days:.1f} days, expected at least 3 days "
                "with searches: the last is the test day, the latest before it with a click the validation day, all "
                "earlier ones are for training"
            )


def _refuse_silent(tables: LogTables) -> None:
    """Each of the three windows is learnt from, chosen on or judged by clicks."""
    clicked_ms = tables.search.filter(pl.col("clicks") > 0)["time_ms"]
    cuts = cuts_of(tables.search, tables.start_ms, tables.end_ms)
    for name, count in _by_window(clicked_ms, cuts):
        if count == 0:
            raise BadInput(
                f"{SEARCH.name}: column click_cnt: no result was clicked {name}, expected clicks on the test day (the "
                f"last, up to {iso(cuts.end_ms)}), on a day before it, which is the validation day, and before that"
            )


def _by_window(time_ms_N: pl.Series, cuts: Cuts) -> list[tuple[str, int]]:
    """How many of the times lie in each of the three windows of the protocol, with what people call it."""
    validation_ms, test_ms = cuts.validation_ms, cuts.test_ms
    return [
        ("before the validation day", int((time_ms_N < validation_ms).sum())),
        ("on the validation day", int(((time_ms_N >= validation_ms) & (time_ms_N < test_ms)).sum())),
        ("on the test day", int((time_ms_N >= test_ms).sum())),
    ]


def iso(time_ms: int) -> str:
    """UTC, to the second."""
    return str(np.datetime64(time_ms, "ms").astype("datetime64[s]")).replace("T", " ")
