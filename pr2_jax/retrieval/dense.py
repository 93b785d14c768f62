"""Dense channels: a vector for the request, the nearest videos from an index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pr2_jax.retrieval.ann import Index
from pr2_jax.types import NO_VIDEO, Candidates, Requests


@dataclasses.dataclass(frozen=True)
class DenseChannel:
    """`dr` encodes the query alone, `pdr` the query and the person. A zero vector finds nothing."""

    name: str
    encode: Callable[[Requests], np.ndarray]
    index: Index

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        vectors_BxD = self.encode(requests)
        found = self.index.search(vectors_BxD, k, requests.seen)
        silent_Bx1 = ~np.any(vectors_BxD, axis=1, keepdims=True)
        return Candidates(
            np.where(silent_Bx1, NO_VIDEO, found.ids_BxK).astype(np.int32),
            np.where(silent_Bx1, -np.inf, found.scores_BxK).astype(np.float32),
        )
