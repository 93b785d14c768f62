"""Re-finding: search results that the person had clicked before, in the feed or in a search."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.history.counters import Counters
from pr2_jax.data.store.log_store import LogStore


def found_before_share(store: LogStore) -> float:
    """Share of re-findings among clicked results; 0 without a click."""
    clicked = np.flatnonzero(np.asarray(store.impressions.clicks) > 0)
    return float(found_before(store, clicked).mean()) if len(clicked) else 0.0


def found_before(store: LogStore, rows: np.ndarray | None = None) -> np.ndarray:
    """bool per impression, or per one of `rows`: had the person clicked the video strictly before the search?"""
    sessions = store.sessions
    rows = np.arange(len(store.impressions.video)) if rows is None else rows
    session = np.searchsorted(np.asarray(sessions.first_impression), rows, side="right") - 1
    user, time_ms = np.asarray(sessions.user)[session], np.asarray(sessions.time_ms)[session]
    return Counters(store).clicked_before(user, np.asarray(store.impressions.video)[rows], time_ms)
