"""What people of the training days answered to what they were shown, in the feed and in searches, as the taste fit
reads it (retrieval/latent_factors.py)."""

from __future__ import annotations

import numpy as np

from pr2_jax.data.columns import FEED_CHANNEL
from pr2_jax.data.sessions import fold_of, impressions_of, part_of, training_sessions
from pr2_jax.retrieval.latent_factors import Answers
from pr2_jax.retrieval.taste_fit import standardised
from pr2_jax.search.system import System
from pr2_jax.workdir import fold_directory

COSINE_BINS = 20
"""Equal parts of the shown results by cosine of query and video; a part's click rate is what the search explains."""
RESULTS_AT_ONCE = 200_000


def answers(system: System, scale: np.ndarray, appeal_V: np.ndarray, held_out: int | None) -> Answers:
    """Every feed view and every shown result before the validation cut.

    `held_out`: a part of the days that is left out.

    A view is a "yes" where the person stayed, a result where it was clicked. What is shown in a search was asked for:
    its offset is the log odds of a click at such a cosine, less the mean appeal of what is shown, so that neither
    people nor videos are credited with the query. Cosines come from towers that have not learnt from the result's day.
    """
    parts = [_feed(system, held_out), _searches(system, appeal_V, held_out)]
    user_E, video_E, yes_E, offset_E, duration_ms_E = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(user_E, video_E, yes_E.astype(np.float64), offset_E, standardised(duration_ms_E, scale))


def _kept(system: System, user_N: np.ndarray, time_ms_N: np.ndarray, held_out: int | None) -> np.ndarray:
    known_N = np.asarray(user_N) > 0
    return known_N if held_out is None else known_N & (part_of(system.store, time_ms_N) != held_out)


def _feed(system: System, held_out: int | None) -> tuple[np.ndarray, ...]:
    e = system.store.events
    viewed_E = (np.asarray(e.channel) == FEED_CHANNEL) & (np.asarray(e.time_ms) < system.store.cuts.validation_ms)
    row_E = np.flatnonzero(viewed_E & _kept(system, e.user, np.asarray(e.time_ms), held_out))
    user_E, video_E, yes_E, duration_ms_E = (np.asarray(x)[row_E] for x in (e.user, e.video, e.click, e.duration_ms))
    return user_E, video_E, yes_E, np.zeros(len(row_E)), duration_ms_E


def _searches(system: System, appeal_V: np.ndarray, held_out: int | None) -> tuple[np.ndarray, ...]:
    store, sessions = system.store, system.store.sessions
    sessions_N = training_sessions(store)
    sessions_N = sessions_N[_kept(system, sessions.user[sessions_N], sessions.time_ms[sessions_N], held_out)]
    row_E, owner_E = impressions_of(store, sessions_N)
    session_E = sessions_N[owner_E]
    user_E, time_ms_E, query_E = (np.asarray(x)[session_E] for x in (sessions.user, sessions.time_ms, sessions.query))
    video_E = np.asarray(store.impressions.video)[row_E]
    yes_E = np.asarray(store.impressions.clicks)[row_E] > 0
    if not len(row_E):
        return user_E, video_E, yes_E, np.zeros(0), np.zeros(0, np.int64)
    cosine_E = _cosines(system, query_E, video_E, time_ms_E)
    bin_E = np.digitize(cosine_E, np.quantile(cosine_E, np.arange(1, COSINE_BINS) / COSINE_BINS))
    shown_K, yes_K = np.bincount(bin_E, minlength=COSINE_BINS), np.bincount(bin_E, yes_E, COSINE_BINS)
    odds_K = (yes_K + 1) / (shown_K - yes_K + 1)
    offset_E = np.log(odds_K)[bin_E] - appeal_V[video_E].mean()
    return user_E, video_E, yes_E, offset_E, system.numbers.durations(video_E, time_ms_E)


def _cosines(system: System, query_E: np.ndarray, video_E: np.ndarray, time_ms_E: np.ndarray) -> np.ndarray:
    """Of each result with its query, by the towers that have not learnt from its day; a query without words has 0."""
    out_E, fold_E = np.zeros(len(query_E)), fold_of(system.store, time_ms_E)
    for fold, space in enumerate(system.held_out_spaces):
        directory = fold_directory(system.workdir / "content", fold)
        queries_NqxD = np.load(directory / "query_vectors.npy", mmap_mode="r")
        of_fold = np.flatnonzero(fold_E == fold)
        for start in range(0, len(of_fold), RESULTS_AT_ONCE):
            rows = of_fold[start : start + RESULTS_AT_ONCE]
            video_ExD = np.asarray(space.videos_VxD[video_E[rows]], np.float64)
            out_E[rows] = np.einsum("ed,ed->e", queries_NqxD[query_E[rows]], video_ExD)
    return out_E
