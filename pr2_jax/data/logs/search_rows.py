"""Keys search results by session and counts the sessions and clicks of the whole file."""

from __future__ import annotations

import dataclasses

import polars as pl

from pr2_jax.data.logs.quarantine import Quarantine
from pr2_jax.data.logs.reading import PART, ReadTable, TableCount
from pr2_jax.data.logs.records import ROW
from pr2_jax.data.outcomes import searched
from pr2_jax.data.schema import OUTCOMES, RESULT_TYPES
from pr2_jax.errors import BadInput

SESSION = ("user", "session", "time_ms", "query")
"""What a session is: the public logs use a person's session id again, hours later and for another query."""


@dataclasses.dataclass(frozen=True)
class SearchRows:
    """What becomes of `src_inter`."""

    rows: pl.DataFrame  # as LogTables.search
    sources: tuple[str, ...]
    first_ms: int  # of all rows, whatever their type
    last_ms: int
    last_row: str  # its file and row, for messages
    written: dict[str, int]  # as LogTables.written


@dataclasses.dataclass(frozen=True)
class ReadSearch:
    """The rows of the file without exact repeats, before queries are numbered."""

    read: ReadTable
    rows: pl.DataFrame

    @staticmethod
    def of(read: ReadTable) -> ReadSearch:
        rows = read.rows
        if "item_type" not in read.sources:
            rows = rows.with_columns(pl.lit(RESULT_TYPES[0]).alias("item_type"))
        if "search_session_id" not in read.sources:
            rows = rows.with_columns(pl.lit(0, dtype=pl.Int64).alias("search_session_id"))
        return ReadSearch(read, rows)

    @property
    def spellings(self) -> pl.Series:
        """The distinct cells of `keyword`, sorted, the missing one first."""
        return self.rows["keyword"].unique().sort()


def search_rows(
    read: ReadSearch,
    spellings: pl.Series,
    query_of_spelling: pl.Series,
    quarantine: Quarantine,
    counts: dict[str, TableCount],
) -> SearchRows:
    """`query_of_spelling` numbers the query of each of `spellings`. BadInput where there is nothing to search in."""
    rows, name = read.rows, read.read.name
    numbers = pl.DataFrame({"keyword": spellings, "query": query_of_spelling})
    rows = rows.join(numbers, on="keyword", how="left", nulls_equal=True, maintain_order="left").drop("keyword")
    rows = rows.rename(
        {
            "user_id": "user",
            "search_session_id": "session",
            "search_session_timestamp": "time_ms",
            "item_id": "video",
            "click_cnt": "clicks",
        }
    )
    # The place counts every result, as the person saw them, also those of a type left out below.
    rows = rows.with_columns(pl.int_range(pl.len()).over(SESSION).alias("position"))
    keys = rows.select(SESSION).unique()
    written = {
        "sessions": len(keys),
        "clicked_rows": int((rows["clicks"] > 0).sum()),
        "reused_ids": len(keys) - keys.select("user", "session").n_unique()
        if "search_session_id" in read.read.sources
        else 0,
    }
    in_corpus = pl.col("item_type").is_in(RESULT_TYPES)
    kept = rows.filter(in_corpus)
    if kept.is_empty():
        found = "nothing" if rows.is_empty() else f"{rows['item_type'][0]!r}"
        raise BadInput(
            f"{name}, column item_type: found {found}, as no other row has {' or '.join(RESULT_TYPES)} either: there "
            "is nothing to search in"
        )
    others = rows.filter(~in_corpus)["item_type"].value_counts().sort("item_type")
    counts[name] = read.read.count(quarantine, len(kept), dict(others.iter_rows())).check(name)
    kept, sources = _numbered_sources(kept)
    columns = [*SESSION, "source", "video", "clicks", "position"]
    if any(column in read.read.sources for column in OUTCOMES):
        kept = searched(kept.rename({"playing_time": "play_ms"}))
        columns += ["play_ms", "duration_ms", "like", "follow", "forward", "told"]
    span = (int(rows["time_ms"].min()), int(rows["time_ms"].max()))
    last = rows.row(int(rows["time_ms"].arg_max()), named=True)
    last_row = f"{read.read.parts[last[PART]]}, row {last[ROW]}"
    return SearchRows(kept.select(columns), sources, *span, last_row, written)


def _numbered_sources(kept: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Adds `source`, -1 = not known, and returns the sources' names."""
    sources = tuple(kept["search_source"].drop_nulls().unique().sort())
    kinds = {"search_source": pl.String, "source": pl.Int64}
    numbers = pl.DataFrame({"search_source": sources, "source": range(len(sources))}, schema=kinds)
    kept = kept.join(numbers, on="search_source", how="left", maintain_order="left")
    return kept.with_columns(pl.col("source").fill_null(-1)), sources
