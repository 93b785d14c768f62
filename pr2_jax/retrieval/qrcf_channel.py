"""QRCF as a retrieval channel: a walk from the seeds of a request to their item-to-item neighbours."""

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
    """Ranks videos by the summed strength of the seeds that they neighbour."""

    name = "qrcf"

    def __init__(self, similarity: ItemSimilarity) -> None:
        self._neighbour, self._weight = jnp.asarray(similarity.neighbour_VxM), jnp.asarray(similarity.weight_VxM)

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        return self.from_seeds(encoded.seeds, encoded.requests, k)

    def from_seeds(self, seeds: Seeds, requests: Requests, k: int) -> Candidates:
        """As `retrieve`, from any seeds."""
        ids = np.full((len(requests), k), NO_VIDEO, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for start in range(0, len(requests), REQUEST_BLOCK):
            rows = slice(start, min(start + REQUEST_BLOCK, len(requests)))
            real = rows.stop - start
            size = padded_size(real, REQUEST_BLOCK)
            video, strength = (
                np.pad(x[rows], [(0, size - real), (0, 0)]) for x in (seeds.video_BxK, seeds.strength_BxK)
            )
            seen = _pad_seen(requests.seen[rows], size)
            found, score = (
                np.asarray(x)[:real, :k] for x in walk(video, strength, self._neighbour, self._weight, seen, k)
            )
            ids[rows, : found.shape[1]], scores[rows, : found.shape[1]] = found, score
        return Candidates(ids, scores)


def _pad_seen(seen: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Sorted rows `[size, P]`, P a power of two, padded with the largest int32."""
    width = 1 << max(3, max((len(rows) for rows in seen), default=0)).bit_length()
    out = np.full((size, width), np.iinfo(np.int32).max, np.int32)
    for row, videos in zip(out, seen, strict=False):
        row[: len(videos)] = videos
    return out
