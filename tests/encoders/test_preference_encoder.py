"""People of the preference space: strictly the past, the same in blocks, and the same when serving as when training."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from pr2_jax.data.batches.preference_batches import TimelineBatches
from pr2_jax.encoders import space_encoders
from pr2_jax.models.model_functions import load_model
from pr2_jax.training.embedding_tables import gather
from pr2_jax.types import People


def test_people_are_means_over_their_past(system, moments):
    space, e = system.preference, system.store.events
    got, kappa = space.people(*moments), system.config.preference.pseudo_events
    for row, (user, time_ms) in enumerate(zip(*moments, strict=True)):
        past = np.flatnonzero((np.asarray(e.user) == user) & (np.asarray(e.known_ms) < time_ms) & (user > 0))
        signals = system.log.reader.signals(past)
        item_NxD = np.asarray(space.videos_VxD)[np.asarray(e.video)[past]]
        says = space._says({"item_NxD": item_NxD, "signals_NxG": signals})
        np.testing.assert_allclose(got.preference_NxD[row], np.sum(says, 0) / (len(past) + kappa), atol=1e-5)
        np.testing.assert_allclose(got.habit_NxG[row], signals.sum(0) / (len(past) + kappa), atol=1e-5)
        assert got.events_N[row] == len(past)
    assert got.events_N[-2:].tolist() == [0, 0]
    assert (got.events_N > 0).sum() > 10


def test_blocks_and_company_change_nothing(system, moments, monkeypatch):
    whole = system.preference.people(*moments)
    monkeypatch.setattr(space_encoders, "EVENTS_AT_ONCE", 7)
    for field, parts in zip(whole, system.preference.people(*moments), strict=True):
        np.testing.assert_allclose(parts, field, atol=1e-6)
    for row in range(len(moments[0])):
        alone = system.preference.people(moments[0][row : row + 1], moments[1][row : row + 1])
        assert all(np.allclose(a[0], field[row], atol=1e-6) for a, field in zip(alone, whole, strict=True))


def test_a_long_past_is_cut_to_the_latest_events(system, moments, monkeypatch):
    monkeypatch.setattr(system.preference, "_config", dataclasses.replace(system.config.preference, history=2))
    assert system.preference.people(*moments).events_N.max() == 2


def test_serving_says_what_training_said(system):
    """One chunk that holds whole timelines: prefix sums there, sums over ranges here."""
    space, store = system.preference, system.store
    task = system.models.task("preference")
    optim = dataclasses.replace(system.config.preference.optim, batch=store.counts.events)
    chunk = TimelineBatches(system.log.reader, dataclasses.replace(system.config.preference, optim=optim))
    batch = chunk(0)
    params, tables = load_model(task, system.workdir / "preference")

    @jax.jit
    def trained(frozen, batch):
        batch = task.prepare(frozen, batch)
        return task.model.apply({"params": params}, gather(tables, task.lookups(batch)), batch)

    want = np.asarray(trained(task.frozen, batch))
    rows = chunk.events(0)
    user, time_ms = np.asarray(store.events.user)[rows], np.asarray(store.events.time_ms)[rows]
    personal, appeal = space.logits(space.people(user, time_ms), np.asarray(store.events.video)[rows][:, None])
    np.testing.assert_allclose((personal + appeal)[:, 0], want[: len(rows)], atol=2e-4)


def test_nobody_is_answered_by_appeal(system):
    nobody = system.preference.people(np.zeros(1, np.int64), np.array([10**15]))
    assert isinstance(nobody, People)
    personal, appeal = system.preference.logits(nobody, np.arange(1, 6)[None])
    assert not personal.any()
    assert appeal.shape == (1, 5, 3)
