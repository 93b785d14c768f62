"""The general search unit: the past views relevant to a query and a candidate (docs/method.md, QIN).

It reads frozen content vectors only: it has no parameters and no gradient, and runs before any table lookup.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from pr2_jax.types import NEVER


def search_by_query(query_BxD: Array, history_BxHxD: Array, mask_BxH: Array, k: int) -> tuple[Array, Array]:
    """Step 1, `A = topK1 cos(e_q, e_b)`: positions `[B, K1]` into the history and whether each is real.

    The history is ordered oldest first. Among equally relevant views the latest wins: an empty query (a zero vector)
    keeps the K1 latest. Padding is kept only where no real view is left.
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
    return (similarity_BxSxK >= kth_largest(similarity_BxSxK, k)) & mask_BxK[:, None, :]


def kth_largest(x_xN: Array, k: int) -> Array:
    """The k-th largest of each row of finite float32 numbers, `[..., 1]`. `k`: 1 to N.

    Bisects over the bits of a float in 32 passes over all rows at once. On a CPU `top_k` takes far longer: it orders
    row after row on one core.
    """
    lowest = jnp.int32(-(2**31))

    def holds(ordinal_x1: Array) -> Array:
        # Counted in float32, which is exact here and keeps the loop in one kind of vector register.
        return (x_xN >= _float_of(ordinal_x1)).astype(jnp.float32).sum(-1, keepdims=True) >= k

    def lower_bit(number: Array, ordinal_x1: Array) -> Array:
        raised_x1 = ordinal_x1 + jnp.left_shift(jnp.int32(1), 30 - number)
        return jnp.where(holds(raised_x1), raised_x1, ordinal_x1)

    zero_x1 = jnp.zeros((*x_xN.shape[:-1], 1), jnp.int32)
    ordinal_x1 = jax.lax.fori_loop(0, 31, lower_bit, jnp.where(holds(zero_x1), zero_x1, lowest))
    # A number of the row itself: XLA compares denormals as 0 on a CPU, so the last bits found may be any of theirs.
    return jnp.where(x_xN >= _float_of(ordinal_x1), x_xN, jnp.inf).min(-1, keepdims=True)


def _float_of(ordinal: Array) -> Array:
    """The float at a place in the order of floats: negative ones have all bits but the sign flipped."""
    return jax.lax.bitcast_convert_type(jnp.where(ordinal < 0, ordinal ^ 0x7FFFFFFF, ordinal), jnp.float32)
