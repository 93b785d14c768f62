"""Per-session metrics of a ranking. Rankings of one day have the same sessions, so any two can be paired."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pr2_jax.metrics.bootstrap import Interval, interval

BETWEEN = "/"
"""Between the ranking's name and what is stored of it, in the file."""


@dataclasses.dataclass(frozen=True)
class PerSession:
    """Metrics of N sessions, NaN where a session says nothing (no click, say)."""

    session_N: np.ndarray  # rows of the store
    user_N: np.ndarray
    metrics: dict[str, np.ndarray]  # float64 [N] each

    def __getitem__(self, metric: str) -> np.ndarray:
        return self.metrics[metric]

    def interval(self, metric: str, draws: int, seed: int) -> Interval:
        return interval(self.metrics[metric], self.user_N, None, draws, seed)

    def less(self, other: PerSession, metric: str, draws: int, seed: int) -> Interval:
        """The paired difference to another ranking of the same sessions."""
        if not np.array_equal(self.session_N, other.session_N):
            raise ValueError("rankings of different sessions cannot be compared session by session")
        return interval(self.metrics[metric] - other.metrics[metric], self.user_N, None, draws, seed)

    def rows(self, kept_N: np.ndarray) -> PerSession:
        metrics = {name: value_N[kept_N] for name, value_N in self.metrics.items()}
        return PerSession(self.session_N[kept_N], self.user_N[kept_N], metrics)


def mean_of(runs: list[PerSession]) -> PerSession:
    """Each session's mean over several runs (seeds) of one ranking."""
    first = runs[0]
    if not all(np.array_equal(first.session_N, run.session_N) for run in runs):
        raise ValueError("runs over different sessions have no common mean")
    return dataclasses.replace(
        first, metrics={name: np.mean([run.metrics[name] for run in runs], axis=0) for name in first.metrics}
    )


def save(path: Path, values: Mapping[str, PerSession]) -> None:
    """One `.npz`: `session`, `user` and each metric, under the ranking's name."""
    arrays = {}
    for name, one in values.items():
        kept = {"session": one.session_N, "user": one.user_N} | one.metrics
        arrays |= {f"{name}{BETWEEN}{key}": array for key, array in kept.items()}
    np.savez(path, **arrays)


def load(path: Path) -> dict[str, PerSession]:
    """What `save` wrote."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, _, kind = key.partition(BETWEEN)
            found.setdefault(name, {})[kind] = arrays[key]
    return {name: PerSession(kept.pop("session"), kept.pop("user"), kept) for name, kept in found.items()}
