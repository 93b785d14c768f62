"""Standard errors clustered by user."""

from __future__ import annotations

import numpy as np


def standard_error(values_N: np.ndarray, user_N: np.ndarray) -> float:
    """Standard error of the mean, clustered by user since a person's values are not independent. 0 without values."""
    if not len(values_N):
        return 0.0
    _, group_N = np.unique(user_N, return_inverse=True)
    sums_U = np.bincount(group_N, np.asarray(values_N, np.float64) - np.mean(values_N))
    return float(np.sqrt((sums_U**2).sum()) / len(values_N))
