"""Slates: what one person was shown at one moment, as the ranker trains on it and is judged on it."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.batches.sessions import day_start_ms, evenly_spread, impressions_of, period_of
from pr2_jax.data.columns import FEED_SURFACE, NEVER_MS
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.outcomes import result_known_ms, told_tasks
from pr2_jax.data.store.log_store import LogStore


@dataclasses.dataclass(frozen=True)
class Slates:
    """N slates of up to S results, each one request."""

    session_N: np.ndarray  # rows of sessions, -1 = feed
    user_N: np.ndarray
    time_ms_N: np.ndarray
    query_N: np.ndarray  # query rows
    video_NxS: np.ndarray  # int32, 0 = padding
    position_NxS: np.ndarray  # int32, -1 = unknown
    label_NxSxT: np.ndarray  # float32
    weight_NxSxT: np.ndarray  # float32
    impression_NxS: np.ndarray  # int64 row of `impressions` or `events`, -1 = padding

    def __len__(self) -> int:
        return len(self.user_N)

    def sample(self, most: int) -> Slates:
        """At most that many of them, evenly spread."""
        rows = evenly_spread(len(self), most)
        return Slates(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @property
    def is_feed_N(self) -> np.ndarray:
        """bool."""
        return self.session_N < 0


def _cut(rows: np.ndarray, owner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each owner's consecutive rows into slates of `size` at most: rows `[N, S]` (-1 padded) and the owners."""
    first = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, np.int64)
    length = np.diff(np.r_[first, len(owner)])
    within = np.arange(len(owner)) - np.repeat(first, length)
    opens = np.flatnonzero(within % size == 0)
    slate = np.cumsum(within % size == 0) - 1
    out = np.full((len(opens), size), -1, np.int64)
    out[slate, within % size] = rows
    return out, owner[opens]


def search_slates(
    store: LogStore, sessions_N: np.ndarray, size: int, long_play: LongPlay | None = None, before_ms: int = NEVER_MS
) -> Slates:
    """Sessions as slates; one with more than `size` results becomes several.

    Clicks are labels always, long play and like where the log has outcomes of results and they were known before
    `before_ms`; `long_play` says which plays were long, without it none has that label.
    """
    rows, owner = impressions_of(store, sessions_N)
    cut_NxS, index_N = _cut(rows, owner, size)
    real, at = cut_NxS >= 0, np.maximum(cut_NxS, 0)
    clicks = (np.asarray(store.impressions.clicks)[at] > 0) & real
    session = sessions_N[index_N]
    labels, told = _result_labels(store, session, at, long_play, before_ms)
    return Slates(
        session_N=session,
        user_N=np.asarray(store.sessions.user)[session],
        time_ms_N=np.asarray(store.sessions.time_ms)[session],
        query_N=np.asarray(store.sessions.query)[session],
        video_NxS=np.where(real, np.asarray(store.impressions.video)[at], 0).astype(np.int32),
        position_NxS=np.where(real, np.asarray(store.impressions.position)[at], -1).astype(np.int32),
        label_NxSxT=np.concatenate([clicks[..., None], labels & real[..., None]], -1).astype(np.float32),
        weight_NxSxT=np.concatenate([real[..., None], told & real[..., None]], -1).astype(np.float32),
        impression_NxS=cut_NxS,
    )


def _result_labels(
    store: LogStore, session_N: np.ndarray, at_NxS: np.ndarray, long_play: LongPlay | None, before_ms: int
) -> tuple[np.ndarray, np.ndarray]:
    """bool `[N, S, T - 1]` twice: long play and like of results, and whether each is told."""
    i = store.impressions
    if i.told is None:
        nothing = np.zeros((*at_NxS.shape, 2), bool)
        return nothing, nothing
    play, duration, like = (np.asarray(x)[at_NxS] for x in (i.play_ms, i.duration_ms, i.like))
    long = np.zeros(like.shape, bool) if long_play is None else long_play.label(play, duration)
    told = told_tasks(np.asarray(i.told)[at_NxS])[..., 1:]
    if long_play is None:
        told[..., 0] = False
    time_ms_Nx1 = np.asarray(store.sessions.time_ms)[session_N][:, None]
    known = result_known_ms(time_ms_Nx1, play, duration, np.asarray(i.told)[at_NxS])
    return np.stack([long, like], -1), told & (known < before_ms)[..., None]


def feed_slates(reader: EventReader, start_ms: int, stop_ms: int, size: int) -> Slates:
    """Feed views that began and were known in [start_ms, stop_ms) as slates of one person, day and fold each; the first
    view's time counts. What a view does not tell has weight 0.

    What the model is told is as old as that first view, so that views of different days are no slate: it would hide
    from a view what the person had done since.
    """
    e = reader.store.events
    time_ms = np.asarray(e.time_ms)
    known = np.asarray(e.known_ms) < stop_ms  # and so it had begun
    rows = np.flatnonzero((np.asarray(e.surface) == FEED_SURFACE) & (time_ms >= start_ms) & known)
    day, period = day_start_ms(reader.store, time_ms[rows]), period_of(reader.store, time_ms[rows])
    together = np.stack([np.asarray(e.user)[rows], day, period])
    _, owner = np.unique(together, axis=1, return_inverse=True)
    cut_NxS, _ = _cut(rows, owner.reshape(-1), size)
    real, at = cut_NxS >= 0, np.maximum(cut_NxS, 0)
    long_play = reader.long_play.label(np.asarray(e.play_ms)[at], np.asarray(e.duration_ms)[at])
    labels = np.stack([np.asarray(e.click)[at], long_play, np.asarray(e.like)[at]], -1) & real[..., None]
    told = told_tasks(np.asarray(e.told)[at]) & real[..., None]
    return Slates(
        session_N=np.full(len(cut_NxS), -1, np.int64),
        user_N=np.asarray(e.user)[at[:, 0]],
        time_ms_N=time_ms[at[:, 0]],
        query_N=np.zeros(len(cut_NxS), np.int32),
        video_NxS=np.where(real, np.asarray(e.video)[at], 0).astype(np.int32),
        position_NxS=np.full(real.shape, -1, np.int32),
        label_NxSxT=labels.astype(np.float32),
        weight_NxSxT=told.astype(np.float32),
        impression_NxS=cut_NxS,
    )
