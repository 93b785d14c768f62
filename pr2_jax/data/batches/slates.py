"""Slates: the results that a person was shown at one moment, for training and judging rankers."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.config import LABELS
from pr2_jax.data.batches.sessions import day_start_ms, evenly_spread, impressions_of
from pr2_jax.data.columns import FEED_SURFACE, NEVER_MS
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import place_in_run
from pr2_jax.data.history.labels import LongPlay, labels_of
from pr2_jax.data.outcomes import result_known_ms, told_labels
from pr2_jax.data.store.log_store import LogStore


@dataclasses.dataclass(frozen=True)
class Slates:
    """N slates of up to S results; each is one request."""

    session_N: np.ndarray  # rows of sessions, -1 = feed
    user_N: np.ndarray
    time_ms_N: np.ndarray
    query_N: np.ndarray  # query rows
    video_NxS: np.ndarray  # int32, 0 = padding
    position_NxS: np.ndarray  # int32, -1 = unknown
    label_NxSxY: np.ndarray  # bool, by LABELS
    told_NxSxY: np.ndarray  # bool: what the log tells, False for padding
    impression_NxS: np.ndarray  # int64 row of `impressions` or `events`, -1 = padding

    def __len__(self) -> int:
        return len(self.user_N)

    def sample(self, most: int) -> Slates:
        """At most `most` of them, evenly spread."""
        rows = evenly_spread(len(self), most)
        return Slates(*(column[rows] for column in vars(self).values()))

    def label(self, name: str) -> np.ndarray:
        """bool `[N, S]`: whether a result has this label."""
        return self.label_NxSxY[..., LABELS.index(name)]

    def told(self, name: str) -> np.ndarray:
        """bool `[N, S]`: whether the log tells this label of a result."""
        return self.told_NxSxY[..., LABELS.index(name)]

    @property
    def is_feed_N(self) -> np.ndarray:
        return self.session_N < 0


def _cut(rows: np.ndarray, owner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each owner's consecutive rows into slates of at most `size`: rows `[N, S]` (-1 padded) and the owners."""
    column = place_in_run(owner) % size
    opens = column == 0
    out = np.full((np.count_nonzero(opens), size), -1, np.int64)
    out[np.cumsum(opens) - 1, column] = rows
    return out, owner[opens]


def search_slates(
    store: LogStore, sessions_N: np.ndarray, size: int, long_play: LongPlay | None = None, before_ms: int = NEVER_MS
) -> Slates:
    """Sessions as slates; a session with more than `size` results becomes several.

    Clicks are always told; other outcomes if the log has them and they were known before `before_ms`; long plays only
    with `long_play`.
    """
    rows, owner = impressions_of(store, sessions_N)
    cut_NxS, index_N = _cut(rows, owner, size)
    real, at = cut_NxS >= 0, np.maximum(cut_NxS, 0)
    session = sessions_N[index_N]
    return Slates(
        session_N=session,
        user_N=np.asarray(store.sessions.user)[session],
        time_ms_N=np.asarray(store.sessions.time_ms)[session],
        query_N=np.asarray(store.sessions.query)[session],
        video_NxS=np.where(real, np.asarray(store.impressions.video)[at], 0).astype(np.int32),
        position_NxS=np.where(real, np.asarray(store.impressions.position)[at], -1).astype(np.int32),
        label_NxSxY=labels_of(store.impressions, at, long_play) & real[..., None],
        told_NxSxY=_result_told(store, session, at, long_play, before_ms) & real[..., None],
        impression_NxS=cut_NxS,
    )


def _result_told(
    store: LogStore, session_N: np.ndarray, at_NxS: np.ndarray, long_play: LongPlay | None, before_ms: int
) -> np.ndarray:
    """bool `[N, S, Y]`: which labels of results were known before that time."""
    i = store.impressions
    if i.told is None:
        return np.broadcast_to(np.array(LABELS) == "click", (*at_NxS.shape, len(LABELS)))
    play, duration, bits = (np.asarray(x)[at_NxS] for x in (i.play_ms, i.duration_ms, i.told))
    time_ms_Nx1 = np.asarray(store.sessions.time_ms)[session_N][:, None]
    told = told_labels(bits) & (result_known_ms(time_ms_Nx1, play, duration, bits) < before_ms)[..., None]
    told[..., LABELS.index("click")] = True
    if long_play is None:
        told[..., LABELS.index("long_play")] = False
    return told


def feed_slates(reader: EventReader, start_ms: int, stop_ms: int, size: int) -> Slates:
    """Feed views that began and were known in [start_ms, stop_ms), as slates of one person, day and period.

    The time of the first view is that of the request, so that later views miss what the person did in between. A slate
    is therefore no longer than a day.
    """
    e = reader.store.events
    time_ms = np.asarray(e.time_ms)
    known = np.asarray(e.known_ms) < stop_ms  # and so it had begun
    rows = np.flatnonzero((np.asarray(e.surface) == FEED_SURFACE) & (time_ms >= start_ms) & known)
    day, period = day_start_ms(reader.store, time_ms[rows]), reader.store.periods(time_ms[rows])
    _, owner = np.unique(np.stack([np.asarray(e.user)[rows], day, period]), axis=1, return_inverse=True)
    cut_NxS, _ = _cut(rows, owner.reshape(-1), size)
    real, at = cut_NxS >= 0, np.maximum(cut_NxS, 0)
    return Slates(
        session_N=np.full(len(cut_NxS), -1, np.int64),
        user_N=np.asarray(e.user)[at[:, 0]],
        time_ms_N=time_ms[at[:, 0]],
        query_N=np.zeros(len(cut_NxS), np.int32),
        video_NxS=np.where(real, np.asarray(e.video)[at], 0).astype(np.int32),
        position_NxS=np.full(real.shape, -1, np.int32),
        label_NxSxY=labels_of(e, at, reader.long_play) & real[..., None],
        told_NxSxY=told_labels(np.asarray(e.told)[at]) & real[..., None],
        impression_NxS=cut_NxS,
    )
