"""Timelines as batches: every event once a pass, and each past is what was known strictly before, nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.config import DataConfig, OptimConfig, PreferenceConfig
from pr2_jax.data.batches.preference_batches import TimelineBatches
from pr2_jax.data.batches.sessions import FOLDS, fold_of
from pr2_jax.data.columns import CLICK, LIKE, PLAY
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import LongPlay

DATA = DataConfig()


@pytest.fixture
def batches(store):
    """Batches of so many events, with so long a memory."""
    reader = EventReader(store, LongPlay.fit(store, store.cuts.validation_ms, DATA))

    def make(batch: int, history: int = 1_000, held_out: int | None = None) -> TimelineBatches:
        return TimelineBatches(
            reader, PreferenceConfig(history=history, optim=OptimConfig(batch=batch, seed=3)), held_out
        )

    return make


def training_events(store) -> np.ndarray:
    return np.flatnonzero(store.events.known_ms < store.cuts.validation_ms)


def in_order_of_knowing(store, rows) -> np.ndarray:
    return np.array(sorted(rows.tolist(), key=lambda row: (store.events.known_ms[row], row)), np.int64)


@pytest.mark.parametrize("size", [7, 64, 100_000])
def test_every_training_event_once_a_pass(size, store, batches):
    made, rows = batches(size), training_events(store)
    assert made.steps_per_epoch == -(-len(rows) // size)
    passes = []
    for epoch in range(2):
        steps = range(epoch * made.steps_per_epoch, (epoch + 1) * made.steps_per_epoch)
        passes.append(np.concatenate([made.events(step) for step in steps]).tolist())
        assert sorted(passes[-1]) == rows.tolist()
        assert all(len(made(step)["video_E"]) == size for step in steps)
    assert passes[0] != passes[1]


@pytest.mark.parametrize(("size", "history"), [(100_000, 1_000), (100_000, 3), (40, 1_000)])
def test_pasts_are_what_was_known_strictly_before(size, history, store, batches):
    """In one chunk the whole past up to `history`; behind a cut a shorter one, still the latest events."""
    made, e, rows = batches(size, history), store.events, training_events(store)
    for step in range(made.steps_per_epoch):
        chunk, events = made(step), made.events(step)
        assert chunk["video_E"][: len(events)].tolist() == e.video[events].tolist()
        assert not any(x[len(events) :].any() for x in chunk.values())
        told = np.array([[e.surface[n] == 0 and (e.told[n] & bit) > 0 for bit in (CLICK, PLAY, LIKE)] for n in events])
        assert chunk["weight_ExT"][: len(events)].tolist() == told.tolist()
        assert told.all(1).any()
        assert not told.all(0).any()
        assert chunk["label_ExT"][: len(events), 0].tolist() == e.click[events].tolist()
        for place, event in enumerate(events):
            past = rows[(e.user[rows] == e.user[event]) & (e.known_ms[rows] < e.time_ms[event])]
            past = in_order_of_knowing(store, past)
            got = events[chunk["first_E"][place] : chunk["end_E"][place]]
            assert got.tolist() == past[len(past) - len(got) :].tolist()
            assert len(got) <= history
            assert size < len(rows) or len(got) == min(len(past), history)


def test_a_fold_held_out_is_not_predicted_but_remembered(store, batches):
    whole, parts, e = batches(64), [batches(64, held_out=fold) for fold in range(FOLDS)], store.events
    for step in range(whole.steps_per_epoch):
        everything, rows = whole(step), whole.events(step)
        fold = fold_of(store, e.time_ms[rows])
        for held_out, part in enumerate(parts):
            chunk = part(step)
            assert all(chunk[name].tobytes() == everything[name].tobytes() for name in chunk if name != "weight_ExT")
            want = everything["weight_ExT"][: len(rows)] * (fold != held_out)[:, None]
            assert chunk["weight_ExT"][: len(rows)].tolist() == want.tolist()
    assert all(0 < part(0)["weight_ExT"].sum() < whole(0)["weight_ExT"].sum() for part in parts)


def test_a_step_is_a_function_of_its_number(batches):
    one, other = batches(30), batches(30)
    for step in (5, 0, 11):
        assert all(one(step)[name].tobytes() == other(step)[name].tobytes() for name in one(step))


def test_every_process_builds_the_whole_chunk(batches):
    builder = batches(40)
    whole, share = builder(1), builder(1, np.arange(3))
    assert all(np.array_equal(whole[name], share[name]) for name in whole)


def test_a_log_without_training_events(store, batches):
    made = batches(16)
    made._length_U[:] = 0
    chunk = made(0)
    assert made.steps_per_epoch == 1
    assert not chunk["video_E"].any()
    assert not chunk["weight_ExT"].any()
