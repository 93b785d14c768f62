"""Whole timelines as training batches: every event of a chunk learns from all that was known of its person before it.

A batch of histories copies each event once for every later event that looks back at it, N·H reads for N events. Here
the events of some people lie end to end, in the order in which their outcomes were known, and each says where its past
begins and ends in the chunk, so that prefix sums (models/preference.py) give every past at the price of one read an
event.
"""

from __future__ import annotations

import functools

import numpy as np

from pr2_jax.config import PREFERENCE_LABELS, PreferenceConfig
from pr2_jax.data.batches.sessions import fold_of
from pr2_jax.data.batches.training_batches import ALL, HostBatch, Rows
from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import known_end
from pr2_jax.data.history.labels import columns_of, labels_of
from pr2_jax.data.outcomes import told_labels


class TimelineBatches:
    """Events known before the validation cut, people in a new order every pass, cut into chunks of `optim.batch`.

    Feed views are what is predicted, as far as their labels are told; clicked search results are part of the past only.
    A timeline that a cut divides begins anew behind it: those events see a shorter past, never a later one.
    `held_out`: a fold of the training days whose views are not predicted either.
    """

    def __init__(self, reader: EventReader, config: PreferenceConfig, held_out: int | None = None) -> None:
        store = self._store = reader.store
        self._reader, self._config, self._held_out = reader, config, held_out
        people = np.arange(store.counts.users)
        self._first_U = store.outcome_index.first[:-1]
        last_U = known_end(store.outcome_index, people, np.full(len(people), store.cuts.validation_ms))
        self._length_U = last_U - self._first_U
        self._order = functools.lru_cache(maxsize=2)(self._draw)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, -(-int(self._length_U.sum()) // self._config.optim.batch))

    @property
    def steps(self) -> int:
        optim = self._config.optim
        return max(1, min(optim.max_steps, round(optim.epochs * self.steps_per_epoch)))

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """People in this pass's order, and where each timeline ends in the row of all timelines."""
        people = np.random.default_rng([self._config.optim.seed, 4, epoch]).permutation(len(self._length_U))
        return people, np.cumsum(self._length_U[people])

    def events(self, step: int) -> np.ndarray:
        """The event rows of a step's chunk, timeline after timeline; fewer than a batch at the end of a pass."""
        return self._store.outcome_index.rows[self._places(step)]

    def _places(self, step: int) -> np.ndarray:
        """The same as places in `store.outcome_index`."""
        size = self._config.optim.batch
        epoch, chunk = divmod(step, self.steps_per_epoch)
        people, stop = self._order(epoch)
        place = np.arange(chunk * size, min((chunk + 1) * size, int(stop[-1])))
        at = np.searchsorted(stop, place, side="right")
        return self._first_U[people[at]] + place - (stop[at] - self._length_U[people[at]])

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        """The chunk of a step (`PreferenceTask.schema`); weight 1 = predicted. It ends in padding of video 0 and weight
        0.

        A chunk is one piece that every device needs whole, so that every process builds it: `rows` does not matter."""
        e, index, place = self._store.events, self._store.outcome_index, self._places(step)
        row = index.rows[place]
        user, time_ms = np.asarray(e.user)[row], np.asarray(e.time_ms)[row]
        opens = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(row) else np.zeros(0, np.int64)
        start = np.repeat(opens, np.diff(np.r_[opens, len(row)]))  # of the timeline, in the chunk
        end = np.maximum(known_end(index, user, time_ms) - place[start], 0) + start
        first = np.maximum(start, end - self._config.history)
        pad = self._config.optim.batch - len(row)
        predicted = np.asarray(e.surface)[row] == FEED_SURFACE
        if self._held_out is not None:
            predicted &= fold_of(self._store, time_ms) != self._held_out
        weight = told_labels(np.asarray(e.told)[row], PREFERENCE_LABELS) & predicted[:, None]
        label = labels_of(e, row, self._reader.long_play)[:, columns_of(PREFERENCE_LABELS)]

        def padded(x: np.ndarray, kind: type) -> np.ndarray:
            return np.pad(x.astype(kind), [(0, pad), *[(0, 0)] * (x.ndim - 1)])

        return {
            "video_E": padded(np.asarray(e.video)[row], np.int32),
            "signals_ExG": padded(self._reader.signals(row), np.float32),
            "first_E": padded(first, np.int32),
            "end_E": padded(end, np.int32),
            "label_ExT": padded(label, np.float32),
            "weight_ExT": padded(weight, np.float32),
        }
