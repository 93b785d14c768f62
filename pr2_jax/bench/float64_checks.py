"""Checks of the device's arithmetic against plain float64 NumPy on the host.

Each check runs the package's own function on float32 inputs and returns the greatest error. Where a choice is made
(the best K), what was chosen is compared by value: near-ties may fall either way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.bench import float64_twins as twins
from pr2_jax.models import layers
from pr2_jax.models.qin import search_by_query, search_by_video
from pr2_jax.models.qrcf_arithmetic import filter_ids, walk
from pr2_jax.retrieval.ann import ExactSearch
from pr2_jax.training.loop import TABLE_OPTIMIZERS
from pr2_jax.training.mesh import single

TOLERANCE = 1e-5
"""Of float32 sums, relative to 1 + the value."""
UPDATES = 3e-5
"""Of rows after `STEPS` updates: `1 - .999^n` of Adam has lost three digits to cancellation."""
PRECISIONS = {"highest": TOLERANCE, "default": 2e-3}
"""Precisions of matrix products and what each may err: on GPUs the default is TF32, with 10 bits of mantissa."""
WIDTH, K = 64, 20
STEPS, RATE = 3, 0.1


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison: the greatest error, and the greatest allowed."""

    name: str
    precision: str  # of matrix products; "float32" where there is none
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance  # not where the error is NaN

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"holds": self.holds}


def run(rows: int = 256) -> Iterator[Check]:
    """Every check, on batches of `rows`."""
    plain = {"sampled softmax": sampled_softmax, "listwise": listwise, "heads": heads, "walk by cell": walk_by_cell}
    plain |= {"walk by sort": walk_by_sort}
    for name, check in plain.items():
        yield Check(name, "float32", check(np.random.default_rng(0), rows), TOLERANCE)
    for name in TABLE_OPTIMIZERS:
        yield Check(f"update {name}", "float32", update(np.random.default_rng(0), rows, name), UPDATES)
    products = {"QRCF filter": qrcf_filter, "GSU by query": gsu_by_query, "GSU by video": gsu_by_video}
    products |= {"exact search": exact_search}
    for name, check in products.items():
        for precision, tolerance in PRECISIONS.items():
            with jax.default_matmul_precision(precision):
                yield Check(name, precision, check(np.random.default_rng(0), rows), tolerance)


def apart(got: Any, want: np.ndarray) -> float:
    """Greatest difference, relative to 1 + the value; infinite where shapes or infinities differ."""
    got = np.asarray(got, np.float64)
    if got.shape != want.shape or (np.isinf(got) != np.isinf(want)).any():
        return float("inf")
    finite = np.isfinite(want)
    return float(np.max(np.abs(got - want)[finite] / (1 + np.abs(want[finite])), initial=0.0))


def _loss_and_gradient(fn: Callable, twin: Callable, first: np.ndarray, *rest: np.ndarray) -> float:
    loss, gradient = jax.jit(jax.value_and_grad(fn))(first, *rest)
    want_loss, want_gradient = twin(first, *rest)
    # Gradients of a mean are as small as the batch is large: their scale is that of one row's.
    return max(apart(loss, np.asarray(want_loss)), apart(np.asarray(gradient) * len(first), want_gradient * len(first)))


def sampled_softmax(rng: np.random.Generator, rows: int) -> float:
    """Sampled softmax with log Q of mixed negatives, and its gradient by the positives' and negatives' scores."""
    uniform, videos = rows, 1_000_000
    scores_Bx1N = (10 * rng.normal(size=(rows, 1 + 2 * rows))).astype(np.float32)
    log_unigram_N = np.log(rng.dirichlet(np.ones(2 * rows))).astype(np.float32)
    false_BxN = rng.random((rows, 2 * rows)) < 0.02

    def mean(scores_Bx1N, log_unigram_N, false_BxN):
        log_q_N = layers.log_proposal(log_unigram_N, rows, uniform, videos)
        loss_B = layers.sampled_softmax(scores_Bx1N[:, 0], scores_Bx1N[:, 1:], log_q_N[:rows], log_q_N, false_BxN)
        return loss_B.mean()

    def twin(scores_Bx1N, log_unigram_N, false_BxN):
        log_q_N = twins.log_proposal(log_unigram_N, rows, uniform, videos)
        return twins.sampled_softmax(scores_Bx1N, log_q_N, false_BxN)

    return _loss_and_gradient(mean, twin, scores_Bx1N, log_unigram_N, false_BxN)


def _slates(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, ...]:
    logit_BxS = (5 * rng.normal(size=(rows, 10))).astype(np.float32)
    label_BxS = (rng.random((rows, 10)) < 0.2).astype(np.float32)
    return logit_BxS, label_BxS, (rng.random((rows, 10)) < 0.8).astype(np.float32)


def listwise(rng: np.random.Generator, rows: int) -> float:
    """The listwise loss of slates with padding, and its gradient."""
    return _loss_and_gradient(layers.listwise, twins.listwise, *_slates(rng, rows))


def heads(rng: np.random.Generator, rows: int) -> float:
    """The sigmoid cross-entropy of heads with missing labels, and its gradient."""
    return _loss_and_gradient(layers.pointwise, twins.pointwise, *_slates(rng, rows))


def update(rng: np.random.Generator, rows: int, name: str) -> float:
    """Some steps of a table's optimiser with repeated ids, ids of row 0, and rows that are left alone."""
    videos = 4 * rows
    table_VxD = rng.normal(size=(videos, WIDTH)).astype(np.float32)
    optimizer, twin = TABLE_OPTIMIZERS[name], twins.OPTIMIZERS[name](table_VxD)
    device_VxD = jnp.asarray(table_VxD)
    state, mesh = optimizer.init(device_VxD), single()
    step = jax.jit(lambda table, state, ids, grad: optimizer.update(table, state, ids, grad, jnp.float32(RATE), mesh))
    for _ in range(STEPS):
        # Half of the occurrences are of few ids, so that one id has many.
        ids_N = np.concatenate([rng.integers(0, videos, rows), rng.integers(0, 5, rows)]).astype(np.int32)
        grad_NxD = rng.normal(size=(len(ids_N), WIDTH)).astype(np.float32)
        device_VxD, state = step(device_VxD, state, ids_N, grad_NxD)
        want_VxD = twin(ids_N, grad_NxD, RATE)
    return apart(device_VxD, want_VxD)


def _unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _histories(rng: np.random.Generator, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[B, H, D]` and what of them is real; the first row has less than is kept."""
    mask_BxH = rng.random((rows, length)) < 0.9
    mask_BxH[0, K // 2 :] = False
    return _unit(rng, rows, length, WIDTH), mask_BxH


def qrcf_filter(rng: np.random.Generator, rows: int) -> float:
    """Relevances, places and strengths of the seeds, also of a query without a vector."""
    epsilon, gamma, videos, history = 0.15, 2.0, 5_000, 10 * K
    content_VxD, query_BxD = _unit(rng, videos, WIDTH), _unit(rng, rows, WIDTH)
    query_BxD[1] = 0
    video_BxH = rng.integers(1, videos, (rows, history), dtype=np.int32)
    weight_BxH = (rng.random((rows, history)) * (rng.random((rows, history)) < 0.9)).astype(np.float32)
    found = filter_ids(content_VxD, query_BxD, video_BxH, weight_BxH, np.float32(epsilon), np.float32(gamma), K)
    position_BxK, strength_BxK, relevance_BxK = map(np.asarray, found)
    cosine_BxH, best_BxK = twins.relevance(query_BxD, content_VxD[video_BxH], weight_BxH > 0, K)
    kept_BxK, chosen_BxK = relevance_BxK > 0, np.take_along_axis(cosine_BxH, position_BxK, 1)
    # At the threshold a view may fall either way: there only what was kept is compared.
    clear_BxK = np.abs(best_BxK - epsilon) > max(PRECISIONS.values())
    want_BxK = np.where(best_BxK >= epsilon, best_BxK, 0.0)
    weight_BxK = np.take_along_axis(weight_BxH, position_BxK, 1).astype(np.float64)
    return max(
        apart(np.where(clear_BxK, relevance_BxK, 0), np.where(clear_BxK, want_BxK, 0)),
        apart(np.where(kept_BxK, relevance_BxK, 0), np.where(kept_BxK, chosen_BxK, 0)),
        apart(strength_BxK, np.where(kept_BxK, weight_BxK * np.maximum(chosen_BxK, 0) ** gamma, 0)),
    )


def walk_by_cell(rng: np.random.Generator, rows: int) -> float:
    """Sums over neighbours in a small catalogue."""
    return _walk(rng, rows, 2_000)


def walk_by_sort(rng: np.random.Generator, rows: int) -> float:
    """Sums over neighbours in a large one."""
    return _walk(rng, rows, 50_000)


def _walk(rng: np.random.Generator, rows: int, videos: int, neighbours: int = 50, results: int = 100) -> float:
    neighbour_VxM = rng.integers(0, videos, (videos, neighbours), dtype=np.int32)
    similarity_VxM = rng.random((videos, neighbours), dtype=np.float32)
    seed_BxK = rng.integers(1, videos, (rows, K), dtype=np.int32)
    strength_BxK = rng.random((rows, K), dtype=np.float32)
    seen_BxP = np.sort(rng.integers(1, videos, (rows, 50), dtype=np.int32), axis=1)
    found = walk(seed_BxK, strength_BxK, neighbour_VxM, similarity_VxM, seen_BxP, results)
    id_Bxk, score_Bxk = map(np.asarray, found)
    error = 0.0
    for row in range(rows):
        total_V = twins.walk(seed_BxK[row], strength_BxK[row], neighbour_VxM, similarity_VxM, seen_BxP[row])
        best_k = np.sort(total_V)[::-1][:results]
        real_k = id_Bxk[row] > 0
        if len(np.unique(id_Bxk[row][real_k])) != real_k.sum():
            return float("inf")
        chosen_k = np.where(real_k, total_V[np.maximum(id_Bxk[row], 0)], -np.inf)
        error = max(error, apart(score_Bxk[row], np.where(best_k > 0, best_k, -np.inf)))
        error = max(error, apart(score_Bxk[row], chosen_k))
    return error


def gsu_by_query(rng: np.random.Generator, rows: int) -> float:
    """The views nearest to the query; of a query without a vector the latest."""
    history_BxHxD, mask_BxH = _histories(rng, rows, 10 * K)
    query_BxD = _unit(rng, rows, WIDTH)
    query_BxD[1] = 0
    found = jax.jit(search_by_query, static_argnums=3)(query_BxD, history_BxHxD, mask_BxH, K)
    position_BxK, real_BxK = map(np.asarray, found)
    cosine_BxH, best_BxK = twins.relevance(query_BxD, history_BxHxD, mask_BxH, K, silent=0.0)
    sound = all(len(set(row)) == K for row in position_BxK.tolist())
    sound &= (real_BxK == np.take_along_axis(mask_BxH, position_BxK, 1)).all()
    sound &= set(position_BxK[1]) == set(np.flatnonzero(mask_BxH[1])[-K:])
    chosen_BxK = -np.sort(-np.take_along_axis(cosine_BxH, position_BxK, 1), axis=1)
    return apart(chosen_BxK, best_BxK) if sound else float("inf")


def gsu_by_video(rng: np.random.Generator, rows: int) -> float:
    """The kept views nearest to each candidate: how far any chosen lies below, or left out above, the K-th."""
    kept_BxNxD, mask_BxN = _histories(rng, rows, 3 * K)
    video_BxSxD = _unit(rng, rows, 10, WIDTH)
    keep_BxSxN = np.asarray(jax.jit(search_by_video, static_argnums=3)(video_BxSxD, kept_BxNxD, mask_BxN, K))
    error = 0.0
    for slot in range(video_BxSxD.shape[1]):
        cosine_BxN, best_BxK = twins.relevance(video_BxSxD[:, slot], kept_BxNxD, mask_BxN, K)
        keep_BxN, enough_B = keep_BxSxN[:, slot], np.minimum(mask_BxN.sum(1), K)
        if (keep_BxN & ~mask_BxN).any() or (keep_BxN.sum(1) < enough_B).any():
            return float("inf")
        edge_Bx1 = np.take_along_axis(best_BxK, enough_B[:, None] - 1, 1)
        below, above = edge_Bx1 - cosine_BxN, cosine_BxN - edge_Bx1
        error = max(error, below[keep_BxN].max(initial=0.0), above[mask_BxN & ~keep_BxN].max(initial=0.0))
    return float(error)


def exact_search(rng: np.random.Generator, rows: int, videos: int = 20_000, results: int = 100) -> float:
    """The greatest inner products with a catalogue."""
    vectors_VxD, query_BxD = _unit(rng, videos, WIDTH), _unit(rng, rows, WIDTH)
    found = ExactSearch(vectors_VxD).search(query_BxD, results)
    score_BxV = query_BxD.astype(np.float64) @ vectors_VxD.astype(np.float64).T
    best_BxK = -np.sort(-score_BxV[:, 1:], axis=1)[:, :results]
    chosen_BxK = np.take_along_axis(score_BxV, found.ids_BxK, 1)
    return max(apart(found.scores_BxK, best_BxK), apart(found.scores_BxK, chosen_BxK))
