"""The content towers as functions on NumPy arrays: what is saved is what answers, and nothing is compiled twice."""

from __future__ import annotations

import jax
import numpy as np

from pr2_jax.encoders import batching
from pr2_jax.encoders.space_encoders import ContentEncoder
from pr2_jax.models.model_functions import content_functions, load_model


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
    monkeypatch.setattr(batching, "VIDEO_BLOCK", 8)
    encode = content_functions(task, *weights)["content_video"]
    np.testing.assert_allclose(batching.all_videos(encode, 20), space.videos_VxD, atol=1e-6)


def test_queries_compile_once_a_padded_shape(content, rng):
    space = ContentEncoder(content_functions(content[0], *content[1]), content[3])
    compiled = set()
    for n in (5, 6, 7, 8, 5):
        space.queries(rng.integers(1, 15, (n, 3)).astype(np.int32))
        compiled.add(space._query.program._cache_size())
    assert len(compiled) == 1
    space.queries(np.ones((33, 3), np.int32))
    assert space._query.program._cache_size() == compiled.pop() + 1
