"""The sessions of one day with what was clicked in them: the rows on which things are chosen or judged."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.batches.sessions import evenly_spread, impressions_of
from pr2_jax.data.history.histories import seen
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.evaluation.refinding_report import FoundBefore
from pr2_jax.retrieval.candidates import is_seen
from pr2_jax.search.system import System
from pr2_jax.types import Requests


@dataclasses.dataclass(frozen=True)
class Day:
    """Sessions of [start_ms, stop_ms). Ranking is judged on all shown results.

    Retrieval is judged on sessions with a click that it may find: not one on what is withheld from the person.
    """

    start_ms: int
    stop_ms: int
    all_sessions: np.ndarray  # session rows
    clicked_sessions: np.ndarray  # those with a click on anything
    clicked_videos: list[np.ndarray]  # their clicked video rows, ascending
    sessions: np.ndarray  # those by which retrieval is judged
    clicked: list[np.ndarray]  # their clicked video rows that it may find, ascending
    requests: Requests  # them as searches
    found_before: FoundBefore  # of the whole day

    def sample(self, most: int) -> Day:
        """The day with at most that many of the sessions by which retrieval is judged, evenly spread."""
        kept = evenly_spread(len(self.sessions), most)
        return dataclasses.replace(
            self,
            sessions=self.sessions[kept],
            clicked=[self.clicked[at] for at in kept],
            requests=self.requests.take(kept),
        )


def day_of(system: System, start_ms: int, stop_ms: int, *, withhold: bool | None = None) -> Day:
    """Reads one day. `withhold`: what people clicked before from retrieval; None: as the index stage decided."""
    store = system.store
    withhold = system.fitted.choices.withholds_clicked if withhold is None else withhold
    first, last = np.searchsorted(store.sessions.time_ms, [start_ms, stop_ms])
    rows = np.arange(first, last)
    session_P, video_P = _clicks(store, rows)
    clicked_sessions, clicked_videos = _by_session(rows, session_P, video_P)
    again_P = _again(store, rows, session_P, video_P)
    counts = FoundBefore(
        withheld=bool(withhold),
        clicks=len(again_P),
        again=int(again_P.sum()),
        sessions=len(np.unique(session_P[again_P])),
        nothing_new=len(clicked_sessions) - len(np.unique(session_P[~again_P])),
    )
    kept, clicked = clicked_sessions, clicked_videos
    if withhold:
        kept, clicked = _by_session(rows, session_P[~again_P], video_P[~again_P])
    requests = system.log.requests(kept, withhold=withhold)
    return Day(start_ms, stop_ms, rows, clicked_sessions, clicked_videos, kept, clicked, requests, counts)


def _clicks(store: LogStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clicked videos, each once a session, in order of both: index into `rows`, and video row."""
    shown, owner = impressions_of(store, rows)
    hit = np.asarray(store.impressions.clicks)[shown] > 0
    videos = np.int64(store.counts.videos)
    pairs = np.unique(owner[hit] * videos + np.asarray(store.impressions.video)[shown[hit]])
    session_P, video_P = np.divmod(pairs, videos)
    return session_P, video_P.astype(np.int32)


def _by_session(rows: np.ndarray, session_P: np.ndarray, video_P: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Session rows, and the videos of each."""
    sessions, start = np.unique(session_P, return_index=True)
    return rows[sessions], np.split(video_P, start[1:]) if len(sessions) else []


def _again(store: LogStore, rows: np.ndarray, session_P: np.ndarray, video_P: np.ndarray) -> np.ndarray:
    """bool [P]: had the person clicked the video before the session?"""
    asked_P = rows[session_P]
    past = seen(store, np.asarray(store.sessions.user)[asked_P], np.asarray(store.sessions.time_ms)[asked_P])
    return is_seen(video_P[:, None], past)[:, 0]
