"""BM25 over captions: a lexical retrieval channel and a ranking feature, both from saved postings."""

from __future__ import annotations

import numpy as np

from pr2_jax.retrieval.candidates import best_of
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.postings import Postings
from pr2_jax.types import NO_VIDEO, Candidates

DENSE = 32
"""Videos a match up to which an array over all of them is faster than merging the postings (measured)."""


class Bm25Channel:
    """BM25 of query words against caption words, both as word rows of the store.

    A query's score is the sum of its words' postings, in float32 and in the order of the query; a repeated word counts
    twice. Only videos with a score above 0 are returned. A request costs what its words match, whatever the catalogue.
    """

    name = "bm25"

    def __init__(self, postings: Postings) -> None:
        self._postings = postings

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        """As `Channel`; ties by ascending video row."""
        requests = encoded.requests
        ids_BxK = np.full((len(requests), k), NO_VIDEO, np.int32)
        scores_BxK = np.full((len(requests), k), -np.inf, np.float32)
        for b, words_Q in enumerate(requests.words_BxQ):
            matched, score = self._matches(words_Q)
            if requests.seen and len(matched):
                kept = _without(matched, requests.seen[b])
                matched, score = matched[kept], score[kept]
            ids, scores = best_of(matched, score, k)
            ids_BxK[b, : len(ids)], scores_BxK[b, : len(ids)] = ids, scores
        return Candidates(ids_BxK, scores_BxK)

    def scores(self, words_BxQ: np.ndarray, ids_BxS: np.ndarray) -> np.ndarray:
        """BM25 of each request's query against its own videos, float32 [B, S]; 0 where nothing matches or id <= 0."""
        total_BxS = np.zeros(ids_BxS.shape, np.float32)
        if not ids_BxS.size:
            return total_BxS
        # As the postings' type: NumPy would copy a whole posting to search it for another.
        ids_BxS = ids_BxS.astype(np.int32, copy=False)
        for word_B in words_BxQ.T:
            order_B = np.argsort(word_B, kind="stable")  # requests with the same word search its posting together
            for rows in np.split(order_B, np.flatnonzero(np.diff(word_B[order_B])) + 1):
                video, score = self._postings.of(int(word_B[rows[0]]))
                if not len(video):
                    continue
                asked_NxS = ids_BxS[rows]
                at_NxS = np.minimum(np.searchsorted(video, asked_NxS), len(video) - 1)
                total_BxS[rows] += np.where(video[at_NxS] == asked_NxS, score[at_NxS], np.float32(0))
        return total_BxS

    def _matches(self, words_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every video that a word matches, ascending, and the sums of their scores."""
        found = [self._postings.of(word) for word in words_Q.tolist()]
        found = [(video, score) for video, score in found if len(video)] or [self._postings.of(0)]
        if len(found) == 1:
            return found[0]
        videos = 1 + max(int(video[-1]) for video, _ in found)
        if videos <= DENSE * sum(len(video) for video, _ in found):
            score_V = np.zeros(videos, np.float32)
            for video, score in found:
                score_V[video] += score
            video_N = np.flatnonzero(score_V > 0).astype(np.int32)
            return video_N, score_V[video_N]
        video_N = np.concatenate([video for video, _ in found])
        video_N.sort(kind="stable")  # merges runs that ascend
        video_N = video_N[np.concatenate([[True], video_N[1:] != video_N[:-1]])]
        score_N = np.zeros(len(video_N), np.float32)
        for video, score in found:
            score_N[np.searchsorted(video_N, video)] += score
        return video_N, score_N


def _without(ids_N: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which of ascending ids (at least one) are not seen, bool [N]."""
    at = np.minimum(np.searchsorted(ids_N, seen), len(ids_N) - 1)
    kept_N = np.ones(len(ids_N), bool)
    kept_N[at[ids_N[at] == seen]] = False
    return kept_N
