"""Plain twins, in float64 NumPy, of what float64_checks.py compares. Written for clarity, one row after the other."""

from __future__ import annotations

import numpy as np

from pr2_jax.training.embedding_tables import EPSILON, LazyAdam
from pr2_jax.types import NEVER

Gradient = np.ndarray
"""Of the mean loss, by the first argument."""


def _softmax(x_xN: np.ndarray) -> np.ndarray:
    raised_xN = np.exp(x_xN - x_xN.max(-1, keepdims=True))
    return raised_xN / raised_xN.sum(-1, keepdims=True)


def log_proposal(log_unigram_N: np.ndarray, batch: int, uniform: int, videos: int) -> np.ndarray:
    """`log((B p + N' / V) / (B + N'))`."""
    return np.log((batch * np.exp(log_unigram_N.astype(np.float64)) + uniform / videos) / (batch + uniform))


def sampled_softmax(scores_Bx1N: np.ndarray, log_q_N: np.ndarray, false_BxN: np.ndarray) -> tuple[float, Gradient]:
    """Mean of `-log softmax(score - log Q)` at the positive, which stands first; its log Q is that of its row."""
    batch = len(scores_Bx1N)
    corrected_Bx1N = scores_Bx1N.astype(np.float64)
    corrected_Bx1N[:, 0] -= log_q_N[:batch]
    corrected_Bx1N[:, 1:] -= log_q_N
    corrected_Bx1N[:, 1:][false_BxN] = -np.inf
    share_Bx1N = _softmax(corrected_Bx1N)
    gradient_Bx1N = share_Bx1N.copy()
    gradient_Bx1N[:, 0] -= 1
    top_B = corrected_Bx1N.max(1)
    log_sum_B = top_B + np.log(np.exp(corrected_Bx1N - top_B[:, None]).sum(1))
    return float((log_sum_B - corrected_Bx1N[:, 0]).mean()), gradient_Bx1N / batch


def listwise(logit_BxS: np.ndarray, label_BxS: np.ndarray, weight_BxS: np.ndarray) -> tuple[float, Gradient]:
    """Mean over slates with a positive of the mean over positives of `-log softmax`."""
    gradient_BxS, losses = np.zeros(logit_BxS.shape), []
    for row, (logit_S, label_S, weight_S) in enumerate(zip(logit_BxS, label_BxS, weight_BxS, strict=True)):
        real_S = weight_S > 0
        positive_S = (label_S * weight_S).astype(np.float64)
        if positive_S.sum() > 0:
            share_S = np.zeros(len(logit_S))
            share_S[real_S] = _softmax(logit_S[real_S].astype(np.float64))
            losses.append(-(positive_S[real_S] * np.log(share_S[real_S])).sum() / positive_S.sum())
            gradient_BxS[row] = share_S - positive_S / positive_S.sum()
    return float(np.mean(losses)), gradient_BxS / len(losses)


def pointwise(logit_x: np.ndarray, label_x: np.ndarray, weight_x: np.ndarray) -> tuple[float, Gradient]:
    """Weighted mean of the sigmoid cross-entropy."""
    logit_x, total = logit_x.astype(np.float64), weight_x.sum(dtype=np.float64)
    loss_x = np.logaddexp(0, logit_x) - label_x * logit_x
    gradient_x = (1 / (1 + np.exp(-logit_x)) - label_x) * weight_x / total
    return float((loss_x * weight_x).sum() / total), gradient_x


class _Table:
    """A table in float64 and its optimiser. Row 0 never changes."""

    def __init__(self, table_VxD: np.ndarray):
        self.table_VxD = table_VxD.astype(np.float64)
        self.mean_VxD, self.square_VxD = np.zeros(table_VxD.shape), np.zeros(table_VxD.shape)
        self.touched_V = np.zeros(len(table_VxD))

    def _summed(self, ids_N: np.ndarray, grad_NxD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distinct ids but 0, and the whole table's gradient."""
        grad_VxD = np.zeros(self.table_VxD.shape)
        np.add.at(grad_VxD, ids_N, grad_NxD.astype(np.float64))
        grad_VxD[0] = 0
        return np.setdiff1d(ids_N, [0]), grad_VxD


class RowAdagrad(_Table):
    """Row-wise Adagrad; `touched_V` holds the sums of mean squares."""

    def __call__(self, ids_N: np.ndarray, grad_NxD: np.ndarray, rate: float) -> np.ndarray:
        rows, grad_VxD = self._summed(ids_N, grad_NxD)
        self.touched_V[rows] += np.square(grad_VxD[rows]).mean(1)
        self.table_VxD[rows] -= rate * grad_VxD[rows] / (np.sqrt(self.touched_V[rows])[:, None] + EPSILON)
        return self.table_VxD


class Adam(_Table):
    """Adam over the whole table, or only over the rows of the batch."""

    lazy = False

    def __call__(self, ids_N: np.ndarray, grad_NxD: np.ndarray, rate: float) -> np.ndarray:
        rows, grad_VxD = self._summed(ids_N, grad_NxD)
        rows = rows if self.lazy else np.arange(len(grad_VxD))
        beta1, beta2, grad_NxD = LazyAdam.beta1, LazyAdam.beta2, grad_VxD[rows]
        self.touched_V[rows] += 1
        self.mean_VxD[rows] = beta1 * self.mean_VxD[rows] + (1 - beta1) * grad_NxD
        self.square_VxD[rows] = beta2 * self.square_VxD[rows] + (1 - beta2) * np.square(grad_NxD)
        unbiased1, unbiased2 = (1 - beta ** self.touched_V[rows, None] for beta in (beta1, beta2))
        direction_NxD = self.mean_VxD[rows] / unbiased1 / (np.sqrt(self.square_VxD[rows] / unbiased2) + EPSILON)
        self.table_VxD[rows] -= rate * direction_NxD
        return self.table_VxD


class LazyRows(Adam):
    """Adam over the rows of the batch."""

    lazy = True


OPTIMIZERS = {"row_adagrad": RowAdagrad, "lazy_adam": LazyRows, "adam": Adam}


def relevance(
    query_BxD: np.ndarray, history_BxHxD: np.ndarray, mask_BxH: np.ndarray, k: int, silent: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines `[B, H]` (NEVER where not real, `silent` for a zero query) and the k greatest of each row."""
    cosine_BxH = np.einsum("bd,bhd->bh", query_BxD.astype(np.float64), history_BxHxD.astype(np.float64))
    cosine_BxH[~query_BxD.any(1)] = silent
    cosine_BxH = np.where(mask_BxH, cosine_BxH, NEVER)
    return cosine_BxH, -np.sort(-cosine_BxH, axis=1)[:, :k]


def walk(
    seed_K: np.ndarray,
    strength_K: np.ndarray,
    neighbour_VxM: np.ndarray,
    similarity_VxM: np.ndarray,
    seen_P: np.ndarray,
) -> np.ndarray:
    """Each video's sum `[V]` of `strength * sim` over the seeds of one request; 0 for seen ones and row 0."""
    total_V = np.zeros(len(neighbour_VxM))
    np.add.at(total_V, neighbour_VxM[seed_K], strength_K[:, None].astype(np.float64) * similarity_VxM[seed_K])
    total_V[seen_P] = 0
    total_V[0] = 0
    return total_V
