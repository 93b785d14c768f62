"""Fusion of calibrated heads into one ranking score (docs/method.md, Fusion).

`score = (r + offset)^a_r * prod_t (1 + beta_t p_t)^alpha_t` with beta_t = 1 / mean(p_t). A head's average result
multiplies by 2^alpha, whatever its base rate. The +1 keeps near-zero probabilities from wiping out the other heads.
The relevance term keeps engagement from drifting to clickbait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pr2_jax.metrics.bootstrap import standard_error
from pr2_jax.metrics.ranking_metrics import expected_gains, ndcg, recall
from pr2_jax.retrieval.merge import coordinate_search

ALPHA_GRID = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
RELEVANCE_GRID = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FLOOR_GRID = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
RELEVANCE_OFFSET = 0.05
"""Bounds the factor of relevance 0 at (0.05 / 1.05)^a_r, instead of 0."""


@dataclasses.dataclass(frozen=True)
class FusionWeights:
    """Exponents and scales of the fused score, fitted on the validation day."""

    alpha_T: tuple[float, ...]
    beta_T: tuple[float, ...]
    relevance: float = 0.0  # exponent a_r
    relevance_floor: float = 0.0  # results below this relevance come after all others

    @classmethod
    def from_dict(cls, values: dict) -> FusionWeights:
        return cls(tuple(values["alpha_T"]), tuple(values["beta_T"]), values["relevance"], values["relevance_floor"])


def fuse(probabilities_NxT: np.ndarray, relevance_N: np.ndarray, weights: FusionWeights) -> np.ndarray:
    """Log of the fused score, float32 [N] (or [...] for [..., T]). The log has the product's order and cannot overflow.

    `relevance_N` in [0, 1]. Results under the relevance floor come after all others, in the same order.
    """
    beta_T, alpha_T = np.asarray(weights.beta_T, np.float64), np.asarray(weights.alpha_T, np.float64)
    # Probabilities of a head with weight 0 may be NaN.
    log_NxT = np.where(alpha_T > 0, np.log1p(beta_T * np.asarray(probabilities_NxT, np.float64)), 0.0)
    relevance_N = np.clip(np.asarray(relevance_N, np.float64), 0, 1)
    score_N = log_NxT @ alpha_T + weights.relevance * np.log(relevance_N + RELEVANCE_OFFSET)
    spread = float(alpha_T @ np.log1p(beta_T)) + weights.relevance * np.log((1 + RELEVANCE_OFFSET) / RELEVANCE_OFFSET)
    return (score_N - np.where(relevance_N < weights.relevance_floor, spread + 1, 0)).astype(np.float32)


def choose_weights(
    probabilities_SxKxT: np.ndarray,
    relevance_SxK: np.ndarray,
    clicked_SxK: np.ndarray,
    valid_SxK: np.ndarray,
    positives_S: np.ndarray | None = None,
) -> FusionWeights:
    """Exponents that maximise mean NDCG@10 over validation sessions, by coordinate search.

    The search starts at the click head (the first) alone and never ends worse. A head whose probabilities are NaN keeps
    exponent 0. `positives_S`: clicked videos of a session, found or not (default: those in the list); sessions without
    one are left out.
    """
    clicked_SxK = clicked_SxK & valid_SxK
    positives_S = clicked_SxK.sum(1) if positives_S is None else positives_S
    tasks = probabilities_SxKxT.shape[-1]
    mean_T = probabilities_SxKxT[valid_SxK].mean(0) if valid_SxK.any() else np.ones(tasks)
    known_T = np.isfinite(mean_T)
    beta_T = tuple(float(b) for b in 1 / np.maximum(np.where(known_T, mean_T, 1.0), 1e-6))
    exponents = [1.0] + [0.0] * tasks  # of the T heads, then of relevance
    keep = positives_S > 0
    if not keep.any():
        return _weights(exponents, beta_T)
    probabilities, relevance = probabilities_SxKxT[keep], relevance_SxK[keep]
    clicked, valid, positives = clicked_SxK[keep], valid_SxK[keep], positives_S[keep]

    def value(trial: Sequence[float]) -> float:
        score_SxK = fuse(probabilities, relevance, _weights(trial, beta_T))
        return float(ndcg(expected_gains(score_SxK, clicked, valid), positives).mean())

    grids = {int(at): ALPHA_GRID for at in np.flatnonzero(known_T[1:]) + 1} | {tasks: RELEVANCE_GRID, 0: ALPHA_GRID}
    exponents = coordinate_search(value, exponents, grids, lambda trial: any(trial[:tasks]))
    return _weights(exponents, beta_T)


def choose_floor(
    probabilities_SxKxT: np.ndarray,
    relevance_SxK: np.ndarray,
    clicked_SxK: np.ndarray,
    valid_SxK: np.ndarray,
    user_S: np.ndarray,
    weights: FusionWeights,
    tolerance: float,
    positives_S: np.ndarray | None = None,
) -> FusionWeights:
    """The weights with the highest relevance floor whose cost on validation sessions is within noise.

    Floors are tried upwards until one lowers NDCG@10 or recall@100 by more than `tolerance` standard errors of the
    difference to the best floor so far, paired by session and clustered by user (the one-standard-error rule, [lit:
    Breiman 1984]). With a tolerance of 0 there is no floor.
    """
    clicked_SxK = clicked_SxK & valid_SxK
    positives_S = clicked_SxK.sum(1) if positives_S is None else positives_S
    keep = positives_S > 0
    chosen = dataclasses.replace(weights, relevance_floor=0.0)
    if not tolerance or not keep.any():
        return chosen

    def value(trial: FusionWeights) -> np.ndarray:
        score_SxK = fuse(probabilities_SxKxT[keep], relevance_SxK[keep], trial)
        gains_SxK = expected_gains(score_SxK, clicked_SxK[keep], valid_SxK[keep])
        return np.stack([ndcg(gains_SxK, positives_S[keep]), recall(gains_SxK, positives_S[keep], 100)])

    best_2xS = value(chosen)
    for floor in FLOOR_GRID:
        trial = dataclasses.replace(weights, relevance_floor=floor)
        now_2xS = value(trial)
        changes = now_2xS - best_2xS
        if any(change_S.mean() < -tolerance * standard_error(change_S, user_S[keep]) for change_S in changes):
            break
        chosen = trial
        if changes.sum() > 0:
            best_2xS = now_2xS
    return chosen


def _weights(exponents: Sequence[float], beta_T: tuple[float, ...]) -> FusionWeights:
    return FusionWeights(tuple(exponents[:-1]), beta_T, exponents[-1])
