"""BM25 against the plain formula; the channel's contract; scores of chosen pairs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import RetrievalConfig
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import Requests

CONFIG = RetrievalConfig()


def store_of(captions: list[list[int]], words: int) -> SimpleNamespace:
    """What the channel reads of a LogStore; `captions[0]` belongs to row 0."""
    return SimpleNamespace(
        videos=SimpleNamespace(
            first_word=np.r_[0, np.cumsum([len(c) for c in captions])].astype(np.int64),
            words=np.array([w for c in captions for w in c], np.int32),
        ),
        counts=SimpleNamespace(words=words),
    )


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
    channel = Bm25Channel(store_of(captions, 30), CONFIG)
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
    channel = Bm25Channel(store_of(captions, 30), CONFIG)
    requests = requests_of(rng.integers(0, 30, (20, 4)))
    got = channel.retrieve(EncodedRequests(requests, None), 30)
    pairs = channel.scores(requests.words_BxQ, got.ids_BxK)
    np.testing.assert_array_equal(pairs, np.where(got.ids_BxK > 0, got.scores_BxK, 0))
    assert (channel.scores(requests.words_BxQ, np.zeros((20, 3), np.int32)) == 0).all()


@pytest.mark.parametrize("captions", [[[]], [[], []], [[], [0]]])
def test_nothing_to_find(captions: list[list[int]]) -> None:
    channel = Bm25Channel(store_of(captions, 3), CONFIG)
    words = np.array([[1, 2, 7]])
    assert (channel.retrieve(asked(words), 3).ids_BxK == -1).all()
    assert (channel.scores(words, np.array([[0, 0]])) == 0).all()
