"""Assignment of people to arms by a salted hash, and the sample-ratio check."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.stats import chisquare

from pr2_jax.errors import Pr2Error

LEAST_P = 1e-3
"""A split that is less likely than this under the planned shares is a sample-ratio mismatch."""


class SampleRatioMismatch(Pr2Error):
    """The numbers of people by arm differ from the planned shares by more than chance."""


def assign_arms(raw_id_U: np.ndarray, salt: str, shares: Sequence[float]) -> np.ndarray:
    """int8 [U]: the arm of each raw user id, by a hash of salt and id alone. `shares` sum to 1.

    Different salts give independent splits.
    """
    digests = (hashlib.blake2b(f"{salt}/{raw}".encode(), digest_size=8).digest() for raw in raw_id_U.tolist())
    point_U = np.array([int.from_bytes(digest) / 2.0**64 for digest in digests], np.float64)
    return np.searchsorted(np.cumsum(shares)[:-1], point_U, side="right").astype(np.int8)


def check_sample_ratio(counts: Sequence[int], shares: Sequence[float], of: str) -> float:
    """p-value of the counts by arm under the planned shares. SampleRatioMismatch where it is below LEAST_P."""
    expected = np.asarray(shares) * sum(counts)
    p = float(chisquare(counts, expected).pvalue)
    if p < LEAST_P:
        said = ", ".join(f"{count:,} (expected {wanted:,.0f})" for count, wanted in zip(counts, expected, strict=True))
        raise SampleRatioMismatch(
            f"sample-ratio mismatch: {of} by arm are {said}, p = {p:.1g} below {LEAST_P:g}: the arms lose or gain "
            "people, and no difference between them can be trusted"
        )
    return p
