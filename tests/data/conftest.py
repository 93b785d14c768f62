"""A small log in KuaiSAR's format, made in memory so that a test can spoil a cell before it is written."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.schema import FEED, SEARCH, USERS
from pr2_jax.data.store.log_store import LogStore

START_MS = 1_684_737_000_000
DAY_MS = 86_400_000
DAYS = 4


@dataclasses.dataclass
class TinyLog:
    """`tables[name][0]` is the header, the rest are rows of text. Row i of a table is line i + 1 of its file."""

    tables: dict[str, list[list[str]]]
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def column(self, table: str, name: str) -> list[str]:
        place = self.tables[table][0].index(name)
        return [row[place] for row in self.tables[table][1:]]

    def put(self, table: str, line: int, name: str, value: str) -> None:
        """Overwrites the cell of the file's line (header = 1)."""
        self.tables[table][line - 1][self.tables[table][0].index(name)] = value

    def put_all(self, table: str, name: str, values: list[str]) -> None:
        for line, value in enumerate(values, start=2):
            self.put(table, line, name, value)

    def rename(self, table: str, old: str, new: str) -> None:
        header = self.tables[table][0]
        header[header.index(old)] = new

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, rows in self.tables.items():
            with (directory / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        for name, array in self.arrays.items():
            np.save(directory / name, array)
        return directory


def _words(ids: np.ndarray) -> str:
    return "[" + ", ".join(str(word) for word in ids) + "]"


def _search_rows(rng: np.random.Generator, users: np.ndarray, videos: np.ndarray) -> list[list[str]]:
    """80 sessions of 6 results; each third shows a USER and a LIVE result among them."""
    rows = []
    times = np.sort(rng.integers(START_MS, START_MS + DAYS * DAY_MS, 80))
    for number, time_ms in enumerate(times):
        query = _words(rng.choice(40, int(rng.integers(1, 4)), replace=False) + 1)
        user, session = str(rng.choice(users)), str(900 - number)  # ids fall while time rises
        source = ("USER_INPUT", "RELATED_SEARCH")[number % 2]
        shown = rng.choice(videos, 6, replace=False)
        kinds = ["VIDEO", "USER", "VIDEO", "IMAGE_ATLAS", "LIVE", "VIDEO"] if number % 3 == 0 else ["VIDEO"] * 6
        clicked = int(rng.integers(0, 6))
        for place, (video, kind) in enumerate(zip(shown, kinds, strict=True)):
            clicks = str(int(place == clicked and kind == "VIDEO"))
            rows.append([user, session, "", str(time_ms), query, source, str(video), clicks, kind])
    return rows


def _feed_rows(rng: np.random.Generator, users: np.ndarray, videos: np.ndarray) -> list[list[str]]:
    rows = []
    for time_ms in np.sort(rng.integers(START_MS, START_MS + DAYS * DAY_MS, 300)):
        click, like, follow, forward = (rng.random(4) < [0.5, 0.1, 0.02, 0.02]).astype(int)
        duration = int(rng.integers(5_000, 120_000))
        play = f"{rng.random() * 1.5 * duration:.1f}"
        ids = [str(rng.choice(users)), str(rng.choice(videos))]
        flags = [str(flag) for flag in (click, forward, like, follow)]
        rows.append([*ids, play, f"{duration}.0", "", f"{time_ms}.0", *flags, "0", "0"])
    return rows


def make_tiny_log() -> TinyLog:
    """12 users, 30 videos, 4 days. User 112 and video 10**12 stand in the interactions only."""
    rng = np.random.default_rng(7)
    users, videos = np.arange(101, 113), np.append(np.arange(1, 30), 10**12)
    levels = ("first", "second", "third", "fourth")
    names = [f"{level}_level_category_{part}" for level in levels for part in ("id", "name", "name_en")]
    items = []
    for video in videos[:-1]:
        caption = _words(rng.integers(1, 31, int(rng.integers(1, 8)))) if video % 7 else "[]"
        ids = [str(rng.integers(1, 6)), ("-1", "0", "")[video % 3], str(rng.integers(1, 6)), "0"]
        categories = [cell for number in ids for cell in (number, "x", "x")]
        upload = ("2023-04-22", "1970-1-1", "2023-05-01 08:30:00", "1682000000000")[video % 4]
        author, kind = str(video % 5), ("LongImport", "ShortCamera", "")[video % 3]
        items.append([str(video), caption, author, "NORMAL", upload, kind, *categories])
    profiles = [[str(user), str(user % 4), str(user % 3), str(user % 2), ""] for user in users[:-1]]
    return TinyLog(
        {
            "rec_inter": [
                [*FEED.names()[:4], "time", *FEED.names()[4:], "search", "search_item_related"],
                *_feed_rows(rng, users, videos),
            ],
            "src_inter": [
                [*SEARCH.names()[:2], "search_session_time", *SEARCH.names()[2:8]],
                *_search_rows(rng, users, videos),
            ],
            "user_features": [
                list(USERS.names()),
                *profiles,
            ],
            "social_network": [["user_id", "user_follow_id"], ["101", "102"], ["101", "103"], ["105", "101"]],
            "item_features": [
                ["item_id", "caption", "author_id", "item_type", "upload_time", "upload_type", *names],
                *items,
            ],
            "words": [["word_id", "word"], *([str(word), f"w{word}"] for word in range(1, 39)), ["39", "None"]],
        }
    )


@pytest.fixture(scope="session")
def make_log() -> Callable[[], TinyLog]:
    """For tests that need many."""
    return make_tiny_log


def crowded(log: TinyLog, size: int = 5) -> TinyLog:
    """The same with feed views in batches that take hours, so that many searches fall into one; some cells missing."""
    rows = log.tables["rec_inter"][1:]
    for place, row in enumerate(rows):
        row[0], row[5] = rows[place - place % size][0], rows[place - place % size][5]
        row[2], row[3] = f"{100 * float(row[2]):.1f}", f"{100 * float(row[3])}"
        for every, cells in ((11, [2]), (17, [3]), (13, [8]), (19, [6]), (29, [2, 6, 7, 8, 9]), (37, [2, 3])):
            if place % every == 3:
                for cell in cells:
                    row[cell] = ""
    return log


@pytest.fixture
def tiny() -> TinyLog:
    return make_tiny_log()


@pytest.fixture
def tiny_dir(tiny: TinyLog, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "log")


@pytest.fixture
def crowded_log() -> TinyLog:
    return crowded(make_tiny_log())


@pytest.fixture
def crowded_store(crowded_log: TinyLog, tmp_path: Path) -> LogStore:
    """Of a log of batches: what was begun and what was known differ at most searches."""
    directory = crowded_log.write(tmp_path / "crowded")
    return LogStore.from_tables(read_log(directory, DataConfig()))


@pytest.fixture
def store(crowded_store: LogStore) -> LogStore:
    return crowded_store


@pytest.fixture
def reader(store: LogStore) -> EventReader:
    return EventReader(store, LongPlay.fit(store, store.cuts.validation_ms, DataConfig()))
