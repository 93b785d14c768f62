"""A log back from its exchange format, as anybody could read it: nothing in pr2 does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import tensorflow_datasets as tfds

from pr2_jax.data.exchange.exchange_format import (
    FEED_COLUMNS,
    NOT_KNOWN,
    PARTS,
    RESULT_COLUMNS,
    SEARCH_COLUMNS,
    SPLIT,
)
from pr2_jax.data.logs.content_files import BroughtContent
from pr2_jax.data.logs.log_tables import LogTables, TableCount
from pr2_jax.data.logs.quarantine import COLUMNS
from pr2_jax.data.schema import CATEGORIES, PROFILE


def read_exchange(directories: dict[str, Path]) -> LogTables:
    """A log from the prepared parts, each given by the directory that holds its `dataset_info.json`."""
    builders = {part: tfds.builder_from_directory(str(directories[part])) for part in PARTS}
    # A plain dict again: MetadataDict is one that JSON filled.
    said = dict(builders["timelines"].info.metadata)
    columns = {part: _columns(builders[part]) for part in PARTS}
    timelines, videos = columns["timelines"], columns["videos"]
    users = np.concatenate(timelines["user"])
    described = np.concatenate(timelines["described"])
    profile = pl.DataFrame(np.stack(timelines["profile"])[described], schema=dict.fromkeys(PROFILE, pl.Int64))
    category = pl.DataFrame(np.concatenate(videos["category"]), schema=dict.fromkeys(CATEGORIES, pl.Int64))
    texts = _strings(columns["words"]["text"])
    return LogTables(
        feed=_of_users(users, timelines, "feed", tuple(FEED_COLUMNS)),
        search=_of_users(users, timelines, "search", SEARCH_COLUMNS + tuple(RESULT_COLUMNS) * said["result_outcomes"]),
        queries=_lists(columns["queries"]).rename("words"),
        sources=tuple(said["sources"]),
        users=profile.select(pl.lit(pl.Series("user", users[described])), pl.all().replace(NOT_KNOWN, None)),
        social=pl.DataFrame(
            {
                "user": np.repeat(users, [len(follows) for follows in timelines["follows"]]),
                "follows": np.concatenate(timelines["follows"]),
            }
        ),
        videos=pl.DataFrame(
            {
                "video": np.concatenate(videos["video"]),
                "words": _lists(videos),
                "author": np.concatenate(videos["author"]),
                "kind": pl.Series(_strings(videos["kind"]), dtype=pl.String),
                "upload_ms": np.concatenate(videos["upload_ms"]),
            }
        ).with_columns(
            pl.col("author").replace(NOT_KNOWN, None),
            pl.col("kind").replace("", None),
            *category.select(pl.all().replace(NOT_KNOWN, None)),
        ),
        words=pl.DataFrame(
            {"word": np.concatenate(columns["words"]["word"]), "text": pl.Series(texts, dtype=pl.String)}
        ),
        content=_read_content(columns["content"], int(said["content_width"])),
        start_ms=int(said["start_ms"]),
        end_ms=int(said["end_ms"]),
        counts={name: TableCount(**count) for name, count in said["counts"].items()},
        left_out=dict(said["left_out"]),
        unread=tuple(said["unread"]),
        written={name: int(count) for name, count in said["written"].items()},
        quarantined=pl.DataFrame(schema=COLUMNS),  # bad rows are not exchanged
    )


def _columns(builder: tfds.core.DatasetBuilder) -> dict[str, list[np.ndarray]]:
    """The values of each column, example by example."""
    source = builder.as_data_source(split=SPLIT)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in builder.info.features}
    for start in range(0, len(source), 256):
        for example in source.__getitems__(list(range(start, min(start + 256, len(source))))):
            for name, value in example.items():
                columns[name].append(np.atleast_1d(value))
    return columns


def _of_users(
    users: np.ndarray, timelines: dict[str, list[np.ndarray]], group: str, names: tuple[str, ...]
) -> pl.DataFrame:
    lengths = [len(column) for column in timelines[f"{group}_{names[0]}"]]
    return pl.DataFrame(
        {"user": np.repeat(users, lengths)} | {name: np.concatenate(timelines[f"{group}_{name}"]) for name in names}
    )


def _lists(columns: dict[str, list[np.ndarray]]) -> pl.Series:
    words, length = np.concatenate(columns["words"]), np.concatenate(columns["length"])
    rows = pl.DataFrame({"row": np.repeat(np.arange(len(length)), length), "word": words})
    grouped = rows.group_by("row", maintain_order=True).agg("word")
    every = pl.DataFrame({"row": np.arange(len(length))}).join(grouped, on="row", how="left", maintain_order="left")
    return every["word"].fill_null(pl.lit(pl.Series([[]], dtype=pl.List(pl.Int64)))).rename("words")


def _strings(parts: list[np.ndarray]) -> list[str]:
    return [text.decode("utf-8") for part in parts for text in part]


def _read_content(columns: dict[str, list[np.ndarray]], width: int) -> BroughtContent | None:
    if not width:
        return None
    return BroughtContent(np.concatenate(columns["video"]), np.concatenate(columns["vectors"]).reshape(-1, width))
