"""The trained taste space as functions on NumPy arrays: people at any moment, and what they would make of a video."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import jax
import numpy as np

from pr2_jax.data.events import EventReader
from pr2_jax.data.histories import history_end
from pr2_jax.models.taste import People, TasteTask
from pr2_jax.retrieval.blocks import REQUEST_BLOCK, VIDEO_BLOCK, in_blocks, load_model
from pr2_jax.training.tables import gather

EVENT_BLOCK = 8_192
LEAST_EVENTS = 256
"""Fewer events are padded to this many: short pasts share one compiled shape."""
EVENTS_AT_ONCE = 1_000_000
"""Events of several people held at a time: some 100 MB."""


class TasteSpace:
    """People and videos in the frozen taste space."""

    def __init__(self, task: TasteTask, directory: Path, reader: EventReader) -> None:
        self._task, self._reader = task, reader
        self._params, _ = load_model(task, directory)
        self.videos_VxD = np.load(directory / "video_vectors.npy", mmap_mode="r")
        model, variables = task.model, {"params": self._params}
        self._says = jax.jit(lambda part: model.apply(variables, part["item"], part["signals"], method="says"))
        self._logits = jax.jit(functools.partial(_logits, task))

    def over(self, reader: EventReader) -> TasteSpace:
        """The same space over another view of the log; nothing is compiled again."""
        other = copy.copy(self)
        other._reader = reader
        return other

    def people(self, user_N: np.ndarray, time_ms_N: np.ndarray) -> People:
        """N people as they were just before each time; nothing at or after it is looked at."""
        store, c = self._reader.store, self._task.config
        end_N = history_end(store, user_N, time_ms_N)
        first_N = np.maximum(np.asarray(store.users.first_event)[np.asarray(user_N, np.int64)], end_N - c.history)
        length_N = end_N - first_N
        blocks = np.searchsorted(np.cumsum(length_N), np.arange(EVENTS_AT_ONCE, length_N.sum(), EVENTS_AT_ONCE))
        parts = [self._sums(first, length) for first, length in self._split(first_N, length_N, blocks)]
        taste_NxD, habit_NxG = (np.concatenate(column) for column in zip(*parts, strict=True))
        scale_Nx1 = (length_N + c.pseudo_events)[:, None].astype(np.float32)
        return People(taste_NxD / scale_Nx1, habit_NxG / scale_Nx1, length_N.astype(np.float32))

    def vectors(self, user_N: np.ndarray, time_ms_N: np.ndarray) -> np.ndarray:
        """`people(...)` as vectors alone, `[N, D]`."""
        return self.people(user_N, time_ms_N).taste_NxD

    @staticmethod
    def _split(first_N: np.ndarray, length_N: np.ndarray, at: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        at = np.unique(at)
        return list(zip(np.split(first_N, at), np.split(length_N, at), strict=True))

    def _sums(self, first_N: np.ndarray, length_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of what the events of each range say, and of their signals."""
        owner = np.repeat(np.arange(len(length_N)), length_N)
        event = np.arange(len(owner)) + np.repeat(first_N - (np.cumsum(length_N) - length_N), length_N)
        signals = self._reader.signals(event)
        item = np.asarray(self.videos_VxD[np.asarray(self._reader.store.events.video)[event]])
        says = in_blocks(self._says, {"item": item, "signals": signals}, EVENT_BLOCK, LEAST_EVENTS)
        taste_NxD = np.zeros((len(length_N), self._task.config.width), np.float32)
        habit_NxG = np.zeros((len(length_N), signals.shape[1]), np.float32)
        some = np.flatnonzero(length_N)
        if len(some):
            opens = (np.cumsum(length_N) - length_N)[some]
            taste_NxD[some], habit_NxG[some] = np.add.reduceat(says, opens), np.add.reduceat(signals, opens)
        return taste_NxD, habit_NxG

    def logits(self, people: People, video_NxS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[N, S, T]` logits: what each person adds, and the appeal for nobody in particular."""
        batch = {"item": np.asarray(self.videos_VxD)[video_NxS]} | people._asdict()
        personal, appeal = in_blocks(lambda part: self._logits(self._params, part), batch, REQUEST_BLOCK)
        return personal, appeal


def _logits(task: TasteTask, params, part):
    people = People(*(part[name][:, None] for name in People._fields))
    variables = {"params": params}
    personal = task.model.apply(variables, part["item"], people, method="personal")
    return personal, task.model.apply(variables, part["item"], method="appeal")


def taste_videos(task: TasteTask, params, tables) -> np.ndarray:
    """Vectors of the whole catalogue, `[V, D]`; row 0 (unknown) is zero."""

    @jax.jit
    def encode(frozen, part):
        prepared = task.prepare(frozen, part)
        rows = gather(tables, task.lookups(prepared))
        return task.model.apply({"params": params}, rows, prepared["video"], method="item")

    ids = np.arange(len(task.frozen["author"]), dtype=np.int32)
    vectors_VxD = in_blocks(lambda part: encode(task.frozen, part), {"video_E": ids}, VIDEO_BLOCK)
    vectors_VxD[0] = 0
    return vectors_VxD
