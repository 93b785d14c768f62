"""Blocks and padding change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.encoders.batching import in_blocks, padded_size


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


def test_several_results_a_floor_and_no_rows():
    shapes = []

    def split(part):
        shapes.append(part["x"].shape)
        return part["x"] + 1, part["x"][:, 0]

    for n in (0, 2, 5):
        x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
        more, first = in_blocks(split, {"x": x}, 8, least=4)
        np.testing.assert_array_equal(more, x + 1)
        np.testing.assert_array_equal(first, x[:, 0])
    assert shapes == [(4, 3), (4, 3), (8, 3)]
