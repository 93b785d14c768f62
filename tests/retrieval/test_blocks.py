"""Towers as functions on NumPy arrays: blocks and padding change nothing, and nothing is compiled twice."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import ContentConfig, DataConfig, PdrConfig
from pr2_jax.models.content import ContentTask
from pr2_jax.models.pdr import PdrTask
from pr2_jax.retrieval import encoders
from pr2_jax.retrieval.blocks import in_blocks, load_model, padded_size
from pr2_jax.retrieval.content import ContentSpace, content_videos
from pr2_jax.retrieval.pdr import PdrEncoder
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.tables import init_tables
from pr2_jax.types import Requests

SIZES = {"video": 20, "word": 15, "author": 5, "category": 6}
WIDTH = 8


@pytest.fixture(scope="module")
def catalogue() -> dict[str, jax.Array]:
    rng = np.random.default_rng(3)
    arrays = {
        "caption": rng.integers(0, 15, (20, 3)),
        "author": rng.integers(0, 5, 20),
        "category": rng.integers(0, 6, (20, 4)),
        "numbers": rng.normal(size=(20, 4)),
    }
    return {name: jnp.asarray(x, jnp.float32 if name == "numbers" else jnp.int32) for name, x in arrays.items()}


def fresh(task):
    return jax.jit(lambda key: (task.init(key), init_tables(task.table_specs(), key)))(jax.random.key(2))


@pytest.fixture(scope="module")
def content(catalogue, tmp_path_factory):
    """A content space on disk, as its stage leaves it."""
    task = ContentTask(ContentConfig(width=WIDTH, hidden=8), catalogue, 15, 5, 6)
    directory = tmp_path_factory.mktemp("content")
    weights = fresh(task)
    save_params(directory, weights)
    np.save(directory / "video_vectors.npy", content_videos(task, *weights))
    return task, weights, ContentSpace(task, directory), directory


@pytest.mark.parametrize(("n", "want"), [(1, 1), (2, 2), (3, 4), (5, 8), (64, 64), (65, 64), (1_000, 64)])
def test_padded_size(n, want):
    assert padded_size(n, 64) == want


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 21])
def test_blocks_equal_the_whole(n, rng):
    x, y = rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 9, n)
    shapes = []

    def double(part):
        shapes.append(len(part["x"]))
        return part["x"] * 2 + part["y"][:, None]

    got = in_blocks(double, {"x": x, "y": y}, 8)
    np.testing.assert_array_equal(got, double({"x": x, "y": y}))
    assert set(shapes[:-1]) <= {1, 2, 4, 8}


def test_what_was_saved_is_what_is_loaded(content):
    task, weights, _, directory = content
    loaded = load_model(task, directory)
    pairs = list(zip(jax.tree.leaves(weights), jax.tree.leaves(loaded), strict=True))
    assert pairs
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_queries_alone_and_together(content, rng):
    space = content[2]
    words = rng.integers(0, 15, (11, 3)).astype(np.int32)
    words[4] = 0
    together = space.queries(words)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), np.arange(11) != 4, atol=1e-5)
    for n in (0, 4, 10):
        np.testing.assert_allclose(space.queries(words[n : n + 1])[0], together[n], atol=1e-6)


def test_every_video_has_a_vector_but_the_unknown_one(content, monkeypatch):
    task, weights, space, _ = content
    np.testing.assert_allclose(np.linalg.norm(space.videos_VxD, axis=1), np.arange(20) > 0, atol=1e-5)
    monkeypatch.setattr(encoders, "VIDEO_BLOCK", 8)
    np.testing.assert_allclose(content_videos(task, *weights), space.videos_VxD, atol=1e-6)


def test_queries_compile_once_a_padded_shape(content, rng):
    space = ContentSpace(content[0], content[3])
    for n in (5, 6, 7, 8, 5):
        space.queries(rng.integers(1, 15, (n, 3)).astype(np.int32))
    assert space._query._cache_size() == 1
    space.queries(np.ones((9, 3), np.int32))
    assert space._query._cache_size() == 2


@pytest.fixture(scope="module")
def pdr(catalogue, content) -> PdrEncoder:
    space = content[2]
    config = PdrConfig(width=WIDTH, hidden=8, heads=2, history=4)
    task = PdrTask(config, catalogue | {"content": jnp.asarray(space.videos_VxD)}, SIZES, (3, 2))
    past = np.array([[0, 0, 0, 0], [0, 3, 4, 5], [6, 7, 8, 9]], np.int32)

    def engaged(user_B, time_ms_B, n):
        rows = past[user_B]
        signals = np.repeat((rows > 0)[..., None], 8, -1).astype(np.float32)
        return {"history_BxH": rows, "signals_BxHxG": signals, "gap_seconds_BxH": signals[..., 0] * 60}

    profile = np.array([[0, 0], [1, 1], [2, 0]], np.int32)
    reader = SimpleNamespace(engaged=engaged, store=SimpleNamespace(users=SimpleNamespace(profile=profile)))
    return PdrEncoder(task, *fresh(task), reader, space, DataConfig())


def requests_of(users, words) -> Requests:
    return Requests(np.array(users, np.int32), np.zeros(len(users), np.int64), np.array(words, np.int32))


def test_requests_alone_and_together(pdr):
    users, words = [0, 1, 2, 1, 2], [[1, 2], [1, 2], [1, 2], [0, 0], [3, 0]]
    together = pdr(requests_of(users, words))
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for n in range(5):
        np.testing.assert_allclose(pdr(requests_of(users[n : n + 1], words[n : n + 1]))[0], together[n], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    assert not np.allclose(together[1], together[2], atol=1e-3)


def test_requests_compile_once_a_padded_shape(pdr):
    pdr(requests_of([1] * 8, [[1, 2]] * 8))
    compiled = pdr._query_user._cache_size()
    for n in (5, 6, 7):
        pdr(requests_of([1] * n, [[1, 2]] * n))
    assert pdr._query_user._cache_size() == compiled


def test_videos_for_the_index(pdr):
    np.testing.assert_allclose(np.linalg.norm(pdr.videos(), axis=1), np.arange(20) > 0, atol=1e-5)
