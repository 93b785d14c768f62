"""Withholding, cutting and tie order of raw results."""

from __future__ import annotations

import numpy as np

from pr2_jax.retrieval.candidates import best_of, is_seen, withhold_seen


def test_is_seen_against_sets(rng: np.random.Generator) -> None:
    ids = rng.integers(-1, 50, (30, 20))
    seen = tuple(np.unique(rng.integers(1, 60, rng.integers(0, 25))).astype(np.int32) for _ in range(30))
    want = [[i in set(s.tolist()) for i in row] for row, s in zip(ids.tolist(), seen, strict=True)]
    np.testing.assert_array_equal(is_seen(ids, seen), want)
    assert not is_seen(ids, ()).any()


def test_withheld_results_make_room_for_later_ones() -> None:
    ids, scores = np.array([[4, 0, 7, 2, 9]]), np.array([[5.0, 4, 3, np.nan, 1]])
    got = withhold_seen(ids, scores, (np.array([4], np.int32),), 4)
    assert got.ids_BxK.tolist() == [[7, 9, -1, -1]]
    assert got.scores_BxK.tolist() == [[3.0, 1.0, -np.inf, -np.inf]]
    assert (got.ids_BxK.dtype, got.scores_BxK.dtype) == (np.int32, np.float32)


def test_best_of_is_a_stable_sort(rng: np.random.Generator) -> None:
    for size in (0, 1, 9, 200):
        ids, scores = np.arange(size) * 3 + 1, rng.integers(0, 12, size).astype(np.float32)
        order = np.argsort(-scores, kind="stable")[:10]
        got_ids, got_scores = best_of(ids, scores, 10)
        np.testing.assert_array_equal(got_ids, ids[order])
        np.testing.assert_array_equal(got_scores, scores[order])
