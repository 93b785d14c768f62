"""The general search unit: which past views a query and a candidate make worth looking at (METHOD section 4).

Works on frozen content vectors only, so it has no parameters and no gradient, and can run before any table lookup.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.types import NEVER


def search_by_query(query_BxD: Array, history_BxHxD: Array, mask_BxH: Array, k: int) -> tuple[Array, Array]:
    """Step 1, `A = topK1 cos(e_q, e_b)`: positions `[B, K1]` into the history and whether each is real.

    The history is ordered oldest first; among equally relevant views the latest wins, so that an empty query (a zero
    vector) keeps the K1 latest. Padding can never be kept while a real view is left out.
    """
    k = min(k, history_BxHxD.shape[1])
    relevance_BxH = jnp.einsum("bd,bhd->bh", query_BxD, history_BxHxD)
    latest_first_BxH = jnp.where(mask_BxH, relevance_BxH, NEVER)[:, ::-1]
    _, index_BxK = jax.lax.top_k(latest_first_BxH, k)
    position_BxK = history_BxHxD.shape[1] - 1 - index_BxK
    return position_BxK, jnp.take_along_axis(mask_BxH, position_BxK, axis=1)


def search_by_video(video_BxSxD: Array, kept_BxKxD: Array, mask_BxK: Array, k: int) -> Array:
    """Step 2, `B = topK2 over A of cos(e_v, e_b)`, as a mask `[B, S, K1]` for each candidate."""
    k = min(k, kept_BxKxD.shape[1])
    similarity_BxSxK = jnp.einsum("bsd,bkd->bsk", video_BxSxD, kept_BxKxD)
    similarity_BxSxK = jnp.where(mask_BxK[:, None, :], similarity_BxSxK, NEVER)
    threshold_BxSx1 = jax.lax.top_k(similarity_BxSxK, k)[0][..., -1:]
    return (similarity_BxSxK >= threshold_BxSx1) & mask_BxK[:, None, :]
