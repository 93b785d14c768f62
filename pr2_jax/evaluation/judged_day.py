"""The judged day: its sessions and their clicks, on which parameters are chosen or rankings judged."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.batches.sessions import evenly_spread, impressions_of
from pr2_jax.data.history.histories import seen
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.retrieval.candidates import is_seen
from pr2_jax.search.system import System
from pr2_jax.types import Requests


@dataclasses.dataclass(frozen=True)
class Refinding:
    """A day's clicks on videos that the same person had clicked before. Withheld from retrieval, they are no misses."""

    withheld: bool
    clicks: int  # clicked videos, each counted once a search
    again: int  # of them, those that the person had clicked before
    sessions: int  # searches with such a click
    nothing_new: int  # of them, those without any other click

    @property
    def rule(self) -> str:
        """For the title of a table of the whole catalogue."""
        return "videos already clicked withheld" if self.withheld else "videos already clicked shown again"

    @property
    def note(self) -> str:
        """A line beside a table of the whole catalogue."""
        counted = f"Of {self.clicks:,} clicks {self.again:,}, in {self.sessions:,} searches, are on videos"
        if not self.withheld:
            return f"{counted} that the person had clicked before; they count as any other."
        return (
            f"{counted} withheld because the person had clicked them before: no misses; {self.nothing_new:,} searches "
            "without another click are left out."
        )


@dataclasses.dataclass(frozen=True)
class Day:
    """Sessions of [start_ms, stop_ms). Ranking is judged on all shown results, retrieval on the sessions with a click
    that it may find: withheld videos do not count."""

    start_ms: int
    stop_ms: int
    all_sessions: np.ndarray  # session rows
    clicked_sessions: np.ndarray  # those with a click on anything
    clicked_videos: list[np.ndarray]  # their clicked video rows, ascending
    sessions: np.ndarray  # those on which retrieval is judged
    clicked: list[np.ndarray]  # their clicked video rows that it may find, ascending
    requests: Requests  # of these sessions
    refinding: Refinding  # of the whole day

    def sample(self, most: int) -> Day:
        """The day with at most that many of the sessions on which retrieval is judged, evenly spread."""
        kept = evenly_spread(len(self.sessions), most)
        sessions, clicked = self.sessions[kept], [self.clicked[at] for at in kept]
        return dataclasses.replace(self, sessions=sessions, clicked=clicked, requests=self.requests.take(kept))


def day_of(system: System, start_ms: int, stop_ms: int, *, withhold: bool | None = None) -> Day:
    """Reads one day. `withhold`: retrieval does not return what a person clicked before; None: as the index decided."""
    store = system.store
    withhold = system.fitted.choices.withholds_clicked if withhold is None else withhold
    first, last = np.searchsorted(store.sessions.time_ms, [start_ms, stop_ms])
    rows = np.arange(first, last)
    session_P, video_P = _clicks(store, rows)
    clicked_sessions, clicked_videos = _by_session(rows, session_P, video_P)
    again_P = _again(store, rows, session_P, video_P)
    counts = Refinding(
        withheld=bool(withhold),
        clicks=len(again_P),
        again=int(again_P.sum()),
        sessions=len(np.unique(session_P[again_P])),
        nothing_new=len(clicked_sessions) - len(np.unique(session_P[~again_P])),
    )
    findable_P = ~again_P if withhold else np.ones(len(again_P), bool)
    kept, clicked = _by_session(rows, session_P[findable_P], video_P[findable_P])
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
    row_P = rows[session_P]
    past = seen(store, np.asarray(store.sessions.user)[row_P], np.asarray(store.sessions.time_ms)[row_P])
    return is_seen(video_P[:, None], past)[:, 0]
