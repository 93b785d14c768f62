"""QRCF, query-relevant collaborative filtering (METHOD section 2).

`S(u, q) = topK over behaviours b of cos(e_q, e_b), kept where cos >= epsilon`; each kept behaviour walks to its
item-to-item neighbours: `score(v | u, q) = sum_{b in S} w_b cos(e_q, e_b)^gamma sim(b, v)`.

Everything from the filter to the top-k is one jitted program with fixed shapes; its cost depends on K and M, not on
the catalogue.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pr2_jax.config import QrcfConfig
from pr2_jax.data.events import EventReader
from pr2_jax.data.store import LogStore
from pr2_jax.retrieval.blocks import REQUEST_BLOCK, padded_size
from pr2_jax.retrieval.content_space import ContentSpace
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.types import NO_VIDEO, Candidates, Requests

NEVER = -1e9
DAY_SECONDS = 86_400.0
DENSE_SHARE = 16
"""The walk adds up in one cell a video while the catalogue is at most this many times K * M ..."""
DENSE_CELLS = 32_000_000
"""... and the batch needs at most this many cells (float32, 128 MB)."""
ENGAGEMENT_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.5)
"""What a click, like, follow, forward and long play add to a behaviour's weight w_b [ours]."""


@functools.partial(jax.jit, static_argnames="k")
def filter_seeds(
    query_BxD: Array, history_BxHxD: Array, weight_BxH: Array, epsilon: Array, gamma: Array, k: int
) -> tuple[Array, Array, Array]:
    """The K most query-relevant behaviours above epsilon: positions `[B, K]`, strengths, relevances.

    `weight_BxH` is w_b, 0 for padding; strength = `w_b cos^gamma`, 0 where a slot holds no seed. A zero query vector
    (no known word) says nothing about the past: every behaviour then counts as relevant.
    """
    silent_Bx1 = ~jnp.any(query_BxD != 0, axis=1, keepdims=True)
    cosine_BxH = jnp.where(silent_Bx1, 1.0, jnp.einsum("bd,bhd->bh", query_BxD, history_BxHxD))
    real_BxH = weight_BxH > 0
    relevance_BxK, position_BxK = jax.lax.top_k(jnp.where(real_BxH, cosine_BxH, NEVER), min(k, weight_BxH.shape[1]))
    kept_BxK = (relevance_BxK >= epsilon) & (relevance_BxK > 0)
    weight_BxK = jnp.take_along_axis(weight_BxH, position_BxK, axis=1)
    strength_BxK = jnp.where(kept_BxK, weight_BxK * jnp.maximum(relevance_BxK, 0.0) ** gamma, 0.0)
    return position_BxK, strength_BxK, jnp.where(kept_BxK, relevance_BxK, 0.0)


@functools.partial(jax.jit, static_argnames="k")
def walk(
    seed_BxK: Array, strength_BxK: Array, neighbour_VxM: Array, similarity_VxM: Array, seen_BxP: Array, k: int
) -> tuple[Array, Array]:
    """Sums `strength * sim` over the seeds' neighbours and returns the k best: ids and scores `[B, k]`.

    Row 0, `seen` (sorted, padded with a large id) and scores of 0 come back as id -1. Two ways to add up what several
    seeds reach, chosen by shape: into one cell a video where the catalogue is small beside K * M (on a CPU some 10
    times as fast), else by a sort of the K * M reached, so that no array grows with a large catalogue.
    """
    batch, videos = seed_BxK.shape[0], neighbour_VxM.shape[0]
    reached_BxN = jnp.take(neighbour_VxM, seed_BxK, axis=0).reshape(batch, -1)
    score_BxN = (jnp.take(similarity_VxM, seed_BxK, axis=0) * strength_BxK[..., None]).reshape(batch, -1)
    dense = videos <= DENSE_SHARE * reached_BxN.shape[1] and batch * videos <= DENSE_CELLS
    return (_by_cell if dense else _by_sort)(reached_BxN, score_BxN, seen_BxP, videos, k)


def _by_cell(reached_BxN: Array, score_BxN: Array, seen_BxP: Array, videos: int, k: int) -> tuple[Array, Array]:
    row_Bx1 = jnp.arange(len(reached_BxN))[:, None]
    total_BxV = jnp.zeros((len(reached_BxN), videos)).at[row_Bx1, reached_BxN].add(score_BxN)
    total_BxV = total_BxV.at[row_Bx1, seen_BxP].set(0.0, mode="drop").at[:, 0].set(0.0)
    best_Bxk, id_Bxk = jax.lax.top_k(total_BxV, min(k, videos))
    return jnp.where(best_Bxk > 0, id_Bxk, NO_VIDEO), jnp.where(best_Bxk > 0, best_Bxk, -jnp.inf)


def _by_sort(reached_BxN: Array, score_BxN: Array, seen_BxP: Array, videos: int, k: int) -> tuple[Array, Array]:
    """Equal ids come together by the sort and are added up as runs."""
    id_BxN, score_BxN = jax.lax.sort((reached_BxN, score_BxN), dimension=1, num_keys=1)

    def runs(id_N: Array, score_N: Array, seen_P: Array) -> tuple[Array, Array]:
        first_N = jnp.concatenate([jnp.ones(1, bool), id_N[1:] != id_N[:-1]])
        run_N = jnp.cumsum(first_N) - 1
        total_N = jax.ops.segment_sum(score_N, run_N, len(id_N), indices_are_sorted=True)[run_N]
        slot_N = jnp.minimum(jnp.searchsorted(seen_P, id_N), len(seen_P) - 1)
        allowed_N = first_N & (id_N > 0) & (seen_P[slot_N] != id_N) & (total_N > 0)
        best_k, at_k = jax.lax.top_k(jnp.where(allowed_N, total_N, -jnp.inf), min(k, len(id_N)))
        return jnp.where(jnp.isfinite(best_k), id_N[at_k], NO_VIDEO), best_k

    return jax.vmap(runs)(id_BxN, score_BxN, seen_BxP)


@dataclasses.dataclass(frozen=True)
class Seeds:
    """What the filter kept for each request: video rows (0 = none), strengths and relevances, `[B, K]`."""

    video_BxK: np.ndarray
    strength_BxK: np.ndarray
    relevance_BxK: np.ndarray

    @property
    def coverage(self) -> float:
        """Share of requests with at least one seed."""
        return float((self.strength_BxK > 0).any(1).mean())


class SeedFilter:
    """Reads histories, weighs behaviours by engagement and age, and keeps the query-relevant ones."""

    def __init__(self, reader: EventReader, space: ContentSpace, config: QrcfConfig, epsilon: float) -> None:
        self._reader, self._space, self._config = reader, space, config
        self.epsilon = epsilon
        self._vectors_VxD = jnp.asarray(space.videos_VxD)

    def weights(self, history: dict[str, np.ndarray]) -> np.ndarray:
        """w_b `[B, H]`: engagement times a half-life in days; 0 for padding."""
        signals_BxHxG = history["signals_BxHxG"]
        engagement_BxH = signals_BxHxG[..., : len(ENGAGEMENT_WEIGHTS)] @ np.array(ENGAGEMENT_WEIGHTS, np.float32)
        age_days_BxH = history["gap_seconds_BxH"] / DAY_SECONDS
        decay_BxH = 0.5 ** (age_days_BxH / self._config.age_half_life_days)
        return (np.log1p(engagement_BxH) * decay_BxH * (history["history_BxH"] > 0)).astype(np.float32)

    def __call__(self, requests: Requests, *, by_query: bool = True) -> Seeds:
        """Seeds of each request. `by_query=False` keeps the latest K whatever the query (plain item-to-item CF)."""
        c, parts = self._config, [_no_seeds(self._config.k)]
        for start in range(0, len(requests), REQUEST_BLOCK):
            part = requests.slice(start, start + REQUEST_BLOCK)
            history = self._reader.engaged(part.user_B, part.time_ms_B, c.history)
            video_BxH, weight_BxH = history["history_BxH"], self.weights(history)
            parts.append(
                self._relevant(part, video_BxH, weight_BxH) if by_query else _latest(video_BxH, weight_BxH, c.k)
            )
        return Seeds(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _relevant(
        self, part: Requests, video_BxH: np.ndarray, weight_BxH: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Filters a block on the device, where the content vectors are: the history travels as ids."""
        c, real = self._config, len(part)
        size = padded_size(real, REQUEST_BLOCK)
        # Few people have long histories: work on as many columns (a power of two) as this block needs.
        longest = max(int((video_BxH > 0).sum(1).max(initial=0)), c.k)
        width = padded_size(longest, video_BxH.shape[1])
        pad = [(0, size - real), (0, 0)]
        # Turned round, so that among equally relevant views the latest wins.
        video_BxH, weight_BxH = video_BxH[:, -width:][:, ::-1], weight_BxH[:, -width:][:, ::-1]
        found = _filter_ids(
            self._vectors_VxD,
            np.pad(self._space.queries(part.words_BxQ), pad),
            np.pad(video_BxH, pad),
            np.pad(weight_BxH, pad),
            np.float32(self.epsilon),
            np.float32(c.gamma),
            c.k,
        )
        position, strength, relevance = (np.asarray(x)[:real] for x in found)
        video_BxK = np.where(strength > 0, np.take_along_axis(video_BxH, position, 1), 0)
        return video_BxK.astype(np.int32), strength, relevance


@functools.partial(jax.jit, static_argnames="k")
def _filter_ids(
    content_VxD: Array, query_BxD: Array, video_BxH: Array, weight_BxH: Array, epsilon: Array, gamma: Array, k: int
) -> tuple[Array, Array, Array]:
    return filter_seeds(query_BxD, jnp.take(content_VxD, video_BxH, axis=0), weight_BxH, epsilon, gamma, k)


def _latest(video_BxH: np.ndarray, weight_BxH: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k latest behaviours as seeds, the latest first; histories are padded in front."""
    video_BxK, weight_BxK = video_BxH[:, ::-1][:, :k], weight_BxH[:, ::-1][:, :k]
    video_BxK = np.where(weight_BxK > 0, video_BxK, 0).astype(np.int32)
    return video_BxK, weight_BxK, (weight_BxK > 0).astype(np.float32)


def _no_seeds(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32), np.zeros((0, k), np.float32)


def fit_epsilon(
    store: LogStore, reader: EventReader, space: ContentSpace, config: QrcfConfig, requests: Requests
) -> float:
    """Epsilon as a quantile of cos(query, past view) over some training requests; refit after every new embedding."""
    history = reader.engaged(requests.user_B, requests.time_ms_B, config.history)
    query_BxD = space.queries(requests.words_BxQ)
    told_B = np.any(query_BxD, axis=1)
    cosine_BxH = np.einsum("bd,bhd->bh", query_BxD, np.asarray(space.videos_VxD)[history["history_BxH"]])
    real_BxH = (history["history_BxH"] > 0) & told_B[:, None]
    return float(np.quantile(cosine_BxH[real_BxH], config.epsilon_quantile)) if real_BxH.any() else 0.0


class QrcfChannel:
    """The retrieval channel: filter, walk, top-k."""

    name = "qrcf"

    def __init__(self, seeds: SeedFilter, similarity: ItemSimilarity) -> None:
        self.seeds = seeds
        self._neighbour, self._weight = jnp.asarray(similarity.neighbour_VxM), jnp.asarray(similarity.weight_VxM)

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        return self.from_seeds(self.seeds(requests), requests, k)

    def from_seeds(self, seeds: Seeds, requests: Requests, k: int) -> Candidates:
        """The walk alone, for seeds already at hand."""
        ids = np.full((len(requests), k), NO_VIDEO, np.int32)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        for start in range(0, len(requests), REQUEST_BLOCK):
            stop = min(start + REQUEST_BLOCK, len(requests))
            size = padded_size(stop - start, REQUEST_BLOCK)
            pad = [(0, size - (stop - start)), (0, 0)]
            found, score = walk(
                np.pad(seeds.video_BxK[start:stop], pad), np.pad(seeds.strength_BxK[start:stop], pad),
                self._neighbour, self._weight, _pad_seen(requests.seen[start:stop], size), k,
            )  # fmt: skip
            width = min(k, found.shape[1])
            ids[start:stop, :width] = np.asarray(found)[: stop - start, :width]
            scores[start:stop, :width] = np.asarray(score)[: stop - start, :width]
        return Candidates(ids, scores)


def _pad_seen(seen: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Sorted rows `[size, P]`, P a power of two, padded with the largest int32."""
    width = 1 << max(3, max((len(rows) for rows in seen), default=0)).bit_length()
    out = np.full((size, width), np.iinfo(np.int32).max, np.int32)
    for row, videos in zip(out, seen, strict=False):
        row[: len(videos)] = videos
    return out
