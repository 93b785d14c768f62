"""The columns of the store by group. Sizes count row 0, which is *unknown* in every vocabulary."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.config import LABELS

FEED_SURFACE, SEARCH_SURFACE = 0, 1

PLAY, CLICK, LIKE, FOLLOW, FORWARD = 1, 2, 4, 8, 16
"""Bits of `told`: the log says how long it was played of how long a video, whether it was clicked, ..."""
EVERYTHING = PLAY | CLICK | LIKE | FOLLOW | FORWARD
TOLD_BY = dict(zip(LABELS, (CLICK, PLAY, LIKE, FOLLOW, FORWARD), strict=True))
"""By label, the bit of `told` that says whether a row has it."""
SIGNALS = ("click", "like", "follow", "forward", "long_play", "log_played", "share_played", "searched")
"""Columns of the `signals` of an event, `[..., G]`: how it went, log seconds and share of the video played, and whether
it was a search result (data/history/event_reader.py computes them)."""
NEVER_MS = int(np.iinfo(np.int64).max)
"""`known_ms` of a view of which no outcome is told (or not yet: the leak probe)."""


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
    """E feed views and clicked search results, sorted by (user, time_ms, file order); feed first at equal times.

    A request is told of a view that began strictly before it, and of what came of it where that was known strictly
    before it (data/outcomes.py). What is not told is False or 0.
    """

    user: np.ndarray  # int32
    video: np.ndarray  # int32
    query: np.ndarray  # int32, 0 for feed views
    time_ms: np.ndarray  # int64, when the view began
    surface: np.ndarray  # int8, FEED_SURFACE or SEARCH_SURFACE
    click: np.ndarray  # bool
    like: np.ndarray  # bool
    follow: np.ndarray  # bool
    forward: np.ndarray  # bool
    play_ms: np.ndarray  # int64, 0 = unknown
    duration_ms: np.ndarray  # int64, 0 = unknown
    known_ms: np.ndarray  # int64, when what came of it was known; of a search result all but the click
    told: np.ndarray  # uint8, bits of what is known: PLAY, CLICK, LIKE, FOLLOW, FORWARD


@dataclasses.dataclass(frozen=True)
class Sessions:
    """S searches, sorted by (time_ms, raw_id, user, query); together these four are one session, an id alone is not."""

    raw_id: np.ndarray  # int64 [S], may repeat
    user: np.ndarray  # int32
    query: np.ndarray  # int32
    time_ms: np.ndarray  # int64
    source: np.ndarray  # int32
    first_impression: np.ndarray  # int64 [S + 1]


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Distinct videos shown, session by session, in the order shown.

    The last six are None where the log has no outcomes of search results but clicks.
    """

    video: np.ndarray  # int32
    position: np.ndarray  # int32, 0-based, counted over all results shown, also those of a type left out
    clicks: np.ndarray  # int32
    play_ms: np.ndarray | None = None  # int64, 0 = unknown
    duration_ms: np.ndarray | None = None  # int64, 0 = unknown
    like: np.ndarray | None = None  # bool
    follow: np.ndarray | None = None  # bool
    forward: np.ndarray | None = None  # bool
    told: np.ndarray | None = None  # uint8, as of events


RESULT_OUTCOMES = ("play_ms", "duration_ms", "like", "follow", "forward", "told")
"""What `Impressions` may lack."""


@dataclasses.dataclass(frozen=True)
class Words:
    """W rows, ascending raw id. `text[row]` is None where words.csv has no such word."""

    raw_id: np.ndarray  # int64 [W]
    text: list[str | None]


GROUPS = {
    "users": Users, "videos": Videos, "queries": Queries, "events": Events, "sessions": Sessions,
    "impressions": Impressions, "words": Words,
}  # fmt: skip
"""Groups of columns, in the order of files."""


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

    [validation_ms, test_ms) is a day too, or a day and the hole without a clicked search behind it (data/periods.py).
    """

    start_ms: int
    validation_ms: int
    test_ms: int
    end_ms: int
