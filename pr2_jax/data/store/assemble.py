"""Assembly of the store's columns from `LogTables`, in memory. Only here raw ids become rows."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import polars as pl

from pr2_jax.data import outcomes
from pr2_jax.data.columns import (
    CLICK,
    FEED_SURFACE,
    RESULT_OUTCOMES,
    SEARCH_SURFACE,
    Counts,
    Cuts,
    Events,
    Impressions,
    Queries,
    Sessions,
    Users,
    Videos,
    Words,
)
from pr2_jax.data.logs.log_tables import SESSION, LogTables
from pr2_jax.data.periods import cuts_of
from pr2_jax.data.schema import CATEGORIES, PROFILE
from pr2_jax.data.store.assembled import Assembled, rows_of

EVENT_TYPES = dict(user=np.int32, video=np.int32, query=np.int32, time_ms=np.int64, surface=np.int8)
EVENT_TYPES |= dict(click=bool, like=bool, follow=bool, forward=bool)
EVENT_TYPES |= dict(play_ms=np.int64, duration_ms=np.int64, known_ms=np.int64, told=np.uint8)


def vocabulary(*raw: np.ndarray) -> np.ndarray:
    """Raw ids by row: row 0 (unknown, shown as -1), then the distinct ids ascending."""
    # Polars' hashed unique is ten times as fast as np.unique's sort.
    distinct = pl.concat([pl.Series("id", part, dtype=pl.Int64).unique() for part in raw]).unique().sort()
    return np.concatenate([[-1], distinct.to_numpy()]).astype(np.int64)


def assemble(tables: LogTables) -> dict[str, Any]:
    """The fields of a `LogStore` but its fingerprint. They do not depend on the order of users or videos in the
    tables."""
    cuts = cuts_of(tables.search, tables.start_ms, tables.end_ms)
    ids = {name: tables.feed[name].to_numpy() for name in ("user", "video")}
    user_vocabulary = vocabulary(ids["user"], tables.search["user"].to_numpy(), tables.users["user"].to_numpy())
    video_vocabulary = vocabulary(ids["video"], tables.search["video"].to_numpy(), tables.videos["video"].to_numpy())
    words = _words(tables, cuts)
    shown = _shown_in_order(tables, user_vocabulary, video_vocabulary)
    shown, queries = _queries(shown, tables.queries, words.raw_id)
    sessions, impressions = _sessions(shown)
    events, first_event = _events(tables.feed, shown, user_vocabulary, video_vocabulary)
    profile, profile_sizes = _profile(tables.users, user_vocabulary)
    videos, sizes, kind_names = _videos(tables, video_vocabulary, words.raw_id)
    counts = Counts(
        users=len(user_vocabulary),
        videos=len(video_vocabulary),
        words=len(words.raw_id),
        queries=len(queries.first_word) - 1,
        **sizes,
        kinds=len(kind_names) + 1,
        sources=len(tables.sources) + 1,
        sessions=len(sessions.raw_id),
        impressions=len(impressions.video),
        events=len(events.user),
    )
    users = Users(user_vocabulary, profile, profile_sizes, first_event)
    found = {"users": users, "videos": videos, "queries": queries, "words": words, "counts": counts, "cuts": cuts}
    found |= {"events": events, "sessions": sessions, "impressions": impressions}
    return found | {"source_names": tables.sources, "kind_names": kind_names}


def assemble_like(tables: LogTables, like: Assembled) -> dict[str, Any]:
    """Events, sessions and impressions of a log that is a part of `like`, in the vocabularies of `like`.

    Ids that `like` lacks go to row 0. The leak probe compares the two logs.
    """
    shown = _shown_in_order(tables, like.users.raw_id, like.videos.raw_id)
    shown, own = _queries(shown, tables.queries, like.words.raw_id)
    source_of = {name: row for row, name in enumerate(like.source_names)}
    source = np.array([*(source_of.get(name, -1) for name in tables.sources), -1], np.int64)
    shown = shown.with_columns(
        pl.Series("query", _queries_of(like, own)[shown["query"].to_numpy()]),
        pl.Series("source", source[shown["source"].to_numpy()]),
    )
    sessions, impressions = _sessions(shown)
    events, first_event = _events(tables.feed, shown, like.users.raw_id, like.videos.raw_id)
    sizes = {"sessions": len(sessions.raw_id), "impressions": len(impressions.video), "events": len(events.user)}
    users, counts = dataclasses.replace(like.users, first_event=first_event), dataclasses.replace(like.counts, **sizes)
    return {"users": users, "events": events, "sessions": sessions, "impressions": impressions, "counts": counts}


def _queries_of(like: Assembled, own: Queries) -> np.ndarray:
    """int32 [Nq]: rows in `like` of another log's queries.

    Queries that differ only in unknown words have equal word rows. Both logs number queries by first use, so that the
    n-th of such queries is the n-th in `like`, too.
    """

    def keys(queries: Queries) -> list[bytes]:
        words, first = np.asarray(queries.words, np.int32), np.asarray(queries.first_word)
        return [words[first[row] : first[row + 1]].tobytes() for row in range(1, len(first) - 1)]

    rows: dict[bytes, collections.deque[int]] = collections.defaultdict(collections.deque)
    for row, key in enumerate(keys(like.queries), start=1):
        rows[key].append(row)
    return np.array([0, *(rows[key].popleft() if rows[key] else 0 for key in keys(own))], np.int32)


def _words(tables: LogTables, cuts: Cuts) -> Words:
    """Vocabulary of caption words and of words of queries before the validation cut."""
    early = tables.search.filter(pl.col("time_ms") < cuts.validation_ms)["query"].unique()
    asked = tables.queries.gather(early).explode(empty_as_null=False).to_numpy()
    raw_id = vocabulary(tables.videos["words"].explode(empty_as_null=False).to_numpy(), asked)
    rows = rows_of(raw_id, tables.words["word"].to_numpy())
    text: list[str | None] = [None] * len(raw_id)
    for row, word in zip(rows.tolist(), tables.words["text"].to_list(), strict=True):
        if row:
            text[row] = word
    return Words(raw_id, text)


def _shown_in_order(tables: LogTables, user_vocabulary: np.ndarray, video_vocabulary: np.ndarray) -> pl.DataFrame:
    """Search rows in the order of `Sessions`, with rows for ids; one per shown video, at its first place, with all
    clicks."""
    search = tables.search.with_columns(
        pl.Series("user", rows_of(user_vocabulary, tables.search["user"].to_numpy())),
        pl.Series("video", rows_of(video_vocabulary, tables.search["video"].to_numpy())),
    )
    search = search.sort("time_ms", "session", "user", "query", "position", maintain_order=True)
    told = {}
    if "told" in search.columns:  # of a video that was shown twice, the outcomes of either
        told = {name: pl.col(name).max() for name in ("play_ms", "duration_ms", "like", "follow", "forward")}
        told["told"] = pl.col("told").bitwise_or()
    return search.group_by(*SESSION, "video", maintain_order=True).agg(
        pl.col("source", "position").first(), pl.col("clicks").sum(), **told
    )


def _queries(shown: pl.DataFrame, lists: pl.Series, word_ids: np.ndarray) -> tuple[pl.DataFrame, Queries]:
    """Numbers queries by first use, so that no row depends on later searches."""
    lengths = lists.list.len().to_numpy().astype(np.int64)
    used = shown["query"].unique(maintain_order=True).to_numpy()
    used = used[lengths[used] > 0]
    row_of = np.zeros(len(lists), np.int32)
    row_of[used] = np.arange(1, len(used) + 1)
    words = lists.gather(used).explode(empty_as_null=False).to_numpy()
    first = np.concatenate([[0, 0], np.cumsum(lengths[used])]).astype(np.int64)
    numbered = shown.with_columns(pl.Series("query", row_of[shown["query"].to_numpy()]))
    return numbered, Queries(first, rows_of(word_ids, words))


def _sessions(shown: pl.DataFrame) -> tuple[Sessions, Impressions]:
    starts = shown.select(pl.struct(SESSION).rle_id().is_first_distinct()).to_series().arg_true().to_numpy()
    head = shown[starts]
    sessions = Sessions(
        raw_id=head["session"].to_numpy(),
        user=head["user"].to_numpy().astype(np.int32),
        query=head["query"].to_numpy().astype(np.int32),
        time_ms=head["time_ms"].to_numpy(),
        source=(head["source"].to_numpy() + 1).astype(np.int32),
        first_impression=np.append(starts, len(shown)).astype(np.int64),
    )
    impressions = Impressions(
        video=shown["video"].to_numpy().astype(np.int32),
        position=shown["position"].to_numpy().astype(np.int32),
        clicks=np.minimum(shown["clicks"].to_numpy(), np.iinfo(np.int32).max).astype(np.int32),
        **{name: shown[name].to_numpy() for name in RESULT_OUTCOMES if name in shown.columns},
    )
    return sessions, impressions


def _events(
    feed: pl.DataFrame, shown: pl.DataFrame, user_vocabulary: np.ndarray, video_vocabulary: np.ndarray
) -> tuple[Events, np.ndarray]:
    """The events of both surfaces, and where each user's begin."""
    clicked = _with_outcomes(shown.filter(pl.col("clicks") > 0))
    clicked = clicked.with_columns(click=pl.lit(True), surface=pl.lit(SEARCH_SURFACE))
    views = feed.with_columns(
        pl.Series("user", rows_of(user_vocabulary, feed["user"].to_numpy())),
        pl.Series("video", rows_of(video_vocabulary, feed["video"].to_numpy())),
        query=pl.lit(0),
        surface=pl.lit(FEED_SURFACE),
    )

    def column(name: str) -> np.ndarray:
        return np.concatenate([views[name].to_numpy(), clicked[name].to_numpy()])

    order = outcomes.ordered(column("user"), column("time_ms"))  # stable: feed before search, file order within each
    events = Events(**{name: column(name)[order].astype(kind) for name, kind in EVENT_TYPES.items()})
    return events, np.searchsorted(events.user, np.arange(len(user_vocabulary) + 1)).astype(np.int64)


def _with_outcomes(clicked: pl.DataFrame) -> pl.DataFrame:
    """Clicked results with the columns of events. Without outcomes their click is known with the session."""
    if "told" in clicked.columns:
        columns = (clicked[name].to_numpy() for name in ("time_ms", "play_ms", "duration_ms", "told"))
        return clicked.with_columns(pl.Series("known_ms", outcomes.result_known_ms(*columns)))
    none, zero = pl.lit(False), pl.lit(0, pl.Int64)
    return clicked.with_columns(
        known_ms="time_ms", play_ms=zero, duration_ms=zero, like=none, follow=none, forward=none,
        told=pl.lit(CLICK, pl.UInt8),
    )  # fmt: skip


def _profile(users: pl.DataFrame, user_vocabulary: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    rows = rows_of(user_vocabulary, users["user"].to_numpy())
    profile = np.zeros((len(user_vocabulary), len(PROFILE)), np.int32)
    sizes = []
    for place, name in enumerate(PROFILE):
        column = users[name]
        values = column.drop_nulls().unique().sort().to_numpy()
        known = column.is_not_null().to_numpy()
        profile[rows[known], place] = np.searchsorted(values, column.drop_nulls().to_numpy()) + 1
        sizes.append(len(values) + 1)
    return profile, tuple(sizes)


def _videos(
    tables: LogTables, video_vocabulary: np.ndarray, word_ids: np.ndarray
) -> tuple[Videos, dict[str, int], tuple[str, ...]]:
    """Attributes by video row; videos without a description have zeros and an empty caption."""
    described = tables.videos.sort("video")
    rows = rows_of(video_vocabulary, described["video"].to_numpy())
    size = len(video_vocabulary)
    authors = vocabulary(described["author"].drop_nulls().to_numpy())
    categories = vocabulary(*(described[name].drop_nulls().to_numpy() for name in CATEGORIES))
    kind_names = tuple(described["kind"].drop_nulls().unique().sort())
    author, kind = np.zeros(size, np.int32), np.zeros(size, np.int32)
    category = np.zeros((size, len(CATEGORIES)), np.int32)
    author[rows] = rows_of(authors, described["author"].fill_null(-1).to_numpy())
    for level, name in enumerate(CATEGORIES):
        category[rows, level] = rows_of(categories, described[name].fill_null(-1).to_numpy())
    for number, name in enumerate(kind_names, start=1):
        kind[rows[(described["kind"] == name).fill_null(False).to_numpy()]] = number
    upload_ms = np.zeros(size, np.int64)
    upload_ms[rows] = described["upload_ms"].to_numpy()
    lengths = np.zeros(size, np.int64)
    lengths[rows] = described["words"].list.len().to_numpy()
    videos = Videos(
        raw_id=video_vocabulary,
        author=author,
        category=category,
        kind=kind,
        upload_ms=upload_ms,
        first_word=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        words=rows_of(word_ids, described["words"].explode(empty_as_null=False).to_numpy()),
        content=_content(tables, video_vocabulary),
    )
    return videos, {"authors": len(authors), "categories": len(categories)}, kind_names


def _content(tables: LogTables, video_vocabulary: np.ndarray) -> np.ndarray | None:
    if tables.content is None:
        return None
    rows = rows_of(video_vocabulary, tables.content.ids)
    vectors = np.zeros((len(video_vocabulary), tables.content.vectors.shape[1]), np.float32)
    vectors[rows[rows > 0]] = tables.content.vectors[rows > 0]
    return vectors
