"""What every channel does with its raw results: withhold the seen videos, order ties, pad to k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pr2_jax.types import NO_VIDEO, Candidates


def is_seen(ids_BxN: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """bool [B, N]: whether an id is among its request's seen videos; `seen` is () or B sorted id arrays."""
    lengths = np.fromiter((len(s) for s in seen), np.int64, len(seen))
    if not lengths.sum():
        return np.zeros(ids_BxN.shape, bool)
    # One sorted list of (request, video) keys answers all B x N questions with a single binary search.
    stride = int(max(ids_BxN.max(initial=0), max(int(s[-1]) for s in seen if len(s)))) + 1
    keys = np.repeat(np.arange(len(seen), dtype=np.int64), lengths) * stride + np.concatenate(seen).astype(np.int64)
    asked_BxN = np.arange(len(ids_BxN), dtype=np.int64)[:, None] * stride + np.maximum(ids_BxN, 0)
    at_BxN = np.minimum(np.searchsorted(keys, asked_BxN.ravel()), len(keys) - 1).reshape(ids_BxN.shape)
    return (keys[at_BxN] == asked_BxN) & (ids_BxN >= 0)


def withhold_seen(ids_BxN: np.ndarray, scores_BxN: np.ndarray, seen: Sequence[np.ndarray], k: int) -> Candidates:
    """Drops unknown (row 0), padded, non-finite and seen results, keeps the order given, cuts or pads to k."""
    keep_BxN = (ids_BxN > 0) & np.isfinite(scores_BxN) & ~is_seen(ids_BxN, seen)
    order_BxN = np.argsort(~keep_BxN, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep_BxN, order_BxN, 1)
    ids = np.where(kept, np.take_along_axis(ids_BxN, order_BxN, 1), NO_VIDEO).astype(np.int32)
    scores = np.where(kept, np.take_along_axis(scores_BxN, order_BxN, 1), -np.inf).astype(np.float32)
    short = k - ids.shape[1]
    if short > 0:
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=NO_VIDEO)
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
    return Candidates(ids, scores)


def best_of(ids_N: np.ndarray, scores_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of one request, ties by ascending id; `ids_N` must be ascending. Returns (ids, scores), best first."""
    if len(ids_N) > k:
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        above = scores_N > kth
        # Which of the results equal to the k-th stay must not depend on the partition's internals: the lowest ids do.
        level = np.flatnonzero(scores_N == kth)[: k - int(above.sum())]
        above[level] = True
        ids_N, scores_N = ids_N[above], scores_N[above]
    order = np.argsort(-scores_N, kind="stable")
    return ids_N[order], scores_N[order]
