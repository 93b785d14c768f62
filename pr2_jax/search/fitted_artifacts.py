"""Fitted artifacts of a work directory or serving artifact (indices, snapshots, choices), opened on first use."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts, workdir
from pr2_jax.config import Config
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.retrieval.ann import Index, load_index
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.item_similarity import ContentNeighbours, ItemSimilarity
from pr2_jax.retrieval.postings import Postings


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """Item similarity and popularity strictly before a moment."""

    similarity: ItemSimilarity | None  # None if no pipeline served from it walks
    popularity_V: np.ndarray  # clicks per video, float32

    @staticmethod
    def load(directory: Path) -> Snapshot:
        with artifacts.reading(directory):
            popularity = np.load(directory / "popularity.npy", mmap_mode="r")
            return Snapshot(ItemSimilarity.load(directory), popularity)


@dataclasses.dataclass(frozen=True)
class Choices:
    """Choices of the index stage, from the training days and the validation day."""

    epsilon: float  # QRCF's threshold
    cosine_sample: Sequence[int] | None = None  # video rows, if the threshold is adaptive
    clicked: str = ""  # "show" or "withhold" videos that the person clicked before
    clicked_by: Mapping[str, Any] | None = None  # the figures, if the log decided that
    merge_weights: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)  # by pipeline

    @property
    def withholds_clicked(self) -> bool:
        return self.clicked == "withhold"

    @property
    def counts_own_clicks(self) -> bool:
        """Whether rankers read the person's own clicks on a result: only where people may find it again."""
        return not self.withholds_clicked

    def save(self, path: Path) -> None:
        known = {name: value for name, value in vars(self).items() if value is not None}
        path.write_text(json.dumps(known, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Choices:
        return Choices(**json.loads(path.read_text()))


@dataclasses.dataclass(frozen=True, eq=False)
class FittedArtifacts:
    """Fitted artifacts of a directory, the same for every view of the log."""

    directory: Path
    config: Config
    store: LogStore  # as of fitting
    verified: bool = False  # a serving artifact, which is checked whole when it is opened
    made: Choices | None = None  # of an index in the making
    made_postings: Postings | None = None  # likewise

    def require(self, stage: str) -> None:
        """StaleArtifact where a stage is missing or was made from something else."""
        if not self.verified:
            workdir.require(stage, self.directory, self.config)

    @functools.cached_property
    def choices(self) -> Choices:
        if self.made is not None:
            return self.made
        self.require("index")
        with artifacts.reading(self.directory / "index"):
            return Choices.load(self.directory / "index" / "fitted.json")

    def vectors(self, space: str) -> np.ndarray:
        """Video vectors of a frozen space, `content` or `preference`."""
        self.require(space)
        with artifacts.reading(self.directory / space):
            return np.load(self.directory / space / "video_vectors.npy", mmap_mode="r")

    @functools.cached_property
    def query_vectors_NqxD(self) -> np.ndarray:
        """Content vectors of the log's distinct queries; row 0 is the empty query."""
        return np.load(self.directory / "content" / "query_vectors.npy", mmap_mode="r")

    def index(self, name: str, *, exact: bool = False) -> Index:
        """The index of `dr` or `pdr`. Fitting needs `exact`."""
        with artifacts.reading(self.directory / "index"):
            return load_index(self.directory / "index" / name, exact=exact)

    def snapshot(self, as_of_ms: int) -> Snapshot:
        self.require("index")
        return Snapshot.load(self.directory / "index" / f"as_of_{as_of_ms}")

    @functools.cached_property
    def bm25(self) -> Bm25Channel:
        if self.made_postings is not None:
            return Bm25Channel(self.made_postings)
        self.require("index")
        with artifacts.reading(self.directory / "index"):
            return Bm25Channel(Postings.open(self.directory / "index" / "bm25"))

    @functools.cached_property
    def content_neighbours(self) -> ContentNeighbours:
        return ContentNeighbours(np.asarray(self.vectors("content")), self.config.retrieval.qrcf.content_fallback)
