"""The arithmetic of QRCF: the filter of past views and the walk to their neighbours (docs/method.md, QRCF).

Pure functions with fixed shapes. retrieval/qrcf.py is the channel around them.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.training.embedding_tables import take
from pr2_jax.types import NEVER, NO_VIDEO

DENSE_SHARE = 16
"""The walk adds up in one cell a video while the catalogue has at most this many times K * M videos ..."""
DENSE_CELLS = 32_000_000
"""... and the batch needs at most this many cells."""


@functools.partial(jax.jit, static_argnames="k")
def filter_ids(
    content_VxD: Array, query_BxD: Array, video_BxH: Array, weight_BxH: Array, epsilon: Array, gamma: Array, k: int
) -> tuple[Array, Array, Array]:
    """The K most query-relevant past views above epsilon: positions, strengths and relevances, `[B, K]` each.

    Histories come as video rows: content vectors stay on the device. `epsilon` is one number or, `[B, 1]`, one a query.
    `weight_BxH` is w_b, 0 for padding; strength = `w_b cos^gamma`, 0 where a slot holds no seed. For a zero query
    vector (no known word) every view is relevant.
    """
    silent_Bx1 = ~jnp.any(query_BxD != 0, axis=1, keepdims=True)
    cosine_BxH = jnp.where(silent_Bx1, 1.0, jnp.einsum("bd,bhd->bh", query_BxD, take(content_VxD, video_BxH)))
    real_BxH = weight_BxH > 0
    relevance_BxK, position_BxK = jax.lax.top_k(jnp.where(real_BxH, cosine_BxH, NEVER), min(k, weight_BxH.shape[1]))
    kept_BxK = (relevance_BxK >= epsilon) & (relevance_BxK > 0)
    weight_BxK = jnp.take_along_axis(weight_BxH, position_BxK, axis=1)
    strength_BxK = jnp.where(kept_BxK, weight_BxK * jnp.maximum(relevance_BxK, 0.0) ** gamma, 0.0)
    return position_BxK, strength_BxK, jnp.where(kept_BxK, relevance_BxK, 0.0)


@functools.partial(jax.jit, static_argnames="best")
def adaptive_epsilon(query_BxD: Array, sample_NxD: Array, best: int) -> Array:
    """The `best`-th greatest cosine of each query with a sample of videos, `[B, 1]`; 0 for a zero query vector.

    As a threshold it keeps comparable shares for broad and narrow queries (after pEBR, arXiv 2410.19349, which cuts at
    a quantile of a distribution fitted for each query).
    """
    return jax.lax.top_k(query_BxD @ sample_NxD.T, best)[0][:, -1:]


@functools.partial(jax.jit, static_argnames="k")
def walk(
    seed_BxK: Array, strength_BxK: Array, neighbour_VxM: Array, similarity_VxM: Array, seen_BxP: Array, k: int
) -> tuple[Array, Array]:
    """Sums `strength * sim` over the seeds' neighbours and returns the k best: ids and scores `[B, k]`.

    Row 0, `seen` (sorted, padded with a large id) and scores of 0 come back as id -1. A small catalogue is summed in
    one cell a video, which is faster; a large one by a sort of the K * M reached, so that no array grows with it.
    """
    batch, videos = seed_BxK.shape[0], neighbour_VxM.shape[0]
    reached_BxN = take(neighbour_VxM, seed_BxK).reshape(batch, -1)
    score_BxN = (take(similarity_VxM, seed_BxK) * strength_BxK[..., None]).reshape(batch, -1)
    dense = videos <= DENSE_SHARE * reached_BxN.shape[1] and batch * videos <= DENSE_CELLS
    return (_by_cell if dense else _by_sort)(reached_BxN, score_BxN, seen_BxP, videos, k)


def _by_cell(reached_BxN: Array, score_BxN: Array, seen_BxP: Array, videos: int, k: int) -> tuple[Array, Array]:
    row_Bx1 = jnp.arange(len(reached_BxN))[:, None]
    total_BxV = jnp.zeros((len(reached_BxN), videos)).at[row_Bx1, reached_BxN].add(score_BxN)
    total_BxV = total_BxV.at[row_Bx1, seen_BxP].set(0.0, mode="drop").at[:, 0].set(0.0)
    best_Bxk, id_Bxk = jax.lax.top_k(total_BxV, min(k, videos))
    return jnp.where(best_Bxk > 0, id_Bxk, NO_VIDEO), jnp.where(best_Bxk > 0, best_Bxk, -jnp.inf)


def _by_sort(reached_BxN: Array, score_BxN: Array, seen_BxP: Array, videos: int, k: int) -> tuple[Array, Array]:
    """Ids are sorted without their scores: a sort of pairs takes several times as long."""

    def summed(reached_N: Array, score_N: Array, seen_P: Array) -> tuple[Array, Array]:
        id_N = jnp.sort(reached_N)
        total_N = jnp.zeros_like(score_N).at[jnp.searchsorted(id_N, reached_N)].add(score_N)
        slot_N = jnp.minimum(jnp.searchsorted(seen_P, id_N), len(seen_P) - 1)
        allowed_N = (id_N > 0) & (seen_P[slot_N] != id_N) & (total_N > 0)  # 0 where an id repeats
        best_k, at_k = jax.lax.top_k(jnp.where(allowed_N, total_N, -jnp.inf), min(k, len(id_N)))
        return jnp.where(jnp.isfinite(best_k), id_N[at_k], NO_VIDEO), best_k

    return jax.vmap(summed)(reached_BxN, score_BxN, seen_BxP)
