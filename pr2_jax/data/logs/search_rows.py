"""Keys search results by session and counts the sessions and clicks of the whole file."""

from __future__ import annotations

from typing import Any

import polars as pl

from pr2_jax.data.columns import RESULT_OUTCOMES
from pr2_jax.data.logs.quarantine import Quarantine
from pr2_jax.data.logs.reading import PART, ReadTable, TableCount
from pr2_jax.data.logs.records import ROW
from pr2_jax.data.outcomes import searched
from pr2_jax.data.schema import OUTCOMES, RESULT_TYPES
from pr2_jax.errors import BadInput

NAMES = {
    "user_id": "user", "search_session_id": "session", "search_session_timestamp": "time_ms", "item_id": "video",
    "click_cnt": "clicks",
}  # fmt: skip
SESSION = ("user", "session", "time_ms", "query")
"""What a session is: the public logs use a person's session id again, hours later and for another query."""


def search_rows(
    read: ReadTable,
    spellings: pl.Series,
    query_of_spelling: pl.Series,
    quarantine: Quarantine,
    counts: dict[str, TableCount],
) -> dict[str, Any]:
    """The fields of `LogTables` that searches alone say; `start_ms` is the time of the first row, whatever its type.

    `query_of_spelling` numbers the query of each of `spellings`. BadInput where there is nothing to search in.
    """
    rows, name = read.rows, read.name
    if "item_type" not in read.sources:
        rows = rows.with_columns(pl.lit(RESULT_TYPES[0]).alias("item_type"))
    if "search_session_id" not in read.sources:
        rows = rows.with_columns(pl.lit(0, dtype=pl.Int64).alias("search_session_id"))
    numbers = pl.DataFrame({"keyword": spellings, "query": query_of_spelling})
    rows = rows.join(numbers, on="keyword", how="left", nulls_equal=True, maintain_order="left").rename(NAMES)
    # The place counts every result, as the person saw them, also those of a type left out below.
    rows = rows.with_columns(pl.int_range(pl.len()).over(SESSION).alias("position"))
    keys = rows.select(SESSION).unique()
    reused = len(keys) - keys.select("user", "session").n_unique() if "search_session_id" in read.sources else 0
    written = {"sessions": len(keys), "clicked_rows": int((rows["clicks"] > 0).sum()), "reused_ids": reused}
    in_corpus = pl.col("item_type").is_in(RESULT_TYPES)
    kept = rows.filter(in_corpus)
    if kept.is_empty():
        found = "nothing" if rows.is_empty() else f"{rows['item_type'][0]!r}"
        raise BadInput(
            f"{name}, column item_type: found {found}, as no other row has {' or '.join(RESULT_TYPES)} either: there "
            "is nothing to search in"
        )
    others = rows.filter(~in_corpus)["item_type"].value_counts().sort("item_type")
    counts[name] = read.count(quarantine, len(kept), dict(others.iter_rows())).check(name)
    sources = tuple(kept["search_source"].drop_nulls().unique().sort())
    source = (pl.col("search_source").rank("dense").cast(pl.Int64) - 1).fill_null(-1).alias("source")
    columns = [*SESSION, source, "video", "clicks", "position"]
    if any(column in read.sources for column in OUTCOMES):
        kept = searched(kept.rename({"playing_time": "play_ms"}))
        columns += RESULT_OUTCOMES
    last = rows.row(int(rows["time_ms"].arg_max()), named=True)
    return {
        "search": kept.select(columns),
        "sources": sources,
        "start_ms": int(rows["time_ms"].min()),
        "end_ms": last["time_ms"] + 1,
        "last_row": f"{read.parts[last[PART]]}, row {last[ROW]}",
        "written": written,
    }
