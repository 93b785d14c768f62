"""Query features for calibration, as of the moment of the request."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.counters import Counters
from pr2_jax.types import Requests

QUERY_NUMBERS = ("log_searches", "seen", "words", "click_share", "share_known")
PRIOR_SHOWN = 20.0
"""Results shown, about two searches, at which the click share has half its weight [ours]."""


class QueryNumbers:
    """`[N, F]` features of N queries, float64; none depends on the person or on a video."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def __call__(self, requests: Requests) -> np.ndarray:
        counters, time_ms_N, query_N = self._counters, requests.time_ms_B, requests.query_B
        searches_N, shown_N, clicks_N = (
            np.where(np.asarray(query_N) > 0, counter.before(query_N, time_ms_N), 0)
            for counter in (counters.query_searches, counters.query_shown, counters.query_clicks)
        )
        # The share is shrunk towards 0, and `share_known` says how far: the map's weights find the mean.
        known_N = shown_N / (shown_N + PRIOR_SHOWN)
        parts = [
            np.log1p(searches_N),
            searches_N > 0,
            (requests.words_BxQ > 0).sum(1),
            clicks_N / (shown_N + PRIOR_SHOWN),
            known_N,
        ]
        return np.stack(parts, axis=-1).astype(np.float64)
