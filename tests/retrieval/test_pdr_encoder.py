"""The dual encoder as functions on NumPy arrays: alone = together, and nothing is compiled twice."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import PdrConfig
from pr2_jax.models.model_functions import pdr_functions
from pr2_jax.models.pdr import PdrTask
from pr2_jax.retrieval.channels import PdrEncoder
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.types import Requests


@pytest.fixture(scope="module")
def pdr(catalogue, content, sizes, fresh) -> PdrEncoder:
    space = content[2]
    config = PdrConfig(width=8, hidden=8, heads=2, history=4)
    liked_VxD = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
    spaces = {"content": jnp.asarray(space.videos_VxD), "preference": jnp.asarray(liked_VxD)}
    task = PdrTask(config, catalogue | spaces, sizes, (3, 2))
    past = np.array([[0, 0, 0, 0], [0, 3, 4, 5], [6, 7, 8, 9]], np.int32)

    def engaged(user_B, time_ms_B, n):
        rows = past[user_B]
        signals = np.repeat((rows > 0)[..., None], 8, -1).astype(np.float32)
        return {"history_BxH": rows, "signals_BxHxG": signals, "gap_seconds_BxH": signals[..., 0] * 60}

    profile = np.array([[0, 0], [1, 1], [2, 0]], np.int32)
    store = SimpleNamespace(users=SimpleNamespace(profile=profile), counts=SimpleNamespace(videos=20))
    reader = SimpleNamespace(engaged=engaged, store=store)
    preference = SimpleNamespace(people=lambda user_B, time_ms_B: SimpleNamespace(preference_NxD=liked_VxD[user_B]))
    encoder = PdrEncoder(pdr_functions(task, *fresh(task)), config.history, reader)
    encoder.encoders = SimpleNamespace(space=space, preference=preference)
    return encoder


@pytest.fixture
def requests_of(pdr):
    def requests_of(users, words) -> EncodedRequests:
        requests = Requests(np.array(users, np.int32), np.zeros(len(users), np.int64), np.array(words, np.int32))
        return EncodedRequests(requests, pdr.encoders)

    return requests_of


def test_requests_alone_and_together(pdr, requests_of):
    users, words = [0, 1, 2, 1, 2], [[1, 2], [1, 2], [1, 2], [0, 0], [3, 0]]
    together = pdr(requests_of(users, words))
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for n in range(5):
        np.testing.assert_allclose(pdr(requests_of(users[n : n + 1], words[n : n + 1]))[0], together[n], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    assert not np.allclose(together[1], together[2], atol=1e-3)


def test_requests_compile_once_a_padded_shape(pdr, requests_of):
    pdr(requests_of([1] * 8, [[1, 2]] * 8))
    compiled = pdr._functions["pdr_query_user"].program._cache_size()
    for n in (5, 6, 7):
        pdr(requests_of([1] * n, [[1, 2]] * n))
    assert pdr._functions["pdr_query_user"].program._cache_size() == compiled


def test_videos_for_the_index(pdr):
    np.testing.assert_allclose(np.linalg.norm(pdr.videos(), axis=1), np.arange(20) > 0, atol=1e-5)
