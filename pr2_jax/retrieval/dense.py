"""Dense retrieval: the videos nearest to a request's vector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pr2_jax.retrieval.ann import Index
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import NO_VIDEO, Candidates


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
