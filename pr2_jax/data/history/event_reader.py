"""Histories as models read them: video rows, engagement signals and time gaps of past events."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.data.columns import SEARCH_SURFACE, SIGNALS
from pr2_jax.data.history.histories import engaged_window, window
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.store.log_store import LogStore


@dataclasses.dataclass(frozen=True)
class EventReader:
    """Reads padded histories of requests, strictly before each request."""

    store: LogStore
    long_play: LongPlay

    def engaged(self, user_B: np.ndarray, time_ms_B: np.ndarray, n: int) -> dict[str, np.ndarray]:
        """The n latest engaged events of both surfaces, oldest first: `history_BxH` and its companions."""
        events_BxH = engaged_window(self.store, user_B, time_ms_B, n)
        video, signals, gap = self.read(events_BxH, time_ms_B)
        return {"history_BxH": video, "signals_BxHxG": signals, "gap_seconds_BxH": gap}

    def recent(self, user_B: np.ndarray, time_ms_B: np.ndarray, n: int) -> dict[str, np.ndarray]:
        """The n latest events, engaged or not, outcome known or not: `recent_BxR` and its companions."""
        video, signals, gap = self.read(window(self.store, user_B, time_ms_B, n), time_ms_B)
        return {"recent_BxR": video, "recent_signals_BxRxG": signals, "recent_gap_BxR": gap}

    def signals(self, events_x: np.ndarray, before_ms_x: np.ndarray | None = None) -> np.ndarray:
        """Engagement of event rows, float32 `[..., G]` with the columns `SIGNALS`, 0 where the log does not tell.

        `before_ms_x`: as known just before these times; without it, as known at the end of the log.
        """
        e = self.store.events
        play, duration = np.asarray(e.play_ms[events_x], np.float32), np.asarray(e.duration_ms[events_x], np.float32)
        searched = e.surface[events_x] == SEARCH_SURFACE
        share = np.where(duration > 0, np.minimum(play / np.maximum(duration, 1), 2.0), 0.0)
        outcome = {name: getattr(e, name)[events_x] for name in ("click", "like", "follow", "forward")}
        outcome |= {
            "long_play": self.long_play.label(e.play_ms[events_x], e.duration_ms[events_x]),
            "log_played": np.log1p(play / 1000) / 5,
            "share_played": share,
        }
        if before_ms_x is not None:
            known = e.known_ms[events_x] < before_ms_x
            # A search event is a click, known when it began; the rest of its outcome is known later.
            outcome = {name: x * (known | searched if name == "click" else known) for name, x in outcome.items()}
        found = outcome | {"searched": searched}
        return np.stack([found[name] for name in SIGNALS], axis=-1).astype(np.float32)

    def read(self, events_BxH: np.ndarray, time_ms_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Video rows `[B, H]` (0 = padding), signals `[B, H, G]`, gaps in seconds."""
        e, real = self.store.events, events_BxH >= 0
        index = np.where(real, events_BxH, 0)
        if not len(e.video):
            shape = events_BxH.shape
            return np.zeros(shape, np.int32), np.zeros((*shape, len(SIGNALS)), np.float32), np.zeros(shape, np.float32)
        time_ms_Bx1 = np.asarray(time_ms_B)[:, None]
        signals_BxHxG = self.signals(index, time_ms_Bx1) * real[..., None]
        gap = (time_ms_Bx1 - e.time_ms[index]) / 1000
        video_BxH = np.where(real, e.video[index], 0).astype(np.int32)
        return video_BxH, signals_BxHxG, np.where(real, gap, 0).astype(np.float32)
