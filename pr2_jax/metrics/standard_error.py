"""How far the mean of a difference may be chance."""

from __future__ import annotations

import numpy as np


def standard_error(values_N: np.ndarray, user_N: np.ndarray) -> float:
    """Of the mean of the values, clustered by user: what one person does is not independent. 0 without values."""
    if not len(values_N):
        return 0.0
    _, group_N = np.unique(user_N, return_inverse=True)
    sums_U = np.bincount(group_N, np.asarray(values_N, np.float64) - np.mean(values_N))
    return float(np.sqrt((sums_U**2).sum()) / len(values_N))
