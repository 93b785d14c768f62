"""What calibration is told about a query, as it stood at the moment of the request (data/history/counters.py)."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.counters import Counters
from pr2_jax.types import Requests

QUERY_NUMBERS = ("log_searches", "seen", "words", "click_share", "share_known")
PRIOR_SHOWN = 20.0
"""Results shown that a query's share of clicks has to earn before it is half believed: about two searches [ours]."""


class QueryNumbers:
    """Computes `[N, F]` numbers of N requests' queries; nothing in them knows the person or a video."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __call__(self, requests: Requests) -> np.ndarray:
        """float64. A query that the log does not know has never been seen."""
        counters, time_ms_N, query_N = self._counters, requests.time_ms_B, requests.query_B
        searches_N, shown_N, clicks_N = (
            np.where(np.asarray(query_N) > 0, counter.before(query_N, time_ms_N), 0)
            for counter in (counters.query_searches, counters.query_shown, counters.query_clicks)
        )
        # The share is shrunk towards nothing known (0 with `share_known` 0), not towards a mean that would have to be
        # counted as well: the map's weights find the mean.
        known_N = shown_N / (shown_N + PRIOR_SHOWN)
        parts = [
            np.log1p(searches_N),
            searches_N > 0,
            (requests.words_BxQ > 0).sum(1),
            clicks_N / (shown_N + PRIOR_SHOWN),
            known_N,
        ]
        return np.stack(parts, axis=-1).astype(np.float64)
