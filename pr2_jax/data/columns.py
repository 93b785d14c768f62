"""The columns of the store by group. Sizes count row 0, which is *unknown* in every vocabulary."""

from __future__ import annotations

import dataclasses

import numpy as np

FEED_CHANNEL, SEARCH_CHANNEL = 0, 1


@dataclasses.dataclass(frozen=True)
class Users:
    """U rows, ascending raw id."""

    raw_id: np.ndarray  # int64 [U]
    profile: np.ndarray  # int32 [U, P], each column its own vocabulary, 0 = unknown
    profile_sizes: tuple[int, ...]  # P, unknown included
    first_event: np.ndarray  # int64 [U + 1], into events


@dataclasses.dataclass(frozen=True)
class Videos:
    """V rows, ascending raw id."""

    raw_id: np.ndarray  # int64 [V]
    author: np.ndarray  # int32 [V]
    category: np.ndarray  # int32 [V, 4], rows of one shared vocabulary
    kind: np.ndarray  # int32 [V], upload type
    upload_ms: np.ndarray  # int64 [V], 0 = unknown
    first_word: np.ndarray  # int64 [V + 1], into words
    words: np.ndarray  # int32, captions one after the other
    content: np.ndarray | None  # float32 [V, F], zeros where not brought


@dataclasses.dataclass(frozen=True)
class Queries:
    """Nq distinct word lists, by first use; row 0 = empty."""

    first_word: np.ndarray  # int64 [Nq + 1]
    words: np.ndarray  # int32


@dataclasses.dataclass(frozen=True)
class Events:
    """E feed views and clicked search results, sorted by (user, time_ms, file order); feed first at equal times."""

    user: np.ndarray  # int32
    video: np.ndarray  # int32
    query: np.ndarray  # int32, 0 for feed views
    time_ms: np.ndarray  # int64
    channel: np.ndarray  # int8, FEED_CHANNEL or SEARCH_CHANNEL
    click: np.ndarray  # bool
    like: np.ndarray  # bool
    follow: np.ndarray  # bool
    forward: np.ndarray  # bool
    play_ms: np.ndarray  # int64, 0 for search results
    duration_ms: np.ndarray  # int64, 0 = unknown


@dataclasses.dataclass(frozen=True)
class Sessions:
    """S searches, sorted by (time_ms, raw_id)."""

    raw_id: np.ndarray  # int64 [S]
    user: np.ndarray  # int32
    query: np.ndarray  # int32
    time_ms: np.ndarray  # int64
    source: np.ndarray  # int32
    first_impression: np.ndarray  # int64 [S + 1]


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Distinct videos shown, session by session, in the order shown."""

    video: np.ndarray  # int32
    position: np.ndarray  # int32, 0-based, counted over all results shown, also those of a type left out
    clicks: np.ndarray  # int32


@dataclasses.dataclass(frozen=True)
class Words:
    """W rows, ascending raw id. `text[row]` is None where words.csv has no such word."""

    raw_id: np.ndarray  # int64 [W]
    text: list[str | None]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sizes of the vocabularies (row 0 included) and numbers of rows."""

    users: int
    videos: int
    words: int
    queries: int
    authors: int
    categories: int
    kinds: int
    sources: int
    sessions: int
    impressions: int
    events: int


@dataclasses.dataclass(frozen=True)
class Cuts:
    """Global clock, ms: training is before `validation_ms`, test is [test_ms, end_ms), one day.

    [validation_ms, test_ms) is a day too, or a day and the hole without a clicked search behind it (data/cuts.py).
    """

    start_ms: int
    validation_ms: int
    test_ms: int
    end_ms: int
