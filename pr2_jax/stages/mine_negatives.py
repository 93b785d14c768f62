"""Sampled negatives for the ranker: videos that retrieval finds for a query but the logging engine did not show.

Shown results were selected by the logging engine; a ranker trained on those alone cannot order our candidates.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax import console
from pr2_jax.config import LABELS, QinConfig
from pr2_jax.data.batches.sessions import impressions_of
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.history.video_attributes import query_words
from pr2_jax.search.pipelines import BASE
from pr2_jax.search.system import System
from pr2_jax.types import Requests

BLOCK = 512
"""Queries searched, or slates drawn for, at a time."""


def sampled(system: System, slates: Slates, config: QinConfig) -> np.ndarray:
    """Up to `sampled_negatives` videos for each search slate, `[N, C]`, padded with 0.

    They are drawn without replacement from the base pipeline's candidates for the query, and by popularity where there
    are fewer. A slate whose query is not among `negative_queries` has none.
    """
    count, seed = config.sampled_negatives, config.optim.seed
    queries_M, query_N = _chosen_queries(slates.query_N, config.negative_queries, seed)
    found_MxK = _retrieved(system, queries_M, system.config.search.candidates)
    short_M = (found_MxK > 0).sum(1) < count
    if short_M.any():
        found_MxK[short_M] = _by_clicks(system, (int(short_M.sum()), found_MxK.shape[1]), seed)
    found_MxK = np.concatenate([found_MxK, np.zeros((1, found_MxK.shape[1]), np.int32)])  # row -1: not retrieved
    rng, out = np.random.default_rng([seed, 3]), np.zeros((len(slates), count), np.int32)
    for start in range(0, len(slates), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(slates)))
        found_NxK = found_MxK[query_N[rows]]
        out[rows] = _draw(found_NxK, ~_allowed(system, slates, rows, found_NxK), count, rng)
    return out


def _chosen_queries(query_N: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The queries that are retrieved, and the place of each slate's query among them, -1 where it is not.

    All where there are no more than `most`, else the first `most` that come up where slates are drawn one by one: every
    slate is as likely as any other, so that a query is the likelier the more it is searched.
    """
    queries_Q, index_N = np.unique(query_N, return_inverse=True)
    place_Q = np.arange(len(queries_Q))
    if len(queries_Q) > most:
        drawn_N = np.random.default_rng([seed, 7]).permutation(len(index_N))
        turn_Q = np.unique(index_N[drawn_N], return_index=True)[1]
        place_Q = np.full(len(queries_Q), -1)
        place_Q[np.sort(np.argsort(turn_Q)[:most])] = np.arange(most)
    place_N = place_Q[index_N]
    chosen_Q = queries_Q[place_Q >= 0]
    covered = int(np.count_nonzero(place_N >= 0))
    console.log(
        f"unshown negatives: {len(chosen_Q):,} of {len(queries_Q):,} queries are retrieved, which are those of "
        f"{covered:,} of {len(query_N):,} search slates"
    )
    return chosen_Q, place_N


def joined(slates: Slates, video_NxC: np.ndarray) -> Slates:
    """Each slate with its sampled videos appended, as not clicked."""
    count = video_NxC.shape[1]
    nothing = np.zeros((len(slates), count, len(LABELS)), bool)
    told = (np.array(LABELS) == "click") & (video_NxC > 0)[..., None]
    unknown = ((0, 0), (0, count))
    return dataclasses.replace(
        slates,
        video_NxS=np.concatenate([slates.video_NxS, video_NxC], 1),
        position_NxS=np.pad(slates.position_NxS, unknown, constant_values=-1),
        label_NxSxY=np.concatenate([slates.label_NxSxY, nothing], 1),
        told_NxSxY=np.concatenate([slates.told_NxSxY, told], 1),
        impression_NxS=np.pad(slates.impression_NxS, unknown, constant_values=-1),
    )


def _allowed(system: System, slates: Slates, rows: np.ndarray, video_NxK: np.ndarray) -> np.ndarray:
    """Which videos may be negatives, `[N, K]` bool: not those that the session shows, that retrieval withholds, or that
    were uploaded later."""
    store, size = system.store, np.int64(system.store.counts.videos)
    shown, owner = impressions_of(store, slates.session_N[rows])
    gone = system.withheld(slates.user_N[rows], slates.time_ms_N[rows])
    taken = [owner * size + np.asarray(store.impressions.video)[shown]]
    taken += [place * size + videos for place, videos in enumerate(gone)]
    fresh_NxK = ~np.isin(np.arange(len(rows))[:, None] * size + video_NxK, np.concatenate(taken))
    exists_NxK = np.asarray(store.videos.upload_ms)[np.maximum(video_NxK, 0)] <= slates.time_ms_N[rows, None]
    return (video_NxK > 0) & fresh_NxK & exists_NxK


def _draw(video_NxK: np.ndarray, banned_NxK: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`[N, count]` of what is not banned in each row, uniformly without replacement; 0 where there is too little."""
    chance_NxK = np.where(banned_NxK, 2.0, rng.random(video_NxK.shape, np.float32))
    order_NxC = np.argsort(chance_NxK, axis=1)[:, :count]
    picked_NxC = np.take_along_axis(np.where(banned_NxK, 0, video_NxK), order_NxC, 1)
    return np.pad(picked_NxC, ((0, 0), (0, count - picked_NxC.shape[1]))).astype(np.int32)


def _by_clicks(system: System, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Video rows `[Q, K]` drawn in proportion to clicks before the validation cut; 0 where one is drawn again.

    By any other distribution popular videos would be negatives more rarely or more often than positives, and the ranker
    would learn popularity from that.
    """
    clicks_V = np.asarray(system.fitted.snapshot(system.store.cuts.validation_ms).popularity_V, np.float64).copy()
    clicks_V[0] = 0
    if not clicks_V.any():
        return np.zeros(shape, np.int32)
    drawn_QxK = np.random.default_rng([seed, 5]).choice(len(clicks_V), shape, p=clicks_V / clicks_V.sum())
    drawn_QxK.sort(axis=1)
    again_QxK = np.pad(drawn_QxK[:, 1:] == drawn_QxK[:, :-1], ((0, 0), (1, 0)))
    return np.where(again_QxK, 0, drawn_QxK).astype(np.int32)


def _retrieved(system: System, queries_Q: np.ndarray, depth: int) -> np.ndarray:
    """What `base` retrieves for distinct queries of the log: video rows `[Q, depth]`, -1 = padding."""
    snapshot, each = system.fitted.snapshot(system.store.cuts.validation_ms), system.config.retrieval.depth
    channels = system.channels(snapshot, BASE.channels, exact=True)
    parts = [np.zeros((0, depth), np.int32)]
    for start in console.progress(range(0, len(queries_Q), BLOCK), "retrieve negatives", unit=" blocks"):
        words_BxQ = query_words(system.store, queries_Q[start : start + BLOCK], system.config.data)
        nobody_B = np.zeros(len(words_BxQ), np.int32)
        encoded = system.encode(Requests(nobody_B, nobody_B.astype(np.int64), words_BxQ))
        found = {name: channel.retrieve(encoded, each) for name, channel in channels.items()}
        parts.append(system.merged(BASE, encoded.requests, found, depth).ids_BxK)
    return np.concatenate(parts)
