"""The trained dual encoder as functions on NumPy arrays: live requests and the whole catalogue."""

from __future__ import annotations

import functools

import jax
import numpy as np

from pr2_jax.data.events import EventReader
from pr2_jax.models.pdr import PdrTask
from pr2_jax.retrieval.blocks import REQUEST_BLOCK, VIDEO_BLOCK, in_blocks
from pr2_jax.retrieval.content_space import ContentSpace
from pr2_jax.retrieval.taste_space import TasteSpace
from pr2_jax.training.tables import gather
from pr2_jax.types import Requests


class PdrEncoder:
    """Query-user vectors for live requests and video vectors for the index."""

    def __init__(
        self, task: PdrTask, params, tables, reader: EventReader, space: ContentSpace, taste: TasteSpace
    ) -> None:
        self._task, self._params, self._tables = task, params, tables
        self._reader, self._space, self._taste = reader, space, taste
        self._query_user = jax.jit(functools.partial(_pdr_query_user, task))

    def __call__(self, requests: Requests) -> np.ndarray:
        """Unit vectors `[B, D]`."""
        batch = {
            "words_BxQ": requests.words_BxQ,
            "query_content_BxD": self._space.queries(requests.words_BxQ),
            "profile_BxP": np.asarray(self._reader.store.users.profile)[requests.user_B],
            "taste_BxD": self._taste.people(requests.user_B, requests.time_ms_B).taste_NxD,
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
    rows = gather(tables, task.video_lookups(video, ids_N))
    return task.model.apply({"params": params}, rows, video, method="video")
