"""Search of the simulated platform: the contract of a serving system, and the biased logging system."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import scipy.sparse

from pr2_jax.config import LoggingConfig
from pr2_jax.simulation.counter_rng import choose
from pr2_jax.simulation.day_log import Views
from pr2_jax.simulation.vocabulary import Vocabulary
from pr2_jax.simulation.world_catalogue import Catalogue

BM25_K1, BM25_B = 1.2, 0.75


@dataclasses.dataclass(frozen=True)
class SearchRequests:
    """B searches of one day as a serving system sees them, in rows of the simulation: no intents, no tastes."""

    day: int
    user_B: np.ndarray  # int32
    words_BxQ: np.ndarray  # int32, 0 = none
    time_ms_B: np.ndarray  # int64
    popularity_V: np.ndarray  # float64, decayed engagements up to yesterday
    engaged: np.ndarray  # int64 ascending keys `user * V + video` of clicks up to yesterday
    views: Views | None = None  # feed views of the day; a system must ignore those after the search

    def take(self, rows: np.ndarray) -> SearchRequests:
        part = {name: getattr(self, name)[rows] for name in ("user_B", "words_BxQ", "time_ms_B")}
        return dataclasses.replace(self, **part)


class SearchSystem(Protocol):
    """A serving system: the logging system or an arm of an experiment."""

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        """Returns int32 [B, slate] video rows, best first, distinct in a row, padded at the end with -1."""
        ...


def is_member(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool: whether each key is in `sorted_keys`."""
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return sorted_keys[place] == keys if len(sorted_keys) else np.zeros(np.shape(keys), bool)


def merged(sorted_keys: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The union as ascending distinct keys; much faster than np.union1d, since the first keys are sorted already."""
    new = np.unique(keys)
    new = new[~is_member(sorted_keys, new)]
    return np.insert(sorted_keys, np.searchsorted(sorted_keys, new), new)


def bm25_weights(vocabulary: Vocabulary, captions_VxN: np.ndarray) -> scipy.sparse.csr_matrix:
    """Returns [words, V]: the BM25 weight of each word of a text that holds each word once."""
    videos_E, column_E = np.nonzero(captions_VxN)
    words_E = captions_VxN[videos_E, column_E]
    length_V = (captions_VxN > 0).sum(axis=1)
    frequency_W = np.bincount(words_E, minlength=len(vocabulary.text))
    idf_W = np.log1p((len(captions_VxN) - frequency_W + 0.5) / (frequency_W + 0.5))
    norm_V = BM25_K1 * (1 - BM25_B + BM25_B * length_V / length_V.mean())
    weight_E = idf_W[words_E] * (BM25_K1 + 1) / (1 + norm_V[videos_E])
    shape = (len(vocabulary.text), len(captions_VxN))
    return scipy.sparse.csr_matrix((weight_E.astype(np.float32), (words_E, videos_E)), shape=shape)


def logging_weights(config: LoggingConfig, vocabulary: Vocabulary, catalogue: Catalogue) -> scipy.sparse.csr_matrix:
    """Returns [words, V]: the word weights of the platform's own index, over captions and over spoken words.

    The spoken words are not in the log, so lexical search on the log cannot retrieve all that was shown.
    """
    name_Vx1 = vocabulary.owned_GxN[catalogue.subtopic_V, :1]
    topic_Vx1 = vocabulary.topic_T[vocabulary.topic_of_G[catalogue.subtopic_V]][:, None]
    said_VxN = np.concatenate([name_Vx1, topic_Vx1, catalogue.facets_VxA], axis=1)
    captions_WxV = bm25_weights(vocabulary, catalogue.captions_VxN)
    return (config.caption_weight * captions_WxV + config.said_weight * bm25_weights(vocabulary, said_VxN)).tocsr()


def top_of_rows(
    row_E: np.ndarray, video_E: np.ndarray, score_E: np.ndarray, rows: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k best videos of each row, int32 [rows, k] with -1 = padding, and their scores, -inf for padding.

    The scores are sparse: one entry a (row, video), `row_E` ascending.
    """
    # Partitioning first is ten times as fast as sorting everything.
    edge = np.searchsorted(row_E, np.arange(rows + 1))
    kept_E = np.ones(len(row_E), bool)
    for low, high in zip(edge[:-1].tolist(), edge[1:].tolist(), strict=True):
        if high - low > k:
            part = score_E[low:high]
            kept_E[low:high] = part >= np.partition(part, high - low - k)[high - low - k]
    row_E, video_E, score_E = row_E[kept_E], video_E[kept_E], score_E[kept_E]
    order_E = np.lexsort((video_E, -score_E, row_E))  # leaves `row_E` as it is
    rank_E = np.arange(len(row_E)) - np.searchsorted(row_E, np.arange(rows))[row_E]
    best_E = order_E[rank_E < k]
    at = row_E[rank_E < k], rank_E[rank_E < k]
    top_BxK, top_score_BxK = np.full((rows, k), -1, np.int32), np.full((rows, k), -np.inf)
    top_BxK[at], top_score_BxK[at] = video_E[best_E], score_E[best_E]
    return top_BxK, top_score_BxK


@dataclasses.dataclass(frozen=True)
class LoggingSearch:
    """The logging system ranks by BM25 plus popularity plus noise, without personalisation.

    It leaves out videos that the person clicked before.
    """

    config: LoggingConfig
    catalogue: Catalogue
    weights_WxV: scipy.sparse.csr_matrix

    def search(self, requests: SearchRequests, slate: int, rng: np.random.Generator) -> np.ndarray:
        row_E, video_E, score_E = self._scored(requests)
        score_E = score_E + self.config.noise * rng.normal(size=len(score_E))
        found_BxS, _ = top_of_rows(row_E, video_E, score_E, len(requests.user_B), slate)
        return _fill(found_BxS, requests, self.catalogue, rng)

    def expected(self, requests: SearchRequests, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best videos of each request before any noise, int32 [B, k] (-1 = padding), and their scores."""
        return top_of_rows(*self._scored(requests), len(requests.user_B), k)

    def _scored(self, requests: SearchRequests) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(request, video, score without noise) of all matching videos."""
        count, videos = len(requests.user_B), len(self.catalogue)
        row_E, column_E = np.nonzero(requests.words_BxQ)
        ask_BxW = scipy.sparse.csr_matrix(
            (np.ones(len(row_E), np.float32), (row_E, requests.words_BxQ[row_E, column_E])),
            shape=(count, self.weights_WxV.shape[0]),
        )
        found = (ask_BxW @ self.weights_WxV).tocoo()
        available_E = self.catalogue.upload_day_V[found.col] <= requests.day
        available_E &= ~is_member(requests.engaged, requests.user_B[found.row].astype(np.int64) * videos + found.col)
        row_E, video_E = found.row[available_E], found.col[available_E]
        liked_V = np.log1p(requests.popularity_V)
        liked_V = (liked_V - liked_V.mean()) / max(liked_V.std(), 1e-9)
        return row_E, video_E, found.data[available_E] + self.config.popularity_weight * liked_V[video_E]


def _fill(slates_BxS, requests: SearchRequests, catalogue: Catalogue, rng: np.random.Generator) -> np.ndarray:
    """Fills free places of slates with popular videos and removes duplicates."""
    weight_V = requests.popularity_V * (catalogue.upload_day_V <= requests.day)
    filled_BxS = np.where(slates_BxS >= 0, slates_BxS, choose(weight_V, rng.random(slates_BxS.shape)))
    order_BxS = np.argsort(filled_BxS, axis=1, kind="stable")
    in_order_BxS = np.take_along_axis(filled_BxS, order_BxS, axis=1)
    twice_BxS = np.zeros(filled_BxS.shape, bool)
    np.put_along_axis(twice_BxS, order_BxS[:, 1:], in_order_BxS[:, 1:] == in_order_BxS[:, :-1], axis=1)
    packed_BxS = np.argsort(twice_BxS, axis=1, kind="stable")
    return np.take_along_axis(np.where(twice_BxS, -1, filled_BxS), packed_BxS, axis=1)
