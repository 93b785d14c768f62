"""The trained dual encoder as functions on NumPy arrays: live requests and the whole catalogue."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.events import EventReader
from pr2_jax.retrieval.blocks import REQUEST_BLOCK, all_videos, in_blocks
from pr2_jax.retrieval.content_space import ContentSpace
from pr2_jax.retrieval.taste_space import TasteSpace
from pr2_jax.types import Functions, Requests


class PdrEncoder:
    """Query-user vectors for live requests and video vectors for the index."""

    def __init__(
        self, functions: Functions, history: int, reader: EventReader, space: ContentSpace, taste: TasteSpace
    ) -> None:
        """`history`: engaged events read of each person."""
        self._functions, self._history = functions, history
        self._reader, self._space, self._taste = reader, space, taste

    def __call__(self, requests: Requests) -> np.ndarray:
        """Unit vectors `[B, D]`."""
        batch = {
            "words_BxQ": requests.words_BxQ,
            "query_content_BxD": self._space.queries(requests.words_BxQ),
            "profile_BxP": np.asarray(self._reader.store.users.profile)[requests.user_B],
            "taste_BxD": self._taste.people(requests.user_B, requests.time_ms_B).taste_NxD,
            **self._reader.engaged(requests.user_B, requests.time_ms_B, self._history),
        }
        return in_blocks(self._functions["pdr_query_user"], batch, REQUEST_BLOCK)

    def videos(self) -> np.ndarray:
        """Unit vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""
        return all_videos(self._functions["pdr_video"], len(self._space.videos_VxD))
