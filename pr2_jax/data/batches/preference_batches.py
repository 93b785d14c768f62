"""Training batches of the preference embeddings: chunks of whole timelines.

A batch of histories would read N·H events for N predictions. A chunk holds the events of some people one after the
other, by when their outcomes were known, and says where in the chunk each event's past begins and ends. Prefix sums
(models/preference.py) then give every past from one read per event.
"""

from __future__ import annotations

import functools

import numpy as np

from pr2_jax.config import PREFERENCE_LABELS, PreferenceConfig
from pr2_jax.data.batches.sessions import fold_of
from pr2_jax.data.batches.training_batches import ALL, HostBatch, Rows
from pr2_jax.data.batches.training_length import TrainingLength
from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import known_end, place_in_run
from pr2_jax.data.history.labels import columns_of, labels_of
from pr2_jax.data.outcomes import told_labels


class TimelineBatches:
    """Timelines of the training days, people shuffled every pass, cut into chunks of `optim.batch` events.

    Targets are the known labels of feed views; clicked search results are part of the past only. A timeline that is cut
    begins anew in the next chunk, so that those events see a shorter past.
    `held_out`: a fold of the training days whose views are no targets.
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
    def length(self) -> TrainingLength:
        asked_steps = round(self._config.optim.epochs * self.steps_per_epoch)
        return TrainingLength.of(int(self._length_U.sum()), self.steps_per_epoch, asked_steps, self._config.optim)

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """People in the order of a pass, and where each timeline ends in that order."""
        people = np.random.default_rng([self._config.optim.seed, 4, epoch]).permutation(len(self._length_U))
        return people, np.cumsum(self._length_U[people])

    def events(self, step: int) -> np.ndarray:
        """The event rows of a step's chunk; fewer than a batch at the end of a pass."""
        return self._store.outcome_index.rows[self._places(step)]

    def _places(self, step: int) -> np.ndarray:
        """As `events`, in the order of `store.outcome_index`."""
        size = self._config.optim.batch
        epoch, chunk = divmod(step, self.steps_per_epoch)
        people, stop = self._order(epoch)
        place = np.arange(chunk * size, min((chunk + 1) * size, int(stop[-1])))
        at = np.searchsorted(stop, place, side="right")
        return self._first_U[people[at]] + place - (stop[at] - self._length_U[people[at]])

    def __call__(self, step: int, rows: Rows = ALL) -> HostBatch:
        """The chunk of a step (`PreferenceTask.schema`), padded with video 0 and weight 0; weight 1 = target.

        Every device needs the whole chunk, so that every process builds it whatever `rows` says.
        """
        e, index, place = self._store.events, self._store.outcome_index, self._places(step)
        row = index.rows[place]
        user, time_ms = np.asarray(e.user)[row], np.asarray(e.time_ms)[row]
        start = np.arange(len(row)) - place_in_run(user)  # of the timeline, in the chunk
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
