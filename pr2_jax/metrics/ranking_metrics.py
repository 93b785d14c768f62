"""Ranking and probability metrics, vectorised over sessions.

Session metrics take padded [S, K] arrays and give one value a session. Equal scores share their ranks' expected
relevance. Scores must be the float32 values of the run file, so that ties are the same in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def retrieval_metrics(
    scores_SxK: np.ndarray,
    clicked_SxK: np.ndarray,
    valid_SxK: np.ndarray,
    positives_S: np.ndarray,
    ks: Sequence[int] = (10, 100),
) -> dict[str, np.ndarray]:
    """recall@k for each k, ndcg@10, mrr and map, each float64 [S]; NaN for sessions without a clicked video.

    `positives_S` counts a session's clicked videos, found or not.
    """
    gains_SxK = expected_gains(scores_SxK, clicked_SxK, valid_SxK)
    out = {f"recall@{k}": recall(gains_SxK, positives_S, k) for k in ks}
    return out | _order_metrics(gains_SxK, positives_S)


def slate_metrics(scores_SxK: np.ndarray, clicked_SxK: np.ndarray, valid_SxK: np.ndarray) -> dict[str, np.ndarray]:
    """ndcg@10, mrr, map and auc of reordered slates, each float64 [S].

    NaN for sessions without a click; auc also for sessions where everything was clicked.
    """
    clicked_SxK = clicked_SxK & valid_SxK
    positives_S = clicked_SxK.sum(1)
    gains_SxK = expected_gains(scores_SxK, clicked_SxK, valid_SxK)
    out = _order_metrics(gains_SxK, positives_S)
    return out | {"auc": session_auc(scores_SxK, clicked_SxK, valid_SxK)}


def _order_metrics(gains_SxK: np.ndarray, positives_S: np.ndarray) -> dict[str, np.ndarray]:
    rank_K = np.arange(1, gains_SxK.shape[1] + 1)
    # The chance that nothing before a rank was relevant, taking the expected gains as independent chances.
    missed_SxK = np.ones(gains_SxK.shape)
    np.cumprod(1 - gains_SxK[:, :-1], axis=1, out=missed_SxK[:, 1:])
    mrr_S = np.where(positives_S > 0, (missed_SxK * gains_SxK / rank_K).sum(1), np.nan)
    # Precision at a rank that is itself relevant counts that rank in full, the ranks before it by their expectation.
    before_SxK = np.cumsum(gains_SxK, axis=1) - gains_SxK
    map_S = (gains_SxK * (before_SxK + 1) / rank_K).sum(1) / np.where(positives_S > 0, positives_S, np.nan)
    return {f"ndcg@{NDCG_DEPTH}": ndcg(gains_SxK, positives_S), "mrr": mrr_S, "map": map_S}


def session_auc(scores_SxK: np.ndarray, clicked_SxK: np.ndarray, valid_SxK: np.ndarray) -> np.ndarray:
    """float64 [S]: share of (clicked, unclicked) pairs in the right order, ties half; NaN without such a pair."""
    if not scores_SxK.size:
        return np.full(len(scores_SxK), np.nan)
    session_N = np.nonzero(valid_SxK)[0]
    return grouped_auc(clicked_SxK[valid_SxK], scores_SxK[valid_SxK], session_N, len(scores_SxK))


def grouped_auc(labels_N: np.ndarray, scores_N: np.ndarray, group_N: np.ndarray, groups: int) -> np.ndarray:
    """float64 [groups]: AUC within each group (ties half), NaN where a group lacks clicked or unclicked rows."""
    labels_N = np.asarray(labels_N, bool)
    order = np.lexsort((scores_N, group_N))
    group, score, label = group_N[order], scores_N[order], labels_N[order]
    count_G = np.bincount(group, minlength=groups)
    positive_G = np.bincount(group, weights=label, minlength=groups)
    first_G = np.r_[0, np.cumsum(count_G)[:-1]]
    start = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])][: len(group)])
    length = np.diff(np.r_[start, len(group)])
    rank = np.repeat(start + (length + 1) / 2, length) - first_G[group]
    ranks_G = np.bincount(group, weights=rank * label, minlength=groups)
    pairs_G = positive_G * (count_G - positive_G)
    wins_G = ranks_G - positive_G * (positive_G + 1) / 2
    return np.divide(wins_G, pairs_G, out=np.full(groups, np.nan), where=pairs_G > 0)


def auc(labels_N: np.ndarray, scores_N: np.ndarray) -> float:
    """AUC over all rows at once, ties half; NaN where one class is absent."""
    labels_N = np.asarray(labels_N, bool)
    positives, negatives = int(labels_N.sum()), int((~labels_N).sum())
    if not positives or not negatives:
        return float("nan")
    wins = rankdata(scores_N)[labels_N].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def user_auc(labels_N: np.ndarray, scores_N: np.ndarray, user_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(AUC, impressions) of every user who has clicked and unclicked rows; GAUC is their weighted mean."""
    users, group_N = np.unique(user_N, return_inverse=True)
    auc_G = grouped_auc(labels_N, scores_N, group_N, len(users))
    kept = np.isfinite(auc_G)
    return auc_G[kept], np.bincount(group_N, minlength=len(users))[kept]


def gauc(labels_N: np.ndarray, scores_N: np.ndarray, user_N: np.ndarray) -> float:
    """Mean of the users' AUCs weighted by their impressions; users with one class only are left out."""
    auc_G, impressions_G = user_auc(labels_N, scores_N, user_N)
    return float(np.average(auc_G, weights=impressions_G)) if len(auc_G) else float("nan")


def log_losses(labels_N: np.ndarray, probabilities_N: np.ndarray, floor: float = 1e-7) -> np.ndarray:
    """float64 [N], in nats; probabilities are kept `floor` away from 0 and 1."""
    p_N = np.clip(np.asarray(probabilities_N, np.float64), floor, 1 - floor)
    return -np.where(np.asarray(labels_N, bool), np.log(p_N), np.log1p(-p_N))


def expected_calibration_error(labels_N: np.ndarray, probabilities_N: np.ndarray, bins: int = 15) -> float:
    """Mean |clicked share - mean probability| over bins, weighted by rows.

    Bins hold equally many rows. Equal probabilities never fall into different bins, so the order of the rows does not
    matter.
    """
    p_N, y_N = np.asarray(probabilities_N, np.float64), np.asarray(labels_N, np.float64)
    if not len(p_N):
        return float("nan")
    bin_N = equal_count_bins(p_N, bins)
    gap = np.bincount(bin_N, weights=y_N - p_N, minlength=bins)
    return float(np.abs(gap).sum() / len(p_N))


def equal_count_bins(values_N: np.ndarray, bins: int) -> np.ndarray:
    """int64 [N]: which of `bins` groups of equally many rows each value falls into, ascending; equals together."""
    return ((rankdata(values_N, method="min") - 1) * bins // max(len(values_N), 1)).astype(np.int64)


def predicted_over_observed(labels_N: np.ndarray, probabilities_N: np.ndarray) -> float:
    """PCOC: sum of probabilities over number of clicks; 1 = unbiased, NaN without a click."""
    clicks = float(np.asarray(labels_N, np.float64).sum())
    return float(np.asarray(probabilities_N, np.float64).sum() / clicks) if clicks else float("nan")


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
    """What merge weights are chosen by, float64 [S]: mean of recall@100 (candidates) and NDCG@10 (their order)."""
    gains_SxK = expected_gains(scores_SxK, clicked_SxK, valid_SxK)
    return (recall(gains_SxK, positives_S, 100) + ndcg(gains_SxK, positives_S)) / 2
