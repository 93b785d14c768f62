"""Merge of the channels' results into one list by a weighted sum of normalised scores (docs/method.md, Merge).

Scores are normalised to (0, 1] within a request and a channel:

- `bm25` and `qrcf` are sums of evidence, 0 means none: s / s_max. Subtracting the least returned score would inflate
  tiny differences: all matches of a one-word query score nearly alike in BM25.
- Inner products (`dr`, `pdr`) have no such zero: (s - s_k) / (s_max - s_k), where s_k is the last score returned.
  Videos that the channel did not return scored at most s_k, and count as 0.

A channel's list ends at its depth, perhaps before its evidence ends. A `Scorer` gives that channel's scores of the
videos that other channels found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pr2_jax.data.batches.sessions import evenly_spread
from pr2_jax.metrics.ranking_metrics import retrieval_objective
from pr2_jax.retrieval.candidates import padded
from pr2_jax.types import NO_VIDEO, Candidates

EVIDENCE_CHANNELS = frozenset({"bm25", "qrcf"})
LEAST = np.float32(1e-6)
"""Normalised score of the weakest result. It is above 0, because 0 means that the channel did not return a video."""
WEIGHT_GRID = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
OBJECTIVE_DEPTH = 100
"""Results per session that the objective sees."""
ROUNDS = 3
MOST_SESSIONS = 1_000
"""Sessions that weights are chosen on; more change them little."""

Scorer = Callable[[np.ndarray], np.ndarray]
"""ids [B, N] (-1 = padding) -> the channel's scores [B, N] of those videos."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """Best first; padded with id -1, score -inf and sources 0."""

    ids_BxK: np.ndarray  # int32 video rows
    scores_BxK: np.ndarray  # float32, weighted sum of the sources
    sources_BxKxC: np.ndarray  # float32 in [0, 1], normalised score; 0 = nothing from that channel
    found_BxKxC: np.ndarray  # bool, whether the channel returned it (a scorer adds to sources only)
    channels: tuple[str, ...]  # names of the last axis

    def best(self, k: int) -> Merged:
        """The k best of each request."""
        columns = self.ids_BxK, self.scores_BxK, self.sources_BxKxC, self.found_BxKxC
        return Merged(*(column[:, :k] for column in columns), self.channels)


@dataclasses.dataclass(frozen=True)
class Pool:
    """The union of all channels' results by ascending id, not yet weighted."""

    ids_BxN: np.ndarray  # int32, -1 = padding
    sources_BxNxC: np.ndarray
    found_BxNxC: np.ndarray
    channels: tuple[str, ...]


def _scale(candidates: Candidates, evidence: bool) -> tuple[np.ndarray, np.ndarray]:
    """(floor, span) [B, 1] of a channel's scores; span 0 = all results are alike."""
    found_BxK = candidates.ids_BxK > 0
    top_B = np.where(found_BxK, candidates.scores_BxK, -np.inf).max(1, initial=-np.inf)
    least_B = np.where(found_BxK, candidates.scores_BxK, np.inf).min(1, initial=np.inf)
    some_B = found_BxK.any(1)
    floor_B = np.zeros(len(some_B)) if evidence else np.where(some_B, least_B, 0)
    return floor_B[:, None], np.where(some_B, top_B, 0)[:, None] - floor_B[:, None]


def normalise(scores_BxN: np.ndarray, found_BxN: np.ndarray, floor_Bx1: np.ndarray, span_Bx1: np.ndarray) -> np.ndarray:
    """float32 [B, N] in (0, 1] where found, else 0; all 1 where all results are alike."""
    safe_BxN = np.where(found_BxN, scores_BxN, 0)
    scaled_BxN = np.where(span_Bx1 > 0, (safe_BxN - floor_Bx1) / np.where(span_Bx1 > 0, span_Bx1, 1), 1)
    return np.where(found_BxN, np.clip(scaled_BxN, LEAST, 1), 0).astype(np.float32)


def pool(channels: Mapping[str, Candidates], scorers: Mapping[str, Scorer] | None = None) -> Pool:
    """Joins the channels' results by video. Scorers add their channels' scores of videos that only others returned."""
    pooled = _union(channels)
    for c, name in enumerate(pooled.channels):
        if scorers and name in scorers:
            score_BxN = np.asarray(scorers[name](pooled.ids_BxN), np.float32)
            floor, span = _scale(channels[name], name in EVIDENCE_CHANNELS)
            missing = (pooled.ids_BxN > 0) & ~pooled.found_BxNxC[:, :, c] & (score_BxN > floor) & (span > 0)
            pooled.sources_BxNxC[:, :, c] += normalise(score_BxN, missing, floor, span)
    return pooled


def _union(channels: Mapping[str, Candidates]) -> Pool:
    names, lists = tuple(channels), list(channels.values())
    scales = [_scale(c, name in EVIDENCE_CHANNELS) for name, c in channels.items()]
    scaled = [normalise(c.scores_BxK, c.ids_BxK > 0, *scale) for c, scale in zip(lists, scales, strict=True)]
    scaled_BxCK = np.concatenate(scaled, axis=1)
    ids_BxCK = np.concatenate([c.ids_BxK for c in lists], 1).astype(np.int64)
    requests, width = ids_BxCK.shape
    channel_CK = np.repeat(np.arange(len(names)), [c.ids_BxK.shape[1] for c in lists])
    # One integer sort of (id, column) packed into one number; padding goes last.
    padding = np.iinfo(np.int64).max
    packed = np.sort(np.where(ids_BxCK > 0, ids_BxCK * width + np.arange(width), padding), axis=1)
    found = packed != padding
    ids_BxCK, column_BxCK = np.divmod(packed, width)
    starts = found.copy()
    starts[:, 1:] &= ids_BxCK[:, 1:] != ids_BxCK[:, :-1]
    slot_BxCK = np.cumsum(starts, axis=1) - 1
    size = int(starts.sum(1).max(initial=0))
    row, at = np.nonzero(found)
    slot, column = slot_BxCK[row, at], column_BxCK[row, at]
    ids_BxN = np.full((requests, size), NO_VIDEO, np.int32)
    ids_BxN[row, slot] = ids_BxCK[row, at]
    sources_BxNxC = np.zeros((requests, size, len(names)), np.float32)
    sources_BxNxC[row, slot, channel_CK[column]] = scaled_BxCK[row, column]
    return Pool(ids_BxN, sources_BxNxC, sources_BxNxC > 0, names)


def rank(pooled: Pool, weights: Mapping[str, float], k: int) -> Merged:
    """The k best of a pool by the weighted sum of its sources, ties by ascending id."""
    if set(weights) != set(pooled.channels):
        raise ValueError(f"weights for {sorted(weights)}, channels are {sorted(pooled.channels)}")
    weight_C = np.array([weights[name] for name in pooled.channels], np.float32)
    score_BxN = np.where(pooled.ids_BxN > 0, pooled.sources_BxNxC @ weight_C, -np.inf).astype(np.float32)
    order_BxK = np.argsort(-score_BxN, axis=1, kind="stable")[:, :k]
    ids, scores = (np.take_along_axis(x, order_BxK, 1) for x in (pooled.ids_BxN, score_BxN))
    of_channels = pooled.sources_BxNxC, pooled.found_BxNxC
    sources, found = (padded(np.take_along_axis(x, order_BxK[:, :, None], 1), k) for x in of_channels)
    return Merged(padded(ids, k, NO_VIDEO), padded(scores, k, -np.inf), sources, found, pooled.channels)


def merge(
    channels: Mapping[str, Candidates],
    weights: Mapping[str, float],
    k: int,
    scorers: Mapping[str, Scorer] | None = None,
) -> Merged:
    """`pool`, then `rank`. A channel of weight 0 still adds candidates."""
    return rank(pool(channels, scorers), weights, k)


def choose_weights(
    channels: Mapping[str, Candidates], clicked: Sequence[np.ndarray], scorers: Mapping[str, Scorer] | None = None
) -> dict[str, float]:
    """Weights (sum 1) that maximise `retrieval_objective` over validation requests, by coordinate search.

    `clicked`: B arrays of clicked video rows; requests without one are left out.
    """
    names = tuple(channels)
    counted = np.flatnonzero([len(videos) > 0 for videos in clicked])
    picked = counted[evenly_spread(len(counted), MOST_SESSIONS)]
    if not len(picked):
        return dict.fromkeys(names, 1 / len(names))
    pooled = pool(channels, scorers)
    ids_BxN, sources_BxNxC = pooled.ids_BxN[picked], pooled.sources_BxNxC[picked]
    videos = [clicked[b] for b in picked]
    clicked_BxN = np.stack([np.isin(ids_N, of) for ids_N, of in zip(ids_BxN, videos, strict=True)]) & (ids_BxN > 0)
    positives_B = np.array([len(np.unique(of)) for of in videos])

    def value(weights: Sequence[float]) -> float:
        score, hit = np.where(ids_BxN > 0, sources_BxNxC @ np.array(weights, np.float32), -np.inf), clicked_BxN
        if score.shape[1] > OBJECTIVE_DEPTH:
            best = np.argpartition(-score, OBJECTIVE_DEPTH - 1, axis=1)[:, :OBJECTIVE_DEPTH]
            score, hit = np.take_along_axis(score, best, 1), np.take_along_axis(hit, best, 1)
        return float(retrieval_objective(score, hit, np.isfinite(score), positives_B).mean())

    # Ties are paid at chance: all weight on channels that find nothing would order a small catalogue well by value.
    found = [place for place, name in enumerate(names) if (channels[name].ids_BxK[picked] > 0).any()]
    grids = dict.fromkeys(found, WEIGHT_GRID)
    start = [float(place in found or not found) for place in range(len(names))]
    weight_C = np.array(coordinate_search(value, start, grids, lambda trial: sum(trial) > 0), np.float32)
    return {name: float(w) for name, w in zip(names, weight_C / weight_C.sum(), strict=True)}


def coordinate_search(
    value: Callable[[Sequence[float]], float],
    start: list[float],
    grids: Mapping[int, Sequence[float]],
    allowed: Callable[[Sequence[float]], bool],
) -> list[float]:
    """Coordinate search: numbers of the greatest value, from `start`.

    Each place tries every value of its grid, in the order of `grids`, until a round brings no gain, at most `ROUNDS`
    rounds. The first of equals stays.
    """
    best, reached = start, value(start)
    for _ in range(ROUNDS):
        before = reached
        for place, grid in grids.items():
            base = best
            for step in grid:
                trial = [*base[:place], step, *base[place + 1 :]]
                if allowed(trial) and (got := value(trial)) > reached + 1e-9:
                    best, reached = trial, got
        if reached <= before:
            break
    return best
