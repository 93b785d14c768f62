"""When a view began, when what came of it can be known, and which of its outcomes the log tells at all.

A feed hands videos out in batches: the rows of one person with one timestamp, watched one after the other in the order
of the file. So a view begins when those before it in the batch have been played, and nothing is known of it (click,
play, like, follow, forward) before it has been played itself. What the log leaves out is unknown, which is never "no".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pr2_jax.config import LABELS
from pr2_jax.data.columns import CLICK, FOLLOW, FORWARD, LIKE, NEVER_MS, PLAY, SEARCH_SURFACE, TOLD_BY

if TYPE_CHECKING:  # readers of a store need no polars, which an accelerator image lacks
    import polars as pl

    from pr2_jax.data.columns import Events

LONGEST_MS = 1 << 40
"""No view lasts longer, 35 years: sums of what is nonsense stay within 64 bits, and far behind every cut."""
ACTIONS = {"like": LIKE, "follow": FOLLOW, "forward": FORWARD}


def timed(feed: pl.DataFrame) -> pl.DataFrame:
    """Feed views with the columns of the store: `time_ms`, `known_ms`, `told`, and nothing missing.

    `feed` in file order: `user video`, `time_ms` of the batch, `play_ms duration_ms` Int64 and `click like follow
    forward` Boolean, null = not told. Unknown numbers become 0, unknown flags False. A missing playing time counts as
    the duration, where that is known, else as nothing. The order of people in the file does not matter.
    """
    import polars as pl

    told = _told({**ACTIONS, "click": CLICK})
    feed = feed.with_columns(
        pl.coalesce("play_ms", "duration_ms", pl.lit(0)).alias("span"),
        ((told > 0) | pl.col("play_ms").is_not_null()).alias("anything"),
        told.alias("told"),
    )
    began, ended = times(*(feed[name].to_numpy() for name in ("user", "time_ms", "span")))
    known = np.where(feed["anything"].to_numpy(), ended, NEVER_MS)
    return feed.select(
        "user",
        "video",
        pl.Series("time_ms", began),
        pl.Series("known_ms", known),
        pl.col("play_ms", "duration_ms").fill_null(0),
        pl.col("click", "like", "follow", "forward").cast(pl.Boolean).fill_null(False),
        "told",
    )


def times(user_N: np.ndarray, batch_ms_N: np.ndarray, span_ms_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 `[N]` twice: when each view began, and when it ended. Rows of a person in the order watched."""
    user_N, batch_ms_N = np.asarray(user_N), np.asarray(batch_ms_N, np.int64)
    span_N = np.clip(np.asarray(span_ms_N, np.int64), 0, LONGEST_MS)
    # Most of a batch stands together: runs of rows are sorted, not rows.
    head_R, length_R = _runs(user_N, batch_ms_N)
    order = ordered(user_N[head_R], batch_ms_N[head_R])
    total_R = np.add.reduceat(span_N, head_R)[order] if len(head_R) else np.zeros(0, np.int64)
    first, runs = _runs(user_N[head_R][order], batch_ms_N[head_R][order])
    offset_R = np.empty(len(order), np.int64)
    offset_R[order] = _since_the_first(total_R, first, runs)
    began_N = _since_the_first(span_N, head_R, length_R)
    began_N += np.repeat(offset_R, length_R)
    began_N += batch_ms_N
    return began_N, began_N + span_N


def ordered(group_N: np.ndarray, time_ms_N: np.ndarray) -> np.ndarray:
    """int64 `[N]`: the order by (group, time), stable. As `np.lexsort`, in a tenth of the time where rows are nearly in
    order, since one key is sorted instead of two."""
    if not len(group_N):
        return np.zeros(0, np.int64)
    low, high, first, last = (int(x) for x in (time_ms_N.min(), time_ms_N.max(), group_N.min(), group_N.max()))
    span = high - low + 1
    if span * (last - first + 1) >= 1 << 62:
        return np.lexsort((time_ms_N, group_N))
    key_N = group_N.astype(np.int64)
    key_N -= first
    key_N *= span
    key_N += time_ms_N - low
    return np.argsort(key_N, kind="stable")


def _runs(user_N: np.ndarray, batch_ms_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of rows of one batch begins, and how long it is."""
    opens_N = np.ones(len(user_N), bool)
    opens_N[1:] = (user_N[1:] != user_N[:-1]) | (batch_ms_N[1:] != batch_ms_N[:-1])
    head_R = np.flatnonzero(opens_N)
    return head_R, np.diff(np.append(head_R, len(user_N)))


def _since_the_first(span_N: np.ndarray, head_R: np.ndarray, length_R: np.ndarray) -> np.ndarray:
    """Sums of the spans before each row in its run."""
    before_N = np.cumsum(span_N)  # may run over 64 bits on the way; differences within a run do not
    before_N -= span_N
    before_N -= np.repeat(before_N[head_R], length_R)
    return before_N


def searched(search: pl.DataFrame) -> pl.DataFrame:
    """Search rows whose `play_ms duration_ms` (Int64) and `like follow forward` (Boolean) may be null, with `told`, and
    0 and False in place of the nulls. Clicks are always told."""
    import polars as pl

    return search.with_columns(
        (_told(ACTIONS) | CLICK).alias("told"),
        pl.col("play_ms", "duration_ms").cast(pl.Int64).fill_null(0),
        pl.col("like", "follow", "forward").cast(pl.Boolean).fill_null(False),
    )


def _told(flags: dict[str, int]) -> pl.Expr:
    """UInt8: the bits of what is not null; PLAY where playing time and duration are both known."""
    import polars as pl

    told = pl.when((pl.col("duration_ms") > 0) & pl.col("play_ms").is_not_null()).then(PLAY).otherwise(0)
    told = told.cast(pl.UInt8)
    for name, bit in flags.items():
        told |= pl.when(pl.col(name).is_not_null()).then(bit).otherwise(0).cast(pl.UInt8)
    return told


def told_labels(told_x: np.ndarray, labels: Sequence[str] = LABELS) -> np.ndarray:
    """bool `[..., Y]`: which of the labels rows with these bits tell."""
    return (np.asarray(told_x)[..., None] & np.array([TOLD_BY[label] for label in labels], np.uint8)) > 0


def result_known_ms(
    time_ms_N: np.ndarray, play_ms_N: np.ndarray, duration_ms_N: np.ndarray, told_N: np.ndarray
) -> np.ndarray:
    """int64 `[N]`: when the outcome of clicked search results is known, in a log that has such outcomes: the session's
    time + the playing time; never where nothing but the click is told."""
    told = ((np.asarray(told_N) & ~np.uint8(CLICK)) > 0) | (np.asarray(play_ms_N) > 0)
    return np.where(told, np.asarray(time_ms_N) + result_span_ms(play_ms_N, duration_ms_N, told_N), NEVER_MS)


def result_span_ms(play_ms_N: np.ndarray, duration_ms_N: np.ndarray, told_N: np.ndarray) -> np.ndarray:
    """int64 `[N]`: how long results played; as in the feed, a missing playing time counts as the duration."""
    missing = (np.asarray(play_ms_N) == 0) & ((np.asarray(told_N) & PLAY) == 0)
    return np.minimum(np.where(missing, duration_ms_N, play_ms_N), LONGEST_MS)


def clicked_ms(events: Events, rows_N: np.ndarray) -> np.ndarray:
    """int64 `[N]`: when it was known of these events that they were clicked. A search result is an event because it
    was clicked, so that its click is as old as the event, and only the rest of its outcome is known later."""
    searched = np.asarray(events.surface)[rows_N] == SEARCH_SURFACE
    return np.where(searched, np.asarray(events.time_ms)[rows_N], np.asarray(events.known_ms)[rows_N])
