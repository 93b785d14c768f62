"""The exchange format: a log as a TFDS dataset, in five parts (builder configs).

Part `timelines` has one example a user, the others have chunks of columns: an example a row costs about 0.1 ms to
decode, a chunk of 4,096 rows as little. A column of changing length is `Tensor((None,))`, which decodes to an array
(`Sequence` would give a list).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import tensorflow_datasets as tfds

from pr2_jax.data.columns import RESULT_OUTCOMES
from pr2_jax.data.logs.log_tables import LogTables
from pr2_jax.data.schema import CATEGORIES, PROFILE

SPLIT = "log"
CHUNK = 4_096
NOT_KNOWN = np.iinfo(np.int64).min  # stands for null in int64 columns
PARTS = {
    "timelines": "one example a user: profile, who the user follows, feed views, shown search results",
    "videos": "the catalogue, 4,096 videos an example",
    "queries": "distinct queries, 4,096 an example; search_query of a timeline counts through them",
    "words": "the text of words, where known",
    "content": "brought content vectors, flattened",
}

FEED_COLUMNS = dict.fromkeys(("video", "time_ms", "known_ms", "play_ms", "duration_ms"), np.int64)
FEED_COLUMNS |= dict.fromkeys(("click", "like", "follow", "forward"), np.bool_) | {"told": np.uint8}
SEARCH_COLUMNS = ("session", "time_ms", "query", "source", "video", "clicks", "position")
RESULT_COLUMNS = {name: FEED_COLUMNS[name] for name in RESULT_OUTCOMES}
"""Outcomes of search results other than clicks; empty where the log has none."""

Example = dict[str, Any]


def features(part: str) -> tfds.features.FeaturesDict:
    """The columns of one part."""

    def ragged(dtype: type = np.int64) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=(None,), dtype=dtype)

    def scalar(dtype: type = np.int64) -> tfds.features.Scalar:
        return tfds.features.Scalar(dtype=dtype)

    columns: dict[str, dict[str, Any]] = {
        "timelines": {
            "user": scalar(),
            "described": scalar(np.bool_),  # has a row in user_features
            "profile": tfds.features.Tensor(shape=(len(PROFILE),), dtype=np.int64),
            "follows": ragged(),
            **{f"feed_{name}": ragged(dtype) for name, dtype in FEED_COLUMNS.items()},
            **{f"search_{name}": ragged() for name in SEARCH_COLUMNS},
            **{f"search_{name}": ragged(dtype) for name, dtype in RESULT_COLUMNS.items()},
        },
        "videos": {
            "video": ragged(),
            "author": ragged(),
            "kind": ragged(np.str_),
            "upload_ms": ragged(),
            "category": tfds.features.Tensor(shape=(None, len(CATEGORIES)), dtype=np.int64),
            "words": ragged(),
            "length": ragged(),
        },
        "queries": {"words": ragged(), "length": ragged()},
        "words": {"word": ragged(), "text": ragged(np.str_)},
        "content": {"video": ragged(), "vectors": ragged(np.float32)},
    }
    return tfds.features.FeaturesDict(columns[part])


def metadata(tables: LogTables) -> dict[str, Any]:
    """What no row holds."""
    return {
        "start_ms": tables.start_ms,
        "end_ms": tables.end_ms,
        "sources": list(tables.sources),
        "counts": {name: dataclasses.asdict(count) for name, count in tables.counts.items()},
        "left_out": tables.left_out,
        "unread": list(tables.unread),
        "written": tables.written,
        "result_outcomes": "told" in tables.search.columns,
        "content_width": 0 if tables.content is None else int(tables.content.vectors.shape[1]),
    }


def examples(part: str, tables: LogTables) -> Iterator[tuple[int, Example]]:
    """(key, example), in order."""
    makers = {"timelines": _timelines, "videos": _videos, "queries": _queries, "words": _words, "content": _content}
    return enumerate(makers[part](tables))


def _timelines(tables: LogTables) -> Iterator[Example]:
    """Rows of a user stay in file order."""
    frames = {"feed": tables.feed, "search": tables.search, "social": tables.social}
    frames = {name: frame.sort("user", maintain_order=True) for name, frame in frames.items()}
    users = np.unique(np.concatenate([frame["user"].to_numpy() for frame in (*frames.values(), tables.users)]))
    profile = np.full((len(users), len(PROFILE)), NOT_KNOWN)
    described = np.zeros(len(users), bool)
    rows = np.searchsorted(users, tables.users["user"].to_numpy())
    described[rows] = True
    profile[rows] = tables.users.select(PROFILE).fill_null(int(NOT_KNOWN)).to_numpy()
    edges = {
        name: np.searchsorted(frame["user"].to_numpy(), np.append(users, np.iinfo(np.int64).max))
        for name, frame in frames.items()
    }
    told = tuple(name for name in RESULT_COLUMNS if name in tables.search.columns)
    names = {"feed": tuple(FEED_COLUMNS), "search": SEARCH_COLUMNS + told, "social": ("follows",)}
    absent = {f"search_{name}": np.zeros(0, kind) for name, kind in RESULT_COLUMNS.items() if name not in told}
    columns = {
        "follows" if group == "social" else f"{group}_{name}": (edges[group], frames[group][name].to_numpy())
        for group in frames
        for name in names[group]
    }
    for row, user in enumerate(users):
        cut = {name: column[edge[row] : edge[row + 1]] for name, (edge, column) in columns.items()}
        yield {"user": user, "described": described[row], "profile": profile[row]} | cut | absent


def _videos(tables: LogTables) -> Iterator[Example]:
    for chunk in _chunks(tables.videos):
        yield {
            "video": chunk["video"].to_numpy(),
            "author": chunk["author"].fill_null(int(NOT_KNOWN)).to_numpy(),
            "kind": _text_array(chunk["kind"]),
            "upload_ms": chunk["upload_ms"].to_numpy(),
            "category": chunk.select(CATEGORIES).fill_null(int(NOT_KNOWN)).to_numpy(),
        } | _flat(chunk["words"])


def _queries(tables: LogTables) -> Iterator[Example]:
    for chunk in _chunks(pl.DataFrame({"words": tables.queries})):
        yield _flat(chunk["words"])


def _words(tables: LogTables) -> Iterator[Example]:
    for chunk in _chunks(tables.words):
        yield {"word": chunk["word"].to_numpy(), "text": _text_array(chunk["text"])}


def _content(tables: LogTables) -> Iterator[Example]:
    brought = tables.content
    if brought is None:
        yield {"video": np.zeros(0, np.int64), "vectors": np.zeros(0, np.float32)}
        return
    for start in range(0, len(brought.ids), CHUNK):
        cut = slice(start, start + CHUNK)
        yield {"video": brought.ids[cut], "vectors": brought.vectors[cut].ravel()}


def _chunks(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """At least one, be it empty: TFDS refuses a split without examples."""
    yield from frame.iter_slices(CHUNK) if len(frame) else [frame]


def _flat(lists: pl.Series) -> Example:
    return {
        "words": lists.explode(empty_as_null=False).to_numpy().astype(np.int64),
        "length": lists.list.len().to_numpy().astype(np.int64),
    }


def _text_array(texts: pl.Series) -> np.ndarray:
    return np.array(texts.fill_null("").to_list(), dtype=object)
