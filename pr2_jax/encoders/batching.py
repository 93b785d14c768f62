"""Batched calls of jitted functions on NumPy arrays of any length, padded to few shapes to save compilations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

VIDEO_BLOCK = 4_096
REQUEST_BLOCK = 256


def padded_size(n: int, block: int = sys.maxsize) -> int:
    """The least power of two not below n, at most `block`."""
    return min(block, 1 << max(0, n - 1).bit_length())


def in_blocks(fn: Callable, arrays: dict[str, np.ndarray], block: int, least: int = 1):
    """Applies a jitted function to slices of at most `block` rows and joins the results (an array, or a tuple of them).

    A slice is padded to a power of two, at least `least`, by repeating its first row (by zeros where it has none).
    """
    n = len(next(iter(arrays.values())))
    out = []
    for start in range(0, max(n, 1), block):
        part = {name: x[start : start + block] for name, x in arrays.items()}
        real = min(block, n - start)
        size = max(padded_size(real, block), least)
        made = fn({name: _pad_rows(x, size) for name, x in part.items()})
        several = isinstance(made, tuple)
        out.append([np.asarray(x)[:real] for x in (made if several else (made,))])
    joined = tuple(np.concatenate(parts) for parts in zip(*out, strict=True))
    return joined if several else joined[0]


def event_blocks(first_N: np.ndarray, end_N: np.ndarray, at_once: int) -> Iterator[np.ndarray]:
    """Rows of the ranges that are not empty, with about `at_once` events at a time."""
    length_N = end_N - first_N
    cuts = np.searchsorted(np.cumsum(length_N), np.arange(at_once, length_N.sum(), at_once))
    for rows in np.split(np.arange(len(end_N)), np.unique(cuts)):
        rows = rows[length_N[rows] > 0]
        if len(rows):
            yield rows


def _pad_rows(x: np.ndarray, size: int) -> np.ndarray:
    if len(x) == size:
        return x
    filler = x[:1] if len(x) else np.zeros((1, *x.shape[1:]), x.dtype)
    return np.concatenate([x, np.repeat(filler, size - len(x), 0)])


def all_videos(encode: Callable, videos: int) -> np.ndarray:
    """Vectors of the catalogue from a video tower, `[V, D]`; row 0 (unknown) is zero."""
    vectors_VxD = in_blocks(encode, {"video_N": np.arange(videos, dtype=np.int32)}, VIDEO_BLOCK)
    vectors_VxD[0] = 0
    return vectors_VxD
