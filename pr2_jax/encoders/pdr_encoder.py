"""The trained dual encoder as functions on NumPy arrays: live requests and the whole catalogue."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.encoders.batching import REQUEST_BLOCK, all_videos, in_blocks
from pr2_jax.encoders.content_encoder import ContentEncoder
from pr2_jax.encoders.preference_encoder import PreferenceEncoder
from pr2_jax.types import Functions, Requests


class PdrEncoder:
    """Query-user vectors for live requests and video vectors for the index."""

    def __init__(
        self,
        functions: Functions,
        history: int,
        reader: EventReader,
        space: ContentEncoder,
        preference: PreferenceEncoder,
    ) -> None:
        """`history`: engaged events read of each person."""
        self._functions, self._history = functions, history
        self._reader, self._space, self._preference = reader, space, preference

    def __call__(self, requests: Requests) -> np.ndarray:
        """Unit vectors `[B, D]`."""
        batch = {
            "words_BxQ": requests.words_BxQ,
            "query_content_BxD": self._space.queries(requests.words_BxQ),
            "profile_BxP": np.asarray(self._reader.store.users.profile)[requests.user_B],
            "preference_BxD": self._preference.people(requests.user_B, requests.time_ms_B).preference_NxD,
            **self._reader.engaged(requests.user_B, requests.time_ms_B, self._history),
        }
        return in_blocks(self._functions["pdr_query_user"], batch, REQUEST_BLOCK)

    def videos(self) -> np.ndarray:
        """Unit vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""
        return all_videos(self._functions["pdr_video"], len(self._space.videos_VxD))
