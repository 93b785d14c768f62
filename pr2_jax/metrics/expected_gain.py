"""Expected relevance by rank, with ties averaged: the basis of recall and NDCG. A constant scorer lands at chance."""

from __future__ import annotations

import numpy as np

NDCG_DEPTH = 10
DISCOUNT = 1 / np.log2(np.arange(2, NDCG_DEPTH + 2))
"""1 / log2(1 + rank) of ranks 1 to 10."""


def expected_gains(scores_SxK: np.ndarray, clicked_SxK: np.ndarray, valid_SxK: np.ndarray) -> np.ndarray:
    """float64 [S, K]: expected relevance at each rank, best first; 0 behind a session's last result.

    Raises ValueError where a valid result's score is not finite.
    """
    if not scores_SxK.size:
        return np.zeros(scores_SxK.shape)
    if not np.isfinite(scores_SxK[valid_SxK]).all():
        raise ValueError("a valid result has a score that is not finite")
    key_SxK = np.where(valid_SxK, -scores_SxK, np.inf)
    order_SxK = np.argsort(key_SxK, axis=1, kind="stable")
    key_SxK = np.take_along_axis(key_SxK, order_SxK, 1)
    relevant_SxK = np.take_along_axis(clicked_SxK & valid_SxK, order_SxK, 1)
    starts_SxK = np.ones(key_SxK.shape, bool)
    starts_SxK[:, 1:] = key_SxK[:, 1:] != key_SxK[:, :-1]
    start = np.flatnonzero(starts_SxK)
    length = np.diff(np.r_[start, starts_SxK.size])
    share = np.add.reduceat(relevant_SxK.ravel().astype(np.float64), start) / length
    return np.repeat(share, length).reshape(key_SxK.shape)


def recall(gains_SxK: np.ndarray, positives_S: np.ndarray, k: int) -> np.ndarray:
    """float64 [S]: expected share of the clicked videos among the first k; NaN without a clicked video."""
    return gains_SxK[:, :k].sum(1) / np.where(positives_S > 0, positives_S, np.nan)


def ndcg(gains_SxK: np.ndarray, positives_S: np.ndarray) -> np.ndarray:
    """float64 [S]: NDCG@10 with binary gains; NaN without a clicked video."""
    top_SxN = gains_SxK[:, :NDCG_DEPTH]
    ideal_S = np.r_[np.nan, np.cumsum(DISCOUNT)][np.minimum(positives_S, NDCG_DEPTH).astype(np.int64)]
    return (top_SxN * DISCOUNT[: top_SxN.shape[1]]).sum(1) / ideal_S


def retrieval_objective(
    scores_SxK: np.ndarray, clicked_SxK: np.ndarray, valid_SxK: np.ndarray, positives_S: np.ndarray
) -> np.ndarray:
    """The objective of merge weights, float64 [S]: mean of recall@100 (candidates) and NDCG@10 (their order)."""
    gains_SxK = expected_gains(scores_SxK, clicked_SxK, valid_SxK)
    return (recall(gains_SxK, positives_S, 100) + ndcg(gains_SxK, positives_S)) / 2
