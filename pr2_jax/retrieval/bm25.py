"""BM25 over captions (bm25s): a lexical retrieval channel and a ranking feature."""

from __future__ import annotations

import logging

import bm25s
import numpy as np

from pr2_jax.config import RetrievalConfig
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.retrieval.candidates import best_of
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import NO_VIDEO, Candidates

logging.getLogger("bm25s").setLevel(logging.ERROR)  # bm25s sets itself to DEBUG when imported


class Bm25Channel:
    """BM25 of query words against caption words, both as word rows of the store.

    bm25s computes the score of every (word, video) pair once. A query's score is the sum of its words' postings; a
    repeated word counts twice. Only videos with a score above 0 are returned.
    """

    name = "bm25"

    def __init__(self, store: LogStore, config: RetrievalConfig):
        first_V, words = np.asarray(store.videos.first_word), np.asarray(store.videos.words)
        self._videos = len(first_V) - 1
        known = words > 0
        first_V = np.concatenate([[0], np.cumsum(known)])[first_V]
        captions = np.split(words[known], first_V[1:-1])[1:] if self._videos > 1 else []
        self._first_posting, self._video, self._score = _postings(captions, store.counts.words, config)
        # Postings are word-major with ascending videos, so that these keys ascend and can be searched.
        word = np.repeat(np.arange(len(self._first_posting) - 1, dtype=np.int64), np.diff(self._first_posting))
        self._key = word * self._videos + self._video

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        """As `Channel`; ties by ascending video row."""
        requests = encoded.requests
        ids_BxK = np.full((len(requests), k), NO_VIDEO, np.int32)
        scores_BxK = np.full((len(requests), k), -np.inf, np.float32)
        for b, words_Q in enumerate(requests.words_BxQ):
            score_V = self._all_scores(words_Q)
            if requests.seen:
                score_V[requests.seen[b]] = 0.0
            matched = np.flatnonzero(score_V > 0).astype(np.int32)
            ids, scores = best_of(matched, score_V[matched], k)
            ids_BxK[b, : len(ids)], scores_BxK[b, : len(ids)] = ids, scores
        return Candidates(ids_BxK, scores_BxK)

    def scores(self, words_BxQ: np.ndarray, ids_BxS: np.ndarray) -> np.ndarray:
        """BM25 of each request's query against its own videos, float32 [B, S]; 0 where nothing matches or id <= 0."""
        total_BxS = np.zeros(ids_BxS.shape, np.float32)
        if not len(self._key):
            return total_BxS
        for q in range(words_BxQ.shape[1]):
            word_B = words_BxQ[:, q].astype(np.int64)
            rows = np.flatnonzero((word_B > 0) & (word_B < len(self._first_posting) - 1))
            if not len(rows):
                continue
            asked = word_B[rows, None] * self._videos + np.maximum(ids_BxS[rows], 0)
            at = np.minimum(np.searchsorted(self._key, asked.ravel()), len(self._key) - 1).reshape(asked.shape)
            total_BxS[rows] += np.where(self._key[at] == asked, self._score[at], np.float32(0))
        return total_BxS

    def _all_scores(self, words_Q: np.ndarray) -> np.ndarray:
        score_V = np.zeros(self._videos, np.float32)
        for word in words_Q:
            if 0 < word < len(self._first_posting) - 1:
                posting = slice(self._first_posting[word], self._first_posting[word + 1])
                score_V[self._video[posting]] += self._score[posting]
        return score_V


def _postings(captions: list[np.ndarray], words: int, config: RetrievalConfig):
    """(first [W + 1], video, score) with ascending videos within a word; video rows start at 1."""
    if not any(len(c) for c in captions):
        return np.zeros(words + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    # Row 0 is no document. Counting it would change document frequencies and the mean length.
    bm25 = bm25s.BM25(k1=config.bm25_k1, b=config.bm25_b, method="lucene", backend="numpy", csc_backend="scipy")
    vocabulary = {word: word for word in range(words)}
    bm25.index(([c.tolist() for c in captions], vocabulary), create_empty_token=False, show_progress=False)
    first = np.asarray(bm25.scores["indptr"], np.int64)
    video = np.asarray(bm25.scores["indices"], np.int32) + np.int32(1)
    score = np.asarray(bm25.scores["data"], np.float32)
    word = np.repeat(np.arange(words), np.diff(first))
    order = np.lexsort((video, word))
    return first, video[order], score[order]
