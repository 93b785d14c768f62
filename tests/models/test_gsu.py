"""The search unit against a NumPy sort."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.models.qin import kth_largest, search_by_query, search_by_video
from pr2_jax.types import NEVER


def plain_by_query(query_D, history_HxD, mask_H, k) -> list[int]:
    """Real positions, most relevant first, the later of equals first."""
    relevance = history_HxD @ query_D
    return sorted(np.flatnonzero(mask_H), key=lambda at: (-relevance[at], -at))[:k]


@pytest.fixture
def history(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers, so that many views are equally relevant. Rows: full, padded in front, two views, none."""
    query_BxD = rng.integers(-1, 2, (4, 3)).astype(np.float32)
    query_BxD[1] = 0
    mask_BxH = np.arange(10)[None, :] >= np.array([[0], [4], [8], [10]])
    return query_BxD, rng.integers(-1, 2, (4, 10, 3)).astype(np.float32), mask_BxH


@pytest.mark.parametrize("k", [1, 4, 10, 25])
def test_by_query_is_a_sort(k, history):
    query_BxD, history_BxHxD, mask_BxH = history
    position_BxK, real_BxK = (np.asarray(x) for x in search_by_query(*map(jnp.asarray, history), k))
    assert position_BxK.shape == (4, min(k, 10))
    for b in range(4):
        want = plain_by_query(query_BxD[b], history_BxHxD[b], mask_BxH[b], k)
        assert position_BxK[b][real_BxK[b]].tolist() == want
        assert real_BxK[b].sum() == min(k, mask_BxH[b].sum())


def test_an_empty_query_keeps_the_latest(history):
    _, history_BxHxD, mask_BxH = history
    position_BxK, real_BxK = search_by_query(jnp.zeros((4, 3)), jnp.asarray(history_BxHxD), jnp.asarray(mask_BxH), 3)
    kept = [np.asarray(row)[np.asarray(real)].tolist() for row, real in zip(position_BxK, real_BxK, strict=True)]
    assert kept == [[9, 8, 7], [9, 8, 7], [9, 8], []]


@pytest.mark.parametrize("k", [1, 3, 8, 20])
def test_by_video_keeps_the_most_similar(k, rng):
    video_BxSxD, kept_BxKxD = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 8, 4))
    mask_BxK = np.arange(8)[None, :] < np.array([[8], [2], [0]])
    keep_BxSxK = np.asarray(search_by_video(*map(jnp.asarray, (video_BxSxD, kept_BxKxD, mask_BxK)), k))
    for b, s in np.ndindex(3, 2):
        similarity = np.where(mask_BxK[b], kept_BxKxD[b] @ video_BxSxD[b, s], -np.inf)
        want = np.argsort(-similarity)[: min(k, mask_BxK[b].sum())]
        assert np.flatnonzero(keep_BxSxK[b, s]).tolist() == sorted(want)


def test_by_video_lets_all_of_equals_stay():
    """A view repeated at the threshold stays with its twins: attention treats equals alike, nothing has a fixed K2."""
    kept_BxKxD = jnp.array([[[3.0], [2.0], [2.0], [2.0], [1.0]]])
    mask_BxK = jnp.array([[True, True, True, False, True]])
    keep = search_by_video(jnp.ones((1, 1, 1)), kept_BxKxD, mask_BxK, 2)
    assert keep[0, 0].tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("k", [1, 2, 30, 99, 100])
def test_kth_largest_is_that_of_a_sort(k, rng):
    """Of any size and sign, with equals, both zeros, denormals (which XLA may take for 0) and the largest floats."""
    x_RxN = (rng.normal(size=(40, 100)) * 10.0 ** rng.integers(-30, 30, (40, 1))).astype(np.float32)
    x_RxN[1:10] = rng.integers(-2, 3, (9, 100))
    x_RxN[10, :50], x_RxN[11:15, 20:] = -0.0, NEVER
    x_RxN[15], x_RxN[16] = -np.finfo(np.float32).max, np.finfo(np.float32).max
    x_RxN[17, ::2], x_RxN[18, ::2] = 1e-42, -1e-42
    found_R = np.asarray(jax.jit(kth_largest, static_argnums=1)(x_RxN, k))[:, 0]
    want_R = np.sort(x_RxN, axis=1)[:, -k]
    np.testing.assert_array_equal(*(np.where(np.abs(x_R) < 1e-40, 0, x_R) for x_R in (found_R, want_R)))


def test_kth_largest_takes_rows_of_any_rank(rng):
    x_BxSxK = rng.normal(size=(2, 3, 7)).astype(np.float32)
    found_BxSx1 = np.asarray(kth_largest(jnp.asarray(x_BxSxK), 4))
    np.testing.assert_array_equal(found_BxSx1, np.sort(x_BxSxK)[..., -4, None])
