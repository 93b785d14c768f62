"""Dense channels: the nearest videos of a request's vector; and PDR's trained dual encoder on NumPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.encoders.batching import REQUEST_BLOCK, all_videos, in_blocks
from pr2_jax.retrieval.ann import Index
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import NO_VIDEO, Candidates, Functions


class PdrEncoder:
    """Query-user vectors for live requests and video vectors for the index."""

    def __init__(self, functions: Functions, history: int, reader: EventReader) -> None:
        """`history`: number of engaged events read per person."""
        self._functions, self._history, self._reader = functions, history, reader

    def __call__(self, encoded: EncodedRequests) -> np.ndarray:
        requests, store = encoded.requests, self._reader.store
        batch = {
            "words_BxQ": requests.words_BxQ,
            "query_content_BxD": encoded.query_BxD,
            "profile_BxP": np.asarray(store.users.profile)[requests.user_B],
            "preference_BxD": encoded.people.preference_NxD,
            **self._reader.engaged(requests.user_B, requests.time_ms_B, self._history),
        }
        return in_blocks(self._functions["pdr_query_user"], batch, REQUEST_BLOCK)

    def videos(self) -> np.ndarray:
        """Unit vectors of the catalogue, `[V, D]`; row 0 (unknown) is zero."""
        return all_videos(self._functions["pdr_video"], self._reader.store.counts.videos)


@dataclasses.dataclass(frozen=True)
class DenseChannel:
    """`dr` encodes the query, `pdr` the query and the person. A zero vector finds nothing."""

    name: str
    encode: Callable[[EncodedRequests], np.ndarray]
    index: Index

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        vectors_BxD = self.encode(encoded)
        found = self.index.search(vectors_BxD, k, encoded.requests.seen)
        silent_Bx1 = ~np.any(vectors_BxD, axis=1, keepdims=True)
        return Candidates(
            np.where(silent_Bx1, NO_VIDEO, found.ids_BxK).astype(np.int32),
            np.where(silent_Bx1, -np.inf, found.scores_BxK).astype(np.float32),
        )
