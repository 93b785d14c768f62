"""Which results somebody had clicked before, in the feed or in a search: what people look for again."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.counters import Counters, pair
from pr2_jax.data.store import LogStore


def found_before(store: LogStore, counters: Counters | None = None) -> np.ndarray:
    """bool, one for each impression: had its person clicked this video strictly before the search?"""
    counters, sessions = counters or Counters(store), store.sessions
    shown_S = np.diff(np.asarray(sessions.first_impression))
    user = np.repeat(np.asarray(sessions.user), shown_S)
    time_ms = np.repeat(np.asarray(sessions.time_ms), shown_S)
    return counters.user_video_clicks.before(pair(user, store.impressions.video), time_ms) > 0


def found_before_share(store: LogStore) -> float:
    """Of all clicked results of searches, the share that the person had clicked before; 0 where nothing was clicked."""
    clicked = np.asarray(store.impressions.clicks) > 0
    return float(found_before(store)[clicked].mean()) if clicked.any() else 0.0
