"""Who belongs to which arm, and whether the split can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.stats import chisquare

from pr2_jax.errors import Pr2Error

LEAST_P = 1e-3
"""Sample-ratio mismatch: a split less likely than this by chance has a fault, and its results mean nothing."""


class SplitFault(Pr2Error):
    """People are not spread over the arms as they should be."""


def arms_of(raw_id_U: np.ndarray, salt: str, shares: Sequence[float]) -> np.ndarray:
    """int8 [U]: the arm of each raw user id, by a salted hash: the same person and salt, the same arm, whoever else
    there is. Another salt gives a split that is independent of the first. `shares` sum to 1."""
    point_U = np.array([_point(f"{salt}/{raw}") for raw in raw_id_U.tolist()], np.float64)
    return np.searchsorted(np.cumsum(shares)[:-1], point_U, side="right").astype(np.int8)


def check_split(counts: Sequence[int], shares: Sequence[float], of: str) -> float:
    """p-value of the counts of people by arm under the shares asked for. SplitFault where chance does not do that."""
    expected = np.asarray(shares) * sum(counts)
    p = float(chisquare(counts, expected).pvalue)
    if p < LEAST_P:
        said = ", ".join(f"{count:,} (expected {wanted:,.0f})" for count, wanted in zip(counts, expected, strict=True))
        raise SplitFault(
            f"sample-ratio mismatch: {of} by arm are {said}, p = {p:.1g} below {LEAST_P:g}: the arms lose or gain "
            "people, and no difference between them can be trusted"
        )
    return p


def _point(text: str) -> float:
    """In [0, 1)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2.0**64
