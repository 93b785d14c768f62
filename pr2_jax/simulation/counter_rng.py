"""Counter-based random numbers: a draw is a hash of its coordinates, such as seed, day, person and occasion.

A sequential generator hands out its draws in the order of the calls, so that one person more or another serving system
changes everybody's draws. Counter-based draws stay the same. Two systems can serve the same person with common random
numbers, and all that differs is what they show.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclasses.dataclass(frozen=True)
class CounterRng:
    """A stream of draws; streams with different keys are independent."""

    key: np.uint64

    @staticmethod
    def of(seed: int, *path: int) -> CounterRng:
        return CounterRng(np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)[0])

    def child(self, number: int) -> CounterRng:
        """An independent stream for one purpose within this one."""
        return CounterRng(_mixed(np.atleast_1d(self.key) ^ ((np.asarray([number + 1], np.uint64)) * _FIRST))[0])

    def draw(self, width: int, *coordinates_N: np.ndarray) -> np.ndarray:
        """float64 [N, width] in [0, 1), independent draws for N occasions. `coordinates_N`: integers that identify an
        occasion, such as the person and the number of the day's search."""
        state_N = np.full(np.broadcast(*coordinates_N).shape, self.key)
        for one_N in coordinates_N:
            state_N = _mixed(state_N + (np.asarray(one_N).astype(np.uint64) + np.uint64(1)) * _ODD)
        state_NxW = _mixed(state_N[:, None] + (np.arange(width, dtype=np.uint64) + np.uint64(1)) * _ODD)
        return (state_NxW >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(weight_G: np.ndarray, point_x: np.ndarray) -> np.ndarray:
    """int32 of the points' shape: columns of `weight_G` sampled by weight, from draws in [0, 1)."""
    total_G = np.cumsum(weight_G, dtype=np.float64)
    column_x = np.searchsorted(total_G, point_x * total_G[-1], side="right")
    return np.minimum(column_x, len(total_G) - 1).astype(np.int32)


def sample_in_groups(
    group_V: np.ndarray, wanted_N: np.ndarray, point_N: np.ndarray, weight_V: np.ndarray | None = None
) -> np.ndarray:
    """int64 [N]: one row of each wanted group, drawn by weight (None: evenly) from draws in [0, 1); -1 where the group
    has no row or no weight."""
    order_V = np.argsort(group_V, kind="stable")
    low_N, high_N = (np.searchsorted(group_V[order_V], wanted_N, side=side) for side in ("left", "right"))
    if weight_V is None:
        some_N, place_N = high_N > low_N, low_N + (point_N * (high_N - low_N)).astype(np.int64)
    else:
        total_V = np.concatenate([[0.0], np.cumsum(weight_V[order_V])])
        first_N, last_N = total_V[low_N], total_V[high_N]
        place_N = np.searchsorted(total_V, first_N + point_N * (last_N - first_N), side="right") - 1
        some_N, place_N = last_N > first_N, np.clip(place_N, low_N, high_N - 1)
    return np.append(order_V, -1)[np.where(some_N, place_N, -1)]


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 [lit: Steele, Lea and Flood 2014]: every bit in moves half of the bits out."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
