"""The one description of the log: the five tables of KuaiSAR, and what may lie beside them.

Field meanings follow the data set's own page (kuaisar.github.io, "Detailed statistics"). The two public releases name
some columns otherwise than the page: `ALIASES` lists these names. Columns that are not listed here (readable times,
category names, `search`) are neither needed nor read.
"""

from __future__ import annotations

import dataclasses
import enum

SCHEMA_VERSION = 3
"""Of the store and of the exchange format; raised whenever a column changes its meaning, type or order."""

DAY_MS = 86_400_000
EARLIEST_MS = 946_684_800_000  # 2000-01-01: no short-video log is older
LATEST_MS = 4_102_444_800_000  # 2100-01-01
PLATFORM_UTC_OFFSET_MS = 8 * 3_600_000  # dates of the log are Beijing time

RESULT_TYPES = ("VIDEO", "IMAGE_ATLAS")
"""Types of search result that belong to the corpus; USER, LIVE, COMMODITY, MUSIC, ADVERT, ... are left out."""

MISSING = ("", "\\N", "NULL", "null", "None", "nan", "NaN", "UNKNOWN", "empty")
"""Cells that say "not known"."""


class Kind(enum.Enum):
    """How a cell is written, and which values it may hold."""

    ID = "a whole number"
    KEY = "an id, a whole number >= 0"
    TIME = "a time in ms since 1970, between the years 2000 and 2100"
    SPAN = "a number of ms >= 0"
    FLAG = "0 or 1 (or true, false)"
    COUNT = "a whole number >= 0"
    WORDS = "a list of word ids such as [20, 34, 3]"
    TEXT = "text"
    DATE = "a date such as 2023-05-22, or ms since 1970"


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a file. Cells of one not `filled` may be missing; one that is not `required` may be absent."""

    name: str
    kind: Kind
    meaning: str
    filled: bool = True
    of_result: bool = False  # describes the shown result: not looked at where the result's type is left out
    verbatim: bool = False  # only an empty cell is missing: "empty" and "none" are words
    required: bool = False  # the table says nothing without it


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the log: NAME.csv, NAME.parquet, or a directory of part files.

    A required table must be there. A table that is not `expected` either is left out, and said so, in whatever odd
    state it is: no stage fails without it.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    required: bool = False
    expected: bool = True
    unique: str | None = None  # a column whose values must not repeat

    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


ALIASES = {
    "search_source": {"search_session_source": "KuaiSAR_v2 as downloaded"},
    "rec_active_level": {"reco_active_level": "KuaiSAR small as downloaded"},
}
"""By our name of a column, its other names, each with where it is seen."""

FEED = Table(
    "rec_inter",
    "one row a video that the feed showed to a user",
    (
        Column("user_id", Kind.KEY, "who watched", required=True),
        Column("item_id", Kind.KEY, "the video", required=True),
        Column("playing_time", Kind.SPAN, "how long it played; may exceed the duration (loops)", filled=False),
        Column("duration_ms", Kind.SPAN, "how long the video is; missing or 0 = not known", filled=False),
        Column("timestamp", Kind.TIME, "when the feed handed the video out, often with others", required=True),
        Column("click", Kind.FLAG, "counted as a click; in a file without it: a valid play", filled=False),
        Column("forward", Kind.FLAG, "the user passed it on", filled=False),
        Column("like", Kind.FLAG, "the user liked it", filled=False),
        Column("follow", Kind.FLAG, "the user followed its author", filled=False),
    ),
)

OUTCOMES = ("playing_time", "duration_ms", "like", "follow", "forward")
"""Columns of search results that KuaiSAR does not have."""

SEARCH = Table(
    "src_inter",
    "one row a result shown in a search session, in the order shown",
    (
        Column("user_id", Kind.KEY, "who searched", required=True),
        Column("search_session_id", Kind.ID, "with user, time and query, the session; absent: 0"),
        Column("search_session_timestamp", Kind.TIME, "when the session began", required=True),
        Column("keyword", Kind.WORDS, "the query, [] = none", filled=False, of_result=True, required=True),
        Column("search_source", Kind.TEXT, "where the search began (typed, suggested, ...)", filled=False),
        Column("item_id", Kind.KEY, "the result", of_result=True, required=True),
        Column("click_cnt", Kind.COUNT, "clicks on it in the session", of_result=True, required=True),
        Column("item_type", Kind.TEXT, f"{', '.join(RESULT_TYPES)}; any other type is left out; absent: videos"),
        Column("playing_time", Kind.SPAN, "not in KuaiSAR: how long it played", filled=False, of_result=True),
        Column("duration_ms", Kind.SPAN, "not in KuaiSAR: how long the video is", filled=False, of_result=True),
        Column("like", Kind.FLAG, "not in KuaiSAR: the user liked it", filled=False, of_result=True),
        Column("follow", Kind.FLAG, "not in KuaiSAR: the user followed its author", filled=False, of_result=True),
        Column("forward", Kind.FLAG, "not in KuaiSAR: the user passed it on", filled=False, of_result=True),
    ),
    required=True,
)

USERS = Table(
    "user_features",
    "one row a user",
    (
        Column("user_id", Kind.KEY, "the user", required=True),
        Column("search_active_level", Kind.ID, "how much the user searches, coded", filled=False),
        Column("rec_active_level", Kind.ID, "how much the user watches the feed, coded", filled=False),
        Column("onehot_feat1", Kind.ID, "an undisclosed property, coded", filled=False),
        Column("onehot_feat2", Kind.ID, "an undisclosed property, coded", filled=False),
    ),
    unique="user_id",
)

PROFILE = USERS.names()[1:]
LEVELS = ("first", "second", "third", "fourth")
CATEGORIES = tuple(f"{level}_level_category_id" for level in LEVELS)

VIDEOS = Table(
    "item_features",
    "one row a video",
    (
        Column("item_id", Kind.KEY, "the video", required=True),
        Column("caption", Kind.WORDS, "its caption; missing or [] = none", filled=False),
        Column("author_id", Kind.ID, "who made it; 0 or missing = not known", filled=False),
        Column("upload_time", Kind.DATE, "when it was uploaded; 1970-1-1 = not known", filled=False),
        Column("upload_type", Kind.TEXT, "how it was made or uploaded", filled=False),
        *(Column(name, Kind.ID, "category; 0, negative or missing = none", filled=False) for name in CATEGORIES),
    ),
    unique="item_id",
)

SOCIAL = Table(
    "social_network",
    "who follows whom; read and checked, carried in the exchange format, used by no model yet",
    (
        Column("user_id", Kind.KEY, "the follower", required=True),
        Column("user_follow_id", Kind.KEY, "whom the user follows", required=True),
    ),
    expected=False,
)

WORDS = Table(
    "words",
    "not part of KuaiSAR: makes words readable",
    (
        Column("word_id", Kind.ID, "as in keyword and caption", required=True),
        Column("word", Kind.TEXT, "the word", filled=False, verbatim=True, required=True),
    ),
    expected=False,
    unique="word_id",
)

TABLES = (FEED, SEARCH, USERS, SOCIAL, VIDEOS, WORDS)

CONTENT_FILE = "content.npy"
"""float [n, F]: brought vectors of n videos, any F >= 1, all finite. Needs CONTENT_IDS_FILE."""

CONTENT_IDS_FILE = "content_ids.npy"
"""int [n]: the item_id of each row of CONTENT_FILE, none twice."""
