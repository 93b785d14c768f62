"""Trained towers as functions on NumPy arrays, jitted once per padded batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from pr2_jax.config import DataConfig
from pr2_jax.data.events import EventReader
from pr2_jax.models.content import ContentTask, video_lookups
from pr2_jax.models.pdr import PdrTask
from pr2_jax.training.checkpoint import load_params
from pr2_jax.training.tables import gather, init_tables
from pr2_jax.training.task import Task
from pr2_jax.types import Requests

VIDEO_BLOCK = 4_096
REQUEST_BLOCK = 256


def padded_size(n: int, block: int) -> int:
    """The next power of two, at most `block`: few shapes, few compilations."""
    return min(block, 1 << max(0, n - 1).bit_length())


def in_blocks(fn: Callable, arrays: dict[str, np.ndarray], block: int) -> np.ndarray:
    """Applies a jitted function to slices of at most `block` rows, padded by repeating row 0; joins the results."""
    n = len(next(iter(arrays.values())))
    out = []
    for start in range(0, n, block):
        part = {name: x[start : start + block] for name, x in arrays.items()}
        real = min(block, n - start)
        size = padded_size(real, block)
        part = {name: np.concatenate([x, np.repeat(x[:1], size - real, 0)]) for name, x in part.items()}
        out.append(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], fn(part)))
    return np.concatenate(out)


def load_model(task: Task, directory: Path) -> tuple[dict, dict]:
    """Dense parameters and tables of a trained model."""
    like = jax.eval_shape(lambda key: (task.init(key), init_tables(task.table_specs(), key)), jax.random.key(0))
    params, tables = load_params(directory, like)
    return params, tables


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
    rows = gather(tables, {"query": ("word", batch["words_BxQ"])})
    return task.model.apply({"params": params}, rows, batch, method="query")


def content_videos(task: ContentTask, params, tables) -> np.ndarray:
    """Unit vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""

    @jax.jit
    def encode(frozen, part):
        prepared = task.prepare(frozen, part)
        rows = gather(tables, video_lookups(prepared["video"]))
        return task.model.apply({"params": params}, rows, prepared["video"], method="video")

    ids = np.arange(len(task.frozen["author"]), dtype=np.int32)
    vectors_VxD = in_blocks(lambda part: encode(task.frozen, part), {"video_B": ids}, VIDEO_BLOCK)
    vectors_VxD[0] = 0
    return vectors_VxD


class PdrEncoder:
    """Query-user vectors for live requests and video vectors for the index."""

    def __init__(
        self, task: PdrTask, params, tables, reader: EventReader, space: ContentSpace, data: DataConfig
    ) -> None:
        self._task, self._params, self._tables = task, params, tables
        self._reader, self._space, self._data = reader, space, data
        self._query_user = jax.jit(functools.partial(_pdr_query_user, task))

    def __call__(self, requests: Requests) -> np.ndarray:
        """Unit vectors `[B, D]`."""
        batch = {
            "words_BxQ": requests.words_BxQ,
            "query_content_BxD": self._space.queries(requests.words_BxQ),
            "profile_BxP": np.asarray(self._reader.store.users.profile)[requests.user_B],
            **self._reader.engaged(requests.user_B, requests.time_ms_B, self._task.config.history),
        }
        return in_blocks(
            lambda part: self._query_user(self._params, self._tables, self._task.frozen, part), batch, REQUEST_BLOCK
        )

    def videos(self) -> np.ndarray:
        """Unit vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""
        task = self._task
        encode = jax.jit(functools.partial(_pdr_videos, task))
        ids = np.arange(len(task.frozen["author"]), dtype=np.int32)
        vectors_VxD = in_blocks(
            lambda part: encode(self._params, self._tables, task.frozen, part), {"ids_N": ids}, VIDEO_BLOCK
        )
        vectors_VxD[0] = 0
        return vectors_VxD


def _pdr_query_user(task: PdrTask, params, tables, frozen, batch):
    batch = task.prepare(frozen, batch)
    return task.model.apply({"params": params}, gather(tables, task.lookups(batch)), batch, method="query_user")


def _pdr_videos(task: PdrTask, params, tables, frozen, part):
    ids_N = part["ids_N"]
    video = task.videos(frozen, ids_N)
    rows = gather(tables, {"video": ("video", ids_N), **video_lookups(video)})
    return task.model.apply({"params": params}, rows, video, method="video")
