"""The trained content towers as functions on NumPy arrays."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np

from pr2_jax.models.content import ContentTask
from pr2_jax.retrieval.blocks import REQUEST_BLOCK, VIDEO_BLOCK, in_blocks, load_model
from pr2_jax.training.tables import gather


class ContentSpace:
    """The frozen space: a unit vector for every video and for any query."""

    def __init__(self, task: ContentTask, directory: Path) -> None:
        self._task = task
        self._params, self._tables = load_model(task, directory)
        self.videos_VxD = np.load(directory / "video_vectors.npy", mmap_mode="r")
        self._query = jax.jit(functools.partial(_content_query, task))

    def queries(self, words_BxQ: np.ndarray) -> np.ndarray:
        """Unit vectors `[B, D]`; the zero vector where no word is known."""
        return in_blocks(
            lambda part: self._query(self._params, self._tables, part), {"words_BxQ": words_BxQ}, REQUEST_BLOCK
        )


def _content_query(task: ContentTask, params, tables, batch):
    rows = gather(tables, task.query_lookups(batch))
    return task.model.apply({"params": params}, rows, batch, method="query")


def content_videos(task: ContentTask, params, tables) -> np.ndarray:
    """Unit vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""

    @jax.jit
    def encode(frozen, part):
        prepared = task.prepare(frozen, part)
        rows = gather(tables, task.video_lookups(prepared))
        return task.model.apply({"params": params}, rows, prepared["video"], method="video")

    ids = np.arange(len(task.frozen["author"]), dtype=np.int32)
    vectors_VxD = in_blocks(lambda part: encode(task.frozen, part), {"video_B": ids}, VIDEO_BLOCK)
    vectors_VxD[0] = 0
    return vectors_VxD
