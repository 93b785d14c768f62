"""`read_log`: the files of a log → `LogTables`, every row accounted for, nothing written unless all is well."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pr2_jax.config import DataConfig
from pr2_jax.data import schema
from pr2_jax.data.columns import RESULT_OUTCOMES
from pr2_jax.data.logs.content_files import BroughtContent, read_content
from pr2_jax.data.logs.mapping import mapping_of, names_of
from pr2_jax.data.logs.quarantine import Quarantine
from pr2_jax.data.logs.reading import PART, ReadTable, TableCount, empty, read_table
from pr2_jax.data.logs.records import ROW
from pr2_jax.data.logs.sources import LogSources, open_log
from pr2_jax.data.logs.word_lists import read_word_lists
from pr2_jax.data.outcomes import searched, timed
from pr2_jax.data.periods import cuts_of
from pr2_jax.data.schema import FEED, SEARCH, TABLES, VIDEOS, WORDS, Table
from pr2_jax.errors import BadInput

SESSION = ("user", "session", "time_ms", "query")
"""What a session is: the public logs use a person's session id again, hours later and for another query."""
NAMES = {
    "user_id": "user", "search_session_id": "session", "search_session_timestamp": "time_ms", "item_id": "video",
    "click_cnt": "clicks",
}  # fmt: skip
"""Our name of each column of a search row that the file calls otherwise."""
VALID_MS = 7_000
WINDOWS = ("before the validation day", "on the validation day", "on the test day")


@dataclasses.dataclass(frozen=True)
class LogTables:
    """The log, checked and typed, still with raw ids. All ids and times int64.

    Only the order of rows that share a user (`feed`, `search`) carries meaning: the order shown.
    """

    feed: pl.DataFrame  # user video time_ms known_ms play_ms duration_ms click like follow forward told (outcomes.py)
    search: pl.DataFrame  # user session time_ms query source video clicks position; types to search in only; where the
    # log has outcomes of results also play_ms duration_ms like follow forward told
    queries: pl.Series  # distinct word lists (list of int64); `search.query` indexes it
    sources: tuple[str, ...]  # sorted; `search.source` indexes it, -1 = not known
    users: pl.DataFrame  # user, PROFILE columns (null = not known)
    social: pl.DataFrame  # user follows
    videos: pl.DataFrame  # video words author kind upload_ms CATEGORIES
    words: pl.DataFrame  # word text
    content: BroughtContent | None
    start_ms: int  # earliest time of any row
    end_ms: int  # latest time of a search row of any type, + 1
    counts: dict[str, TableCount]  # by the name of the file, or of the table where it has several
    left_out: dict[str, str]  # tables that are not read, and why
    unread: tuple[str, ...]  # other files of the log
    written: dict[str, int]  # of all search rows, whatever their type: sessions, clicked_rows, reused_ids
    quarantined: pl.DataFrame  # table line column value reason, of every bad cell
    last_row: str = ""  # file and row of the search that ends the log, for messages


def read_log(path: Path, config: DataConfig, *, whole: bool = True) -> LogTables:
    """Reads a directory, a directory that holds one, or a zip, of tables in KuaiSAR's format (sources.py).

    `whole=False`: also a log that is too short or too silent to train on (the raw leak probe's).

    Bad rows are set aside. Raises BadInput for whatever makes the log unusable, and for more than
    `config.max_bad_share` bad rows in a table.
    """
    quarantine = Quarantine(config.max_bad_share)
    with open_log(Path(path), names_of(config)) as files:
        tables = log_tables(read_tables(files, config, quarantine), files, quarantine)
    if whole:
        refuse_unusable(tables)
    return tables


def read_tables(
    files: LogSources, config: DataConfig, quarantine: Quarantine, problems: list[str] | None = None
) -> dict[str, ReadTable]:
    """Every readable table, by name. An unreadable one that no stage needs is left out.

    Any other is a BadInput; with `problems`, the message goes into that list and reading goes on.
    """
    mappings = {table.name: mapping_of(table, config) for table in TABLES}
    out: dict[str, ReadTable] = {}
    for table in sorted(TABLES, key=lambda table: not table.required):  # the required one says first what is wrong
        if table.name not in files.tables:
            continue
        try:
            out[table.name] = read_table(table, files.tables[table.name], mappings[table.name], quarantine)
            quarantine.check_share(table, out[table.name].read)
        except BadInput as error:
            if not table.required and not table.expected:
                files.left_out[table.name] = str(error)
                out.pop(table.name, None)
                quarantine.forget(table)
            elif problems is None:
                raise
            else:
                problems.append(str(error))
    return out


def log_tables(read: dict[str, ReadTable], files: LogSources, quarantine: Quarantine) -> LogTables:
    """The log from its tables, which are taken out of `read` one by one. Days are not looked at (`refuse_unusable`)."""
    counts: dict[str, TableCount] = {}
    words = _plain(WORDS, read, quarantine, counts).rename({"word_id": "word", "word": "text"}).drop_nulls("text")
    as_text = {name: _as_text(read.get(table.name), name) for table, name in ((VIDEOS, "caption"), (SEARCH, "keyword"))}
    found = read.pop(SEARCH.name)
    spellings = found.rows["keyword"].unique().sort()  # the missing one first
    videos = _plain(VIDEOS, read, quarantine, counts)
    captions, query_words, words = read_word_lists(
        words, videos["caption"], as_text["caption"], spellings, as_text["keyword"]
    )
    queries, query_of_spelling = _distinct(query_words)
    numbers = pl.DataFrame({"keyword": spellings, "query": query_of_spelling})
    searches = _searches(found, numbers, quarantine, counts)
    feed = _feed(read, quarantine, counts)
    users = _plain(schema.USERS, read, quarantine, counts).rename({"user_id": "user"})
    social = _plain(schema.SOCIAL, read, quarantine, counts)
    if len(feed):
        searches["start_ms"] = min(searches["start_ms"], feed["time_ms"].min())
    return LogTables(
        feed=feed,
        queries=queries,
        users=users.select("user", *schema.PROFILE),
        social=social.rename({"user_id": "user", "user_follow_id": "follows"}),
        videos=_videos(videos, captions),
        words=words,
        content=read_content(files.content, files.content_ids),
        counts=counts,
        left_out=dict(files.left_out),
        unread=files.unread,
        quarantined=quarantine.table(),
        **searches,
    )


def refuse_unusable(tables: LogTables) -> None:
    """BadInput where no models can be trained, chosen and judged on the log's days.

    Training needs searches before the validation day, choosing needs some on it, and each of the three windows is
    learnt from, chosen on or judged by clicks.
    """
    search, cuts = tables.search, cuts_of(tables.search, tables.start_ms, tables.end_ms)
    window_N = np.digitize(search["time_ms"], [cuts.validation_ms, cuts.test_ms])
    days = (tables.end_ms - int(search["time_ms"].min())) / schema.DAY_MS
    # One row with a wrong date moves all three windows, so that the messages name the row that ends the log.
    last = f"; the latest search is {tables.last_row}, of {iso(tables.end_ms - 1)}" if tables.last_row else ""
    for window, name in enumerate(WINDOWS[:2]):
        if not (window_N == window).any():
            raise BadInput(
                f"{SEARCH.name}: no search session {name}; the searches span {days:.1f} days, expected at least 3 days "
                "with searches: the last is the test day, the latest before it with a click the validation day, all "
                f"earlier ones are for training{last}"
            )
    for window, name in enumerate(WINDOWS):
        if not (search["clicks"].to_numpy()[window_N == window] > 0).any():
            raise BadInput(
                f"{SEARCH.name}: column click_cnt: no result was clicked {name}, expected clicks on the test day "
                f"(the last 24 hours, up to {iso(cuts.end_ms)}), on a day before it, which is the validation day, and "
                f"before that: leave out searches after the last click{last}"
            )


def _as_text(read: ReadTable | None, column: str) -> bool:
    return read is not None and column in read.sources and read.sources[column].text


def _plain(
    table: Table, read: dict[str, ReadTable], quarantine: Quarantine, counts: dict[str, TableCount]
) -> pl.DataFrame:
    """A table whose rows stand alone. An absent table is an empty frame."""
    if table.name not in read:
        return empty(table).drop(ROW, PART)
    one = read.pop(table.name)
    counts[one.name] = one.count(quarantine).check(one.name)
    return one.rows.drop(ROW, PART)


def _distinct(lists: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The distinct word lists by their words, and which of them each list is: "[1,2]" and "[1, 2]" are one."""
    frame = pl.DataFrame({"canonical": lists.cast(pl.List(pl.String)).list.join(" "), "words": lists})
    distinct = frame.unique("canonical").sort("canonical")["words"]
    return distinct, frame["canonical"].rank("dense").cast(pl.Int64) - 1


def _feed(read: dict[str, ReadTable], quarantine: Quarantine, counts: dict[str, TableCount]) -> pl.DataFrame:
    """Feed views with their times. A bad row is no view, but the person watched it: it takes its time of its batch."""
    names = {"user_id": "user", "item_id": "video", "timestamp": "time_ms", "playing_time": "play_ms"}
    clicks_told, bad = True, empty(FEED)
    if one := read.get(FEED.name):
        clicks_told = "click" in one.sources
        when = pl.col("timestamp").is_between(schema.EARLIEST_MS, schema.LATEST_MS)
        bad = one.bad.filter(pl.col("user_id").is_not_null() & when)
    if len(bad):
        spans = [pl.when(pl.col(name) >= 0).then(name) for name in ("playing_time", "duration_ms")]
        bad = bad.with_columns(spans, ours=pl.lit(False))
        good = one.rows.with_columns(ours=pl.lit(True))
        rows = pl.concat([good, bad]).sort(PART, ROW, maintain_order=True)
        _plain(FEED, read, quarantine, counts)
        kept, feed = rows["ours"], rows.drop(ROW, PART, "ours")
    else:
        kept, feed = None, _plain(FEED, read, quarantine, counts)
    feed = feed.rename(names)
    feed = timed(feed if clicks_told else feed.with_columns(valid_play().alias("click")))
    return feed if kept is None else feed.filter(kept)


def _searches(
    read: ReadTable, numbers: pl.DataFrame, quarantine: Quarantine, counts: dict[str, TableCount]
) -> dict[str, Any]:
    """The fields of `LogTables` that searches alone say; `start_ms` is the time of the first row, whatever its type.

    `numbers` has the `query` of each spelling of `keyword`. BadInput where there is nothing to search in.
    """
    rows, name = read.rows, read.name
    if "item_type" not in read.sources:
        rows = rows.with_columns(pl.lit(schema.RESULT_TYPES[0]).alias("item_type"))
    if "search_session_id" not in read.sources:
        rows = rows.with_columns(pl.lit(0, dtype=pl.Int64).alias("search_session_id"))
    rows = rows.join(numbers, on="keyword", how="left", nulls_equal=True, maintain_order="left").rename(NAMES)
    # The place counts every result, as the person saw them, also those of a type left out below.
    rows = rows.with_columns(pl.int_range(pl.len()).over(SESSION).alias("position"))
    keys = rows.select(SESSION).unique()
    reused = len(keys) - keys.select("user", "session").n_unique() if "search_session_id" in read.sources else 0
    written = {"sessions": len(keys), "clicked_rows": int((rows["clicks"] > 0).sum()), "reused_ids": reused}
    in_corpus = pl.col("item_type").is_in(schema.RESULT_TYPES)
    kept = rows.filter(in_corpus)
    if kept.is_empty():
        found = "nothing" if rows.is_empty() else f"{rows['item_type'][0]!r}"
        raise BadInput(
            f"{name}, column item_type: found {found}, as no other row has {' or '.join(schema.RESULT_TYPES)} either: "
            "there is nothing to search in"
        )
    others = rows.filter(~in_corpus)["item_type"].value_counts().sort("item_type")
    counts[name] = read.count(quarantine, len(kept), dict(others.iter_rows())).check(name)
    sources = kept["search_source"].drop_nulls().unique().sort()
    row_of = pl.int_range(len(sources), dtype=pl.Int64, eager=True)
    source = pl.col("search_source").replace_strict(sources, row_of, default=-1).alias("source")
    columns = [*SESSION, source, "video", "clicks", "position"]
    if any(column in read.sources for column in schema.OUTCOMES):
        kept = searched(kept.rename({"playing_time": "play_ms"}))
        columns += RESULT_OUTCOMES
    last = rows.row(int(rows["time_ms"].arg_max()), named=True)
    return {
        "search": kept.select(columns),
        "sources": tuple(sources),
        "start_ms": int(rows["time_ms"].min()),
        "end_ms": last["time_ms"] + 1,
        "last_row": f"{read.parts[last[PART]]}, row {last[ROW]}",
        "written": written,
    }


def _videos(videos: pl.DataFrame, captions: pl.Series) -> pl.DataFrame:
    return videos.select(
        pl.col("item_id").alias("video"),
        captions.alias("words"),
        pl.when(pl.col("author_id") > 0).then("author_id").alias("author"),
        pl.col("upload_type").alias("kind"),
        pl.col("upload_time").fill_null(0).alias("upload_ms"),
        *(pl.when(pl.col(name) > 0).then(name).alias(name) for name in schema.CATEGORIES),
    )


def valid_play() -> pl.Expr:
    """KuaiSAR's rule for a click in the feed: at least the duration of a video of up to 7 s, else more than 7 s."""
    short = pl.col("duration_ms").is_between(1, VALID_MS).fill_null(False)
    return pl.when(short).then(pl.col("play_ms") >= pl.col("duration_ms")).otherwise(pl.col("play_ms") > VALID_MS)


def iso(time_ms: int) -> str:
    """UTC, to the second."""
    return str(np.datetime64(time_ms, "ms").astype("datetime64[s]")).replace("T", " ")
