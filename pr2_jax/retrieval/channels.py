"""The channels `dr` and `pdr` (the nearest videos of a request's vector, with PDR's encoder) and `qrcf`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.encoders.batching import REQUEST_BLOCK, all_videos, in_blocks
from pr2_jax.models.qrcf_arithmetic import walk
from pr2_jax.retrieval.ann import Index
from pr2_jax.retrieval.candidates import padded
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import Seeds
from pr2_jax.types import NO_VIDEO, Candidates, Functions, Requests


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


class QrcfChannel:
    """Ranks videos by the summed strength of the seeds that they neighbour."""

    name = "qrcf"

    def __init__(self, similarity: ItemSimilarity) -> None:
        self._neighbour, self._weight = jnp.asarray(similarity.neighbour_VxM), jnp.asarray(similarity.weight_VxM)

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        return self.from_seeds(encoded.seeds, encoded.requests, k)

    def from_seeds(self, seeds: Seeds, requests: Requests, k: int) -> Candidates:
        """As `retrieve`, from any seeds."""
        # Sorted rows `[B, P]`, P a power of two, padded with the largest int32.
        most = 1 << max(3, max((len(rows) for rows in requests.seen), default=0)).bit_length()
        seen_BxP = np.full((len(requests), most), np.iinfo(np.int32).max, np.int32)
        for row, videos in zip(seen_BxP, requests.seen, strict=False):
            row[: len(videos)] = videos

        def walked(batch: dict[str, np.ndarray]) -> tuple:
            video_BxK, strength_BxK, seen_BxP = batch.values()
            return walk(video_BxK, strength_BxK, self._neighbour, self._weight, seen_BxP, k)

        batch = {"video_BxK": seeds.video_BxK, "strength_BxK": seeds.strength_BxK, "seen_BxP": seen_BxP}
        ids, scores = in_blocks(walked, batch, REQUEST_BLOCK)
        return Candidates(padded(ids, k, NO_VIDEO), padded(scores, k, -np.inf))
