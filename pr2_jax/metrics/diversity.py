"""Relevance and diversity of the first results of a list, one value a session."""

from __future__ import annotations

import numpy as np

DEPTH = 10
"""Results looked at."""


def list_metrics(
    ids_SxK: np.ndarray,
    query_SxD: np.ndarray,
    videos_VxD: np.ndarray,
    category_VxL: np.ndarray,
    author_V: np.ndarray,
    depth: int = DEPTH,
) -> dict[str, np.ndarray]:
    """`relevance`, `entropy` and `authors` of the first `depth` results, each float64 [S]; id -1 or 0 = padding.

    `relevance`: mean cosine of query and result (unit vectors); NaN without a result, or where the query's vector is 0.
    `entropy`, in nats: of the category labels in the list, each result's weight split evenly over the labels it has;
    NaN without a label. `authors`: distinct known authors; NaN without a result.
    """
    top_SxN = np.maximum(ids_SxK[:, :depth], 0)
    real_SxN = top_SxN > 0
    some_S = real_SxN.any(1)
    cosine_SxN = np.einsum("snd,sd->sn", np.asarray(videos_VxD)[top_SxN], query_SxD, dtype=np.float64)
    told_S = some_S & np.any(query_SxD != 0, axis=1)
    relevance_S = np.where(real_SxN, cosine_SxN, 0).sum(1) / np.where(told_S, real_SxN.sum(1), np.nan)
    return {
        "relevance": relevance_S,
        "entropy": _entropy(np.asarray(category_VxL)[top_SxN] * real_SxN[..., None]),
        "authors": np.where(some_S, _distinct(np.asarray(author_V)[top_SxN] * real_SxN), np.nan),
    }


def _entropy(label_SxNxL: np.ndarray) -> np.ndarray:
    """float64 [S]: label 0 is none."""
    known_SxNxL = label_SxNxL > 0
    weight_SxNxL = known_SxNxL / np.maximum(known_SxNxL.sum(2, keepdims=True), 1)
    labels = int(label_SxNxL.max(initial=0)) + 1
    session_SxNxL = np.broadcast_to(np.arange(len(label_SxNxL))[:, None, None], label_SxNxL.shape)
    # Only the pairs that occur: sessions x labels would be large where categories are fine.
    pair, at = np.unique((session_SxNxL * np.int64(labels) + label_SxNxL)[known_SxNxL], return_inverse=True)
    mass = np.bincount(at, weights=weight_SxNxL[known_SxNxL], minlength=len(pair))
    total_S = np.bincount(pair // labels, weights=mass, minlength=len(label_SxNxL))
    share = mass / total_S[pair // labels]
    entropy_S = np.bincount(pair // labels, weights=-share * np.log(share), minlength=len(label_SxNxL))
    return np.where(total_S > 0, np.maximum(entropy_S, 0), np.nan)


def _distinct(value_SxN: np.ndarray) -> np.ndarray:
    """How many different values above 0 a row has."""
    ordered_SxN = np.sort(value_SxN, axis=1)
    new_SxN = ordered_SxN > 0
    new_SxN[:, 1:] &= ordered_SxN[:, 1:] != ordered_SxN[:, :-1]
    return new_SxN.sum(1)
