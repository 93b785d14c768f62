"""Encoders of the frozen spaces on NumPy arrays: content of queries, and people at any moment with their logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax.config import PreferenceConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import known, laid_out
from pr2_jax.encoders.batching import REQUEST_BLOCK, event_blocks, in_blocks
from pr2_jax.encoders.preference_regression import PreferenceRegression
from pr2_jax.types import Functions, People

EVENT_BLOCK = 8_192
LEAST_EVENTS = 256
"""Fewer events are padded to this many, so that short pasts share a compiled shape."""
EVENTS_AT_ONCE = 1_000_000
"""Events held at a time, of several people."""


class ContentEncoder:
    """Unit vectors of videos and queries in the content space."""

    def __init__(self, functions: Functions, directory: Path) -> None:
        self._query = functions["content_query"]
        self.videos_VxD = np.load(directory / "video_vectors.npy", mmap_mode="r")

    def queries(self, words_BxQ: np.ndarray) -> np.ndarray:
        """Unit vectors `[B, D]`; the zero vector where no word is known."""
        return in_blocks(self._query, {"words_BxQ": words_BxQ}, REQUEST_BLOCK)


class PreferenceEncoder:
    """Vectors of people and videos in the preference space."""

    def __init__(
        self,
        functions: Functions,
        config: PreferenceConfig,
        directory: Path,
        reader: EventReader,
        fit: Path | None = None,
    ) -> None:
        """`fit`: the directory of people's regressions, where it is another one."""
        self._says, self._logits = functions["preference_says"], functions["preference_logits"]
        self._config, self._reader = config, reader
        self.videos_VxD = np.load(directory / "video_vectors.npy", mmap_mode="r")
        self.fit = PreferenceRegression(config, fit or directory, reader)

    def people(self, user_N: np.ndarray, time_ms_N: np.ndarray) -> People:
        """N people, from their events strictly before each time."""
        c = self._config
        first_N, end_N = known(self._reader.store, user_N, time_ms_N, c.history)
        length_N = end_N - first_N
        preference_NxD = np.zeros((len(length_N), c.width), np.float32)
        habit_NxG = np.zeros((len(length_N), len(SIGNALS)), np.float32)
        for rows in event_blocks(first_N, end_N, EVENTS_AT_ONCE):
            preference_NxD[rows], habit_NxG[rows] = self._sums(first_N[rows], length_N[rows])
        scale_Nx1 = (length_N + c.pseudo_events)[:, None].astype(np.float32)
        return People(preference_NxD / scale_Nx1, habit_NxG / scale_Nx1, length_N.astype(np.float32))

    def _sums(self, first_N: np.ndarray, length_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the events' terms and signals over each range of `outcome_index`, none of them empty."""
        store, opens_N = self._reader.store, np.cumsum(length_N) - length_N
        event_E = store.outcome_index.rows[laid_out(first_N, length_N)]
        signals_ExG, item_ExD = self._reader.signals(event_E), self.videos_VxD[np.asarray(store.events.video)[event_E]]
        batch = {"item_NxD": np.asarray(item_ExD), "signals_NxG": signals_ExG}
        terms_ExD = in_blocks(self._says, batch, EVENT_BLOCK, LEAST_EVENTS)
        return np.add.reduceat(terms_ExD, opens_N), np.add.reduceat(signals_ExG, opens_N)

    def logits(self, people: People, video_NxS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Personal logits and appeal, `[N, S, T]` both."""
        batch = {"item_NxSxD": np.asarray(self.videos_VxD)[video_NxS]} | people._asdict()
        personal, appeal = in_blocks(self._logits, batch, REQUEST_BLOCK)
        return personal, appeal
