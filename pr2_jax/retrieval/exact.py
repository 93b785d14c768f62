"""Exact maximum inner product search, jitted: the index of small catalogues, and the reference for recall."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.encoders.batching import padded_size
from pr2_jax.retrieval.candidates import withhold_seen
from pr2_jax.types import Candidates

CHUNK = 50_000
"""Videos scored at once. It bounds the memory for scores."""
BATCH = 256
"""Requests scored at once. Smaller batches are padded to a power of two, so that few shapes are compiled."""


@functools.partial(jax.jit, static_argnames=("k",))
def _top_inner_products(chunks_NxMxD: jax.Array, rows: int, query_BxD: jax.Array, k: int):
    """(scores [B, k], video rows [B, k]), best first, ties by ascending row; row 0 and padding score -inf."""
    chunk = chunks_NxMxD.shape[1]
    kept = min(k, chunk)

    def scan_chunk(best, numbered):
        number, vectors_MxD = numbered
        row_M = number * chunk + jnp.arange(chunk, dtype=jnp.int32)
        score_BxM = jnp.where(((row_M > 0) & (row_M < rows))[None, :], query_BxD @ vectors_MxD.T, -jnp.inf)
        # NaN would sort first.
        score, at = jax.lax.top_k(jnp.nan_to_num(score_BxM, nan=-jnp.inf, posinf=None, neginf=-jnp.inf), kept)
        # Earlier chunks stand in front, so that the lower row wins a tie.
        both_rows = jnp.concatenate([best[1], row_M[at]], 1)
        score, at = jax.lax.top_k(jnp.concatenate([best[0], score], 1), k)
        return (score, jnp.take_along_axis(both_rows, at, 1)), None

    empty = jnp.full((len(query_BxD), k), -jnp.inf), jnp.zeros((len(query_BxD), k), jnp.int32)
    numbers = jnp.arange(len(chunks_NxMxD), dtype=jnp.int32)
    return jax.lax.scan(scan_chunk, empty, (numbers, chunks_NxMxD))[0]


class ExactSearch:
    """Every video against every query; row 0 is never returned."""

    def __init__(self, vectors_VxD: np.ndarray):
        self.rows, self.width = vectors_VxD.shape
        chunk = padded_size(self.rows, CHUNK)
        padded = np.zeros((-(-self.rows // chunk) * chunk, self.width), np.float32)
        padded[: self.rows] = vectors_VxD
        self._chunks_NxMxD = jnp.asarray(padded.reshape(-1, chunk, self.width))

    def search(self, query_BxD: np.ndarray, k: int, seen: Sequence[np.ndarray] = ()) -> Candidates:
        """The k best unseen videos of each query by inner product, ties by ascending row, padded with -1 / -inf."""
        query_BxD = np.asarray(query_BxD, np.float32)
        asked = k + max((len(s) for s in seen), default=0)
        fetch = padded_size(min(asked, self.rows))
        parts = []
        for start in range(0, len(query_BxD), BATCH):
            batch_BxD = query_BxD[start : start + BATCH]
            padded = np.zeros((padded_size(len(batch_BxD)), self.width), np.float32)
            padded[: len(batch_BxD)] = batch_BxD
            found = _top_inner_products(self._chunks_NxMxD, self.rows, padded, fetch)
            score, row = (np.asarray(x)[: len(batch_BxD)] for x in found)
            parts.append(withhold_seen(row, score, seen[start : start + BATCH], k))
        if not parts:
            return Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))
        return Candidates(np.concatenate([p.ids_BxK for p in parts]), np.concatenate([p.scores_BxK for p in parts]))
