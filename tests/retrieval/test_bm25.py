"""BM25 against the plain formula; the channel's contract; the sums bit for bit; what a request costs."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from pr2_jax.config import RetrievalConfig
from pr2_jax.retrieval import bm25
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.postings import Postings, fit
from pr2_jax.types import Requests
from tests.retrieval.conftest import store_of

CONFIG = RetrievalConfig()


def channel_of(captions: list[list[int]], words: int) -> Bm25Channel:
    return Bm25Channel(fit(store_of(captions, words), CONFIG))


def requests_of(words: np.ndarray, seen: tuple = ()) -> Requests:
    return Requests(np.zeros(len(words), np.int32), np.zeros(len(words), np.int64), words.astype(np.int32), seen)


def asked(*parts) -> EncodedRequests:
    """BM25 goes by the words themselves: nobody encodes them."""
    return EncodedRequests(requests_of(*parts), None)


def plain_bm25(captions: list[list[int]], query: list[int], k1: float, b: float) -> list[float]:
    """Lucene's BM25 of every caption, from the formula; row 0 is no document."""
    documents = [[w for w in c if w > 0] for c in captions[1:]]
    mean = sum(map(len, documents)) / len(documents)
    out = [0.0]
    for document in documents:
        score = 0.0
        for word in query:
            if word > 0 and word in document:
                holding = sum(word in d for d in documents)
                idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
                tf = document.count(word)
                score += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
        out.append(score)
    return out


@pytest.fixture
def captions(rng: np.random.Generator) -> list[list[int]]:
    drawn = [rng.integers(0, 30, rng.integers(0, 9)).tolist() for _ in range(80)]
    return [[], *drawn, drawn[0]]


def test_scores_are_bm25(captions: list[list[int]], rng: np.random.Generator) -> None:
    channel = channel_of(captions, 30)
    words = rng.integers(0, 30, (20, 4))
    words[0] = 0
    words[1] = [5, 5, 0, 0]  # a repeated word counts twice
    got = channel.retrieve(asked(words), 100)
    for b in range(20):
        want = np.array(plain_bm25(captions, words[b].tolist(), CONFIG.bm25_k1, CONFIG.bm25_b))
        found = got.ids_BxK[b] > 0
        assert set(got.ids_BxK[b][found]) == set(np.flatnonzero(want > 0))
        np.testing.assert_allclose(got.scores_BxK[b][found], want[got.ids_BxK[b][found]], rtol=1e-5)
        assert (np.diff(got.scores_BxK[b][found]) <= 0).all()
    assert (got.ids_BxK[0] == -1).all()
    assert np.isneginf(got.scores_BxK[got.ids_BxK == -1]).all()


def test_pairs_are_the_channel(captions: list[list[int]], rng: np.random.Generator) -> None:
    channel = channel_of(captions, 30)
    requests = requests_of(rng.integers(0, 30, (20, 4)))
    got = channel.retrieve(EncodedRequests(requests, None), 30)
    pairs = channel.scores(requests.words_BxQ, got.ids_BxK)
    np.testing.assert_array_equal(pairs, np.where(got.ids_BxK > 0, got.scores_BxK, 0))
    assert (channel.scores(requests.words_BxQ, np.zeros((20, 3), np.int32)) == 0).all()


@pytest.mark.parametrize("captions", [[[]], [[], []], [[], [0]]])
def test_nothing_to_find(captions: list[list[int]]) -> None:
    channel = channel_of(captions, 3)
    words = np.array([[1, 2, 7]])
    assert (channel.retrieve(asked(words), 3).ids_BxK == -1).all()
    assert (channel.scores(words, np.array([[0, 0]])) == 0).all()


def plain_sums(made: Postings, words_Q: np.ndarray, videos: int) -> np.ndarray:
    """Scores of the whole catalogue, float32 [V], word by word."""
    score_V = np.zeros(videos, np.float32)
    for word in words_Q:
        video, score = made.of(int(word))
        score_V[video] += score
    return score_V


@pytest.mark.parametrize("dense", [0, 1 << 40], ids=["merged", "dense"])
def test_sums_and_ties_bit_for_bit(rng: np.random.Generator, monkeypatch, dense: int) -> None:
    """Repeated words, unknown words, withheld videos, many equal scores, fewer and more matches than asked for."""
    monkeypatch.setattr(bm25, "DENSE", dense)
    captions = [[], *(rng.integers(0, 12, rng.integers(0, 4)).tolist() for _ in range(400))]
    made = fit(store_of(captions, 12), CONFIG)
    words = rng.integers(-1, 14, (60, 5))
    words[:10, 1:] = 0
    seen = tuple(np.unique(rng.integers(1, 401, rng.integers(0, 200))).astype(np.int32) for _ in words)
    for withheld in ((), seen):
        got = Bm25Channel(made).retrieve(asked(words, withheld), 50)
        for b, words_Q in enumerate(words):
            score_V = plain_sums(made, words_Q, 401)
            if withheld:
                score_V[withheld[b]] = 0
            best = np.lexsort((np.arange(401), -score_V))[:50]
            best = best[score_V[best] > 0]
            assert got.ids_BxK[b].tolist() == [*best, *[-1] * (50 - len(best))]
            assert got.scores_BxK[b, : len(best)].tobytes() == score_V[best].tobytes()
    ids = rng.integers(-1, 401, (60, 30))
    pairs = Bm25Channel(made).scores(words, ids)
    for b, words_Q in enumerate(words):
        want = np.where(ids[b] > 0, plain_sums(made, words_Q, 401)[np.maximum(ids[b], 0)], np.float32(0))
        assert pairs[b].tobytes() == want.tobytes()


def test_a_request_costs_what_its_words_match() -> None:
    """Memory as the measure: a thousand matches in a catalogue of two thousand million videos, and beside long postings
    of other words, of which nothing is copied."""
    few = np.linspace(1, 2_000_000_000, 500).astype(np.int32)
    long = np.arange(1, 1_000_001, dtype=np.int32)
    video = np.concatenate([few, few + 1, long])
    made = Postings(np.array([0, 0, 500, 1_000, len(video)]), video, np.ones(len(video), np.float32))
    tracemalloc.start()
    try:
        found = Bm25Channel(made).retrieve(asked(np.array([[1, 2]]), (few[:3],)), 100)
        Bm25Channel(made).scores(np.array([[1, 3]]), found.ids_BxK)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert found.ids_BxK[0, :4].tolist() == [2, *(few[1:3] + 1).tolist(), few[3]]
