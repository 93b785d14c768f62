"""The content of a store, and rows of raw ids. Reading a store needs no more: assembly alone needs polars."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.columns import Counts, Cuts, Events, Impressions, Queries, Sessions, Users, Videos, Words


@dataclasses.dataclass(frozen=True)
class Assembled:
    """The content of a store, by group of columns (columns.py)."""

    users: Users
    videos: Videos
    queries: Queries
    events: Events
    sessions: Sessions
    impressions: Impressions
    words: Words
    counts: Counts
    cuts: Cuts
    source_names: tuple[str, ...]  # row 1, 2, ... of sessions.source
    kind_names: tuple[str, ...]  # row 1, 2, ... of videos.kind


def rows_of(vocabulary_N: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """int32 rows of raw ids; ids that the vocabulary lacks go to row 0."""
    known = vocabulary_N[1:]
    place = np.searchsorted(known, raw)
    found = (place < len(known)) & (known[np.minimum(place, max(len(known) - 1, 0))] == raw) if len(known) else False
    return np.where(found, place + 1, 0).astype(np.int32)
