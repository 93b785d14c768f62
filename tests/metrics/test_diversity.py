"""Relevance and diversity of lists against plain Python, and by hand."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from pr2_jax.metrics.diversity import list_metrics

VIDEOS = 40


@pytest.fixture
def catalogue(rng):
    vectors = rng.normal(size=(VIDEOS, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    category = rng.integers(0, 5, (VIDEOS, 3))
    author = rng.integers(0, 6, VIDEOS)
    category[0], author[0] = 0, 0
    return vectors.astype(np.float32), category, author


def twin(ids, query, vectors, category, author, depth):
    """One session, by loops."""
    top = [v for v in ids[:depth] if v > 0]
    relevance = sum(float(vectors[v] @ query) for v in top) / len(top) if top and query.any() else math.nan
    mass = collections.Counter()
    for video in top:
        labels = [label for label in category[video] if label > 0]
        for label in labels:
            mass[label] += 1 / len(labels)
    total = sum(mass.values())
    entropy = -sum(m / total * math.log(m / total) for m in mass.values()) if total else math.nan
    authors = len({author[v] for v in top} - {0}) if top else math.nan
    return {"relevance": relevance, "entropy": entropy, "authors": authors}


@pytest.mark.parametrize("depth", [1, 4, 10])
def test_against_loops(depth, catalogue, rng):
    """Full lists, short ones, padding in the middle, nothing at all, a query without a known word."""
    ids = np.stack([rng.permutation(np.arange(1, VIDEOS))[:12] for _ in range(7)])
    ids[1, 3:], ids[2, ::2], ids[3] = -1, -1, -1
    query = rng.normal(size=(7, 5)).astype(np.float32)
    query[4] = 0
    found = list_metrics(ids, query, *catalogue, depth)
    for row in range(7):
        want = twin(ids[row], query[row], *catalogue, depth)
        assert {name: values[row] for name, values in found.items()} == pytest.approx(want, nan_ok=True, abs=1e-6)
    assert np.isnan(found["relevance"][3:5]).all()
    assert not np.isnan(found["authors"][4])


def test_by_hand():
    """Four videos in equal parts of two categories: ln 2. Of one category: 0. One author twice, one unknown: 2."""
    vectors = np.eye(6, dtype=np.float32)
    category = np.array([[0, 0], [1, 0], [1, 0], [2, 0], [2, 0], [1, 2]])
    author = np.array([0, 7, 7, 8, 0, 9])
    query = np.zeros((3, 6), np.float32)
    query[:, 1] = 1
    found = list_metrics(np.array([[1, 2, 3, 4], [1, 2, -1, -1], [5, -1, -1, -1]]), query, vectors, category, author)
    np.testing.assert_allclose(found["entropy"], [math.log(2), 0, math.log(2)], atol=1e-12)
    assert found["authors"].tolist() == [2, 1, 1]
    np.testing.assert_allclose(found["relevance"], [0.25, 0.5, 0])


def test_no_session_and_no_label(catalogue):
    vectors, category, author = catalogue
    none = list_metrics(np.zeros((0, 10), np.int32), np.zeros((0, 5), np.float32), vectors, category, author)
    assert {name: values.shape for name, values in none.items()} == dict.fromkeys(
        ("relevance", "entropy", "authors"), (0,)
    )
    bare = list_metrics(np.array([[1, 2]]), np.ones((1, 5), np.float32), vectors, category * 0, author * 0)
    assert np.isnan(bare["entropy"]).all()
    assert bare["authors"].tolist() == [0]
