"""Which results somebody had clicked before, in the feed or in a search: what people look for again."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.counters import Counters
from pr2_jax.data.store.log_store import LogStore


def found_before(store: LogStore) -> np.ndarray:
    """bool, one for each impression: had its person clicked this video strictly before the search?"""
    return _found_before(store, np.arange(len(store.impressions.video)))


def found_before_share(store: LogStore) -> float:
    """Of all clicked results of searches, the share that the person had clicked before; 0 where nothing was clicked."""
    clicked = np.flatnonzero(np.asarray(store.impressions.clicks) > 0)
    return float(_found_before(store, clicked).mean()) if len(clicked) else 0.0


def _found_before(store: LogStore, rows: np.ndarray) -> np.ndarray:
    """Of some impressions, ascending."""
    sessions = store.sessions
    session = np.searchsorted(np.asarray(sessions.first_impression), rows, side="right") - 1
    user, time_ms = np.asarray(sessions.user)[session], np.asarray(sessions.time_ms)[session]
    return Counters(store).clicked_before(user, np.asarray(store.impressions.video)[rows], time_ms)
