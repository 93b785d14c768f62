"""Post-processing of a channel's raw results: withhold seen videos, break ties, pad to k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pr2_jax.types import NO_VIDEO, Candidates


def is_seen(ids_BxN: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Whether an id is among its request's seen videos, bool [B, N]. `seen`: () or B sorted arrays of ids."""
    lengths = np.fromiter((len(s) for s in seen), np.int64, len(seen))
    if not lengths.sum():
        return np.zeros(ids_BxN.shape, bool)
    # One binary search in a sorted list of (request, video) keys.
    stride = int(max(ids_BxN.max(initial=0), max(int(s[-1]) for s in seen if len(s)))) + 1
    keys = np.repeat(np.arange(len(seen), dtype=np.int64), lengths) * stride + np.concatenate(seen).astype(np.int64)
    asked_BxN = np.arange(len(ids_BxN), dtype=np.int64)[:, None] * stride + np.maximum(ids_BxN, 0)
    at_BxN = np.minimum(np.searchsorted(keys, asked_BxN.ravel()), len(keys) - 1).reshape(ids_BxN.shape)
    return (keys[at_BxN] == asked_BxN) & (ids_BxN >= 0)


def withhold_seen(ids_BxN: np.ndarray, scores_BxN: np.ndarray, seen: Sequence[np.ndarray], k: int) -> Candidates:
    """Drops unknown (row 0), padded, non-finite and seen results, keeps the order, cuts or pads to k."""
    keep_BxN = (ids_BxN > 0) & np.isfinite(scores_BxN) & ~is_seen(ids_BxN, seen)
    order_BxN = np.argsort(~keep_BxN, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep_BxN, order_BxN, 1)
    ids = np.where(kept, np.take_along_axis(ids_BxN, order_BxN, 1), NO_VIDEO).astype(np.int32)
    scores = np.where(kept, np.take_along_axis(scores_BxN, order_BxN, 1), -np.inf).astype(np.float32)
    return Candidates(padded(ids, k, NO_VIDEO), padded(scores, k, -np.inf))


def padded(x_BxN: np.ndarray, k: int, value: float = 0) -> np.ndarray:
    """Columns padded to k with `value`."""
    short = k - x_BxN.shape[1]
    pad = [(0, 0), (0, short), *[(0, 0)] * (x_BxN.ndim - 2)]
    return np.pad(x_BxN, pad, constant_values=value) if short > 0 else x_BxN


def best_of(ids_N: np.ndarray, scores_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, scores) of the k best of one request, best first, ties by ascending id. `ids_N` must ascend."""
    if len(ids_N) > k:
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        kept = scores_N > kth
        # Of the results that tie with the k-th, the lowest ids stay.
        kept[np.flatnonzero(scores_N == kth)[: k - int(kept.sum())]] = True
        ids_N, scores_N = ids_N[kept], scores_N[kept]
    order = np.argsort(-scores_N, kind="stable")
    return ids_N[order], scores_N[order]
