"""Slices of the sessions of a day, and paired comparisons of two rankings within each.

A slicing gives each session a whole number (a count, an age in days) and each slice a range of numbers, so that each
session is in exactly one slice. The ranges follow from counts of the past.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.metrics.per_session import PerSession

FEW_USERS = 10
"""A slice with fewer people gets no interval: a bootstrap over so few is not reliable."""
UNKNOWN = -1
"""The number of a session for which there is none."""


@dataclasses.dataclass(frozen=True)
class Slicing:
    """N sessions in K slices: slice k holds numbers from `from_K[k]` on, below `from_K[k + 1]`."""

    name: str
    what: str  # what the number is, for people
    names_K: tuple[str, ...]
    from_K: tuple[int, ...]  # ascending; a slice that begins where the next one does is empty
    number_N: np.ndarray  # int64

    @property
    def slice_N(self) -> np.ndarray:
        return np.searchsorted(self.from_K, self.number_N, side="right") - 1

    def bounds(self, k: int) -> tuple[int, int | None]:
        """The least and the greatest number of slice k; None = no end. In an empty slice greatest < least."""
        return self.from_K[k], self.from_K[k + 1] - 1 if k + 1 < len(self.from_K) else None

    def label(self, k: int) -> str:
        """`query torso (8 to 54)`."""
        low, high = self.bounds(k)
        if low < 0:
            return f"{self.name} {self.names_K[k]}"
        if high is None:
            return f"{self.name} {self.names_K[k]} ({low:,} or more)"
        text = f"{low:,}" if low == high else f"{low:,} to {high:,}" if low < high else "no count"
        return f"{self.name} {self.names_K[k]} ({text})"


@dataclasses.dataclass(frozen=True)
class Measure:
    """One metric by which two rankings are compared."""

    ranking: str
    against: str
    metric: str

    @property
    def name(self) -> str:
        """`pipeline ndcg@10`."""
        return f"{self.ranking.split('.')[0]} {self.metric}"


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two rankings over some sessions; NaN without a session in which the metric is known."""

    against: float  # means over the sessions in which the metric is known
    ranking: float
    difference: Interval  # its `count`: those sessions
    users: int  # whose they are


def thirds(count_Q: np.ndarray) -> tuple[int, int]:
    """(least count of the torso, least count of the head) of things by how often each was asked for.

    Head = the most frequent that together make up the first third of everything counted, torso = the second, tail = the
    rest. Equal counts stay together: those that a third would divide belong to the next one, but whatever has the
    greatest count is head, and the least count is tail even where it is the greatest, too. Zeros do not matter.
    """
    count_C, things_C = np.unique(np.asarray(count_Q)[np.asarray(count_Q) > 0], return_counts=True)
    if len(count_C) < 2:
        end = int(count_C[0]) + 1 if len(count_C) else 1
        return end, end
    mass_C = (count_C * things_C)[::-1].astype(np.int64)
    ends_C, most_C = np.cumsum(mass_C), count_C[::-1]  # the most frequent first
    whole = int(ends_C[-1])
    head = max(1, int((ends_C <= whole // 3).sum()))
    torso = max(1, int((ends_C <= 2 * whole // 3).sum()))
    return int(most_C[torso - 1]), int(most_C[head - 1])


def quantiles(number_N: np.ndarray, parts: int) -> tuple[int, ...]:
    """The least numbers of parts 2, 3, ... of about equal size: each part ends with a number that occurs, whole."""
    if not len(number_N):
        return (0,) * (parts - 1)
    shares = np.arange(1, parts) / parts
    return tuple(int(last) + 1 for last in np.quantile(np.asarray(number_N, np.int64), shares, method="inverted_cdf"))


def least(number_M: np.ndarray, sizes_N: np.ndarray) -> np.ndarray:
    """The least number of each of N groups that lie one after the other; ValueError where one is empty."""
    sizes_N = np.asarray(sizes_N)
    if not (sizes_N > 0).all():
        raise ValueError("a session without a clicked video has no place among slices by clicked video")
    first_N = np.cumsum(sizes_N) - sizes_N
    return np.minimum.reduceat(number_M, first_N) if len(first_N) else np.zeros(0, np.int64)


def compare(
    metrics: Mapping[str, PerSession], measure: Measure, sessions_N: np.ndarray, draws: int, seed: int
) -> Compared:
    """One measure over the sessions with these rows of the store."""
    one, other = (
        values.rows(np.isin(values.session_N, sessions_N))
        for values in (metrics[measure.ranking], metrics[measure.against])
    )
    difference = one.less(other, measure.metric, draws, seed)
    known = np.isfinite(one[measure.metric]) & np.isfinite(other[measure.metric])
    users = len(np.unique(one.user_N[known]))
    if users < FEW_USERS:
        difference = dataclasses.replace(difference, low=float("nan"), high=float("nan"))
    means = [float(v[measure.metric][known].mean()) if known.any() else float("nan") for v in (other, one)]
    return Compared(*means, difference, users)


def compare_slices(
    metrics: Mapping[str, PerSession],
    measures: Sequence[Measure],
    slicing: Slicing,
    sessions_N: np.ndarray,
    draws: int,
    seed: int,
) -> list[dict[str, Compared]]:
    """For each slice, every measure by its name; `sessions_N` are the sessions that were cut, as rows of the store."""
    return [
        {m.name: compare(metrics, m, sessions_N[slicing.slice_N == k], draws, seed) for m in measures}
        for k in range(len(slicing.names_K))
    ]
