"""QRCF as a retrieval channel: from the seeds of a request to their item-to-item neighbours."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from pr2_jax.encoders.batching import REQUEST_BLOCK, padded_size
from pr2_jax.models.qrcf_arithmetic import walk
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import Seeds
from pr2_jax.types import NO_VIDEO, Candidates, Requests


class QrcfChannel:
    """Walk and top-k."""

    name = "qrcf"

    def __init__(self, similarity: ItemSimilarity) -> None:
        self._neighbour, self._weight = jnp.asarray(similarity.neighbour_VxM), jnp.asarray(similarity.weight_VxM)

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        return self.from_seeds(encoded.seeds, encoded.requests, k)

    def from_seeds(self, seeds: Seeds, requests: Requests, k: int) -> Candidates:
        """The walk alone, for seeds however they were made."""
        ids = np.full((len(requests), k), NO_VIDEO, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for start in range(0, len(requests), REQUEST_BLOCK):
            stop = min(start + REQUEST_BLOCK, len(requests))
            size = padded_size(stop - start, REQUEST_BLOCK)
            pad = [(0, size - (stop - start)), (0, 0)]
            found, score = walk(
                np.pad(seeds.video_BxK[start:stop], pad), np.pad(seeds.strength_BxK[start:stop], pad),
                self._neighbour, self._weight, _pad_seen(requests.seen[start:stop], size), k,
            )  # fmt: skip
            width = min(k, found.shape[1])
            ids[start:stop, :width] = np.asarray(found)[: stop - start, :width]
            scores[start:stop, :width] = np.asarray(score)[: stop - start, :width]
        return Candidates(ids, scores)


def _pad_seen(seen: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Sorted rows `[size, P]`, P a power of two, padded with the largest int32."""
    width = 1 << max(3, max((len(rows) for rows in seen), default=0)).bit_length()
    out = np.full((size, width), np.iinfo(np.int32).max, np.int32)
    for row, videos in zip(out, seen, strict=False):
        row[: len(videos)] = videos
    return out
