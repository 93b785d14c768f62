"""The dense channel: vectors from an encoder, videos from an index, nothing for a vector that says nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.retrieval.ann import ExactSearch
from pr2_jax.retrieval.channels import DenseChannel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import Requests


@pytest.fixture
def vectors(rng) -> np.ndarray:
    """Row r of the queries asks for video r; words 0 = the zero vector."""
    made = rng.normal(size=(12, 6)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made[0] = 0
    return made


@pytest.fixture
def channel(vectors) -> DenseChannel:
    return DenseChannel("dr", lambda encoded: encoded.query_BxD, ExactSearch(vectors))


@pytest.fixture
def requests_of(vectors):
    space = SimpleNamespace(queries=lambda words_BxQ: vectors[words_BxQ[:, 0]])

    def requests_of(words, seen=()) -> EncodedRequests:
        words = np.array(words, np.int32)[:, None]
        requests = Requests(np.zeros(len(words), np.int32), np.zeros(len(words), np.int64), words, seen)
        return EncodedRequests(requests, SimpleNamespace(space=space))

    return requests_of


def test_finds_the_nearest(channel, vectors, requests_of):
    got = channel.retrieve(requests_of([3, 7]), 5)
    for row, video in enumerate((3, 7)):
        want = np.argsort(-(vectors[1:] @ vectors[video]))[:5] + 1
        assert got.ids_BxK[row].tolist() == want.tolist()
    assert got.ids_BxK[:, 0].tolist() == [3, 7]
    assert (got.ids_BxK.dtype, got.scores_BxK.dtype) == (np.int32, np.float32)


def test_a_vector_that_says_nothing_finds_nothing(channel, requests_of):
    got = channel.retrieve(requests_of([0, 4]), 3)
    assert got.ids_BxK[0].tolist() == [-1, -1, -1]
    assert (got.scores_BxK[0] == -np.inf).all()
    assert got.ids_BxK[1, 0] == 4
