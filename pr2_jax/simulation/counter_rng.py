"""People's luck: draws that depend on the seed, the day, the person and what they are about to do, and on nothing else.

A generator hands out its draws in the order of asking, so that one person more or less, or another system that serves,
changes everybody's luck. Here a draw is a hash of its coordinates: the same person can live the same day under two
systems, and all that differs is what the systems showed.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclasses.dataclass(frozen=True)
class CounterRng:
    """A stream of draws; `key` sets it apart from all other streams."""

    key: np.uint64

    @staticmethod
    def of(seed: int, *path: int) -> CounterRng:
        """The stream with this address."""
        return CounterRng(np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)[0])

    def child(self, number: int) -> CounterRng:
        """A stream of its own for one part of what this one is for."""
        return CounterRng(_mixed(np.atleast_1d(self.key) ^ ((np.asarray([number + 1], np.uint64)) * _FIRST))[0])

    def draw(self, width: int, *coordinates_N: np.ndarray) -> np.ndarray:
        """float64 [N, width] in [0, 1), independent of each other. `coordinates_N`: integers that tell N occasions
        apart, say person and number of the search of the day; the same ones always get the same draws."""
        state_N = np.full(np.broadcast(*coordinates_N).shape, self.key)
        for one_N in coordinates_N:
            state_N = _mixed(state_N + (np.asarray(one_N).astype(np.uint64) + np.uint64(1)) * _ODD)
        state_NxW = _mixed(state_N[:, None] + (np.arange(width, dtype=np.uint64) + np.uint64(1)) * _ODD)
        return (state_NxW >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(weight_G: np.ndarray, point_x: np.ndarray) -> np.ndarray:
    """int32 of the points' shape: the column of `weight_G` on which a draw in [0, 1) falls, by weight."""
    total_G = np.cumsum(weight_G, dtype=np.float64)
    column_x = np.searchsorted(total_G, point_x * total_G[-1], side="right")
    return np.minimum(column_x, len(total_G) - 1).astype(np.int32)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 [lit: Steele, Lea and Flood 2014]: every bit in moves half of the bits out."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
