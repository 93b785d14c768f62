"""Responses of the training days, to feed views and search results, that the preference fit learns from
(encoders/latent_factors.py)."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.batches.sessions import impressions_of, part_of, training_sessions
from pr2_jax.data.columns import CLICK, FEED_SURFACE
from pr2_jax.encoders.latent_factors import Responses
from pr2_jax.encoders.preference_regression import standardised
from pr2_jax.search.system import System


def responses(system: System, scale: np.ndarray, appeal_V: np.ndarray, held_out: int | None) -> Responses:
    """Feed views known before the validation cut that tell a click, and all shown results, but those of `held_out`, a
    part of the days.

    A response is positive where the view was stayed with or the result clicked. Results have the lower rate: their
    offset is the log odds of a click, less the mean appeal of the shown videos.
    """
    parts = [_feed(system, held_out), _searches(system, appeal_V, held_out)]
    user_E, video_E, yes_E, offset_E, duration_ms_E = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Responses(user_E, video_E, yes_E.astype(np.float64), offset_E, standardised(duration_ms_E, scale))


def _kept(system: System, user_N: np.ndarray, time_ms_N: np.ndarray, held_out: int | None) -> np.ndarray:
    known_N = np.asarray(user_N) > 0
    return known_N if held_out is None else known_N & (part_of(system.store, time_ms_N) != held_out)


def _feed(system: System, held_out: int | None) -> tuple[np.ndarray, ...]:
    e = system.store.events
    viewed_E = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.known_ms) < system.store.cuts.validation_ms)
    viewed_E &= (np.asarray(e.told) & CLICK) > 0
    row_E = np.flatnonzero(viewed_E & _kept(system, e.user, np.asarray(e.time_ms), held_out))
    user_E, video_E, yes_E, duration_ms_E = (np.asarray(x)[row_E] for x in (e.user, e.video, e.click, e.duration_ms))
    return user_E, video_E, yes_E, np.zeros(len(row_E)), duration_ms_E


def _searches(system: System, appeal_V: np.ndarray, held_out: int | None) -> tuple[np.ndarray, ...]:
    store, sessions = system.store, system.store.sessions
    sessions_N = training_sessions(store)
    sessions_N = sessions_N[_kept(system, sessions.user[sessions_N], sessions.time_ms[sessions_N], held_out)]
    row_E, owner_E = impressions_of(store, sessions_N)
    session_E = sessions_N[owner_E]
    user_E, time_ms_E = np.asarray(sessions.user)[session_E], np.asarray(sessions.time_ms)[session_E]
    video_E = np.asarray(store.impressions.video)[row_E]
    yes_E = np.asarray(store.impressions.clicks)[row_E] > 0
    if not len(row_E):
        return user_E, video_E, yes_E, np.zeros(0), np.zeros(0, np.int64)
    odds = (yes_E.sum() + 1) / ((~yes_E).sum() + 1)
    offset_E = np.full(len(row_E), np.log(odds) - appeal_V[video_E].mean())
    return user_E, video_E, yes_E, offset_E, system.log.numbers.durations(video_E, time_ms_E)
