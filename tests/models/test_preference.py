"""The preference model: a golden step, prefix sums that equal plain means, no sight of the future, nobody in
particular."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.models.preference import People, pooled

# Change these only with a change of the model, the loss, the initialisation or the optimiser that is meant to change
# what is learned; print `one_step(...)` for the new numbers. A refactoring must leave them as they are.
GOLDEN = {"loss": 1.1808479, "gradient": 0.4812379, "update": 0.0732217}


def test_golden_step(preference_task, preference_batch, one_step):
    assert one_step(preference_task, preference_batch) == pytest.approx(GOLDEN, rel=1e-4)


@pytest.fixture(scope="module")
def weights(preference_task, weights_of):
    """Fresh, but with habits that are not zero, so that they can be seen to count."""
    params, tables = weights_of(preference_task)
    habit = jax.random.normal(jax.random.key(3), params["habit_of"]["kernel"].shape)
    return {**params, "habit_of": {"kernel": habit}}, tables


def test_pooled_equals_plain_means(rng):
    value = rng.normal(size=(9, 3)).astype(np.float32)
    first, end = np.array([0, 0, 0, 4, 4, 4, 6, 9, 2]), np.array([0, 1, 3, 4, 5, 6, 9, 9, 7])
    got = pooled(jnp.asarray(value), first, end, 2.0)
    for row, (a, b) in enumerate(zip(first, end, strict=True)):
        np.testing.assert_allclose(got[row], value[a:b].sum(0) / (b - a + 2.0), atol=1e-6)


def test_an_event_is_told_by_its_past_and_its_video_alone(preference_task, preference_batch, weights, read, apply):
    """Row by row: the derivative of an event's logits by every event's rows and signals."""
    prepared, rows = read(preference_task, weights[1], preference_batch)

    @jax.jit
    def reach(rows, signals):
        return apply(preference_task, weights[0], rows, {**prepared, "signals_ExG": signals})

    by_rows, by_signals = jax.jit(jax.jacrev(reach, (0, 1)))(rows, prepared["signals_ExG"])
    first, end = preference_batch["first_E"], preference_batch["end_E"]
    for event in range(len(first)):
        told = set(range(first[event], end[event]))
        assert set(np.flatnonzero(np.any(by_signals[event], axis=(0, 2)))) == told
        assert set(np.flatnonzero(np.any(by_rows["video"][event], axis=(0, 2)))) == told | {event}


def test_padding_adds_nothing(preference_task, preference_batch, weights, loss_of, gradient_of):
    longer = {name: np.pad(x, [(0, 3), *[(0, 0)] * (x.ndim - 1)]) for name, x in preference_batch.items()}
    sure = dataclasses.replace(preference_task, config=dataclasses.replace(preference_task.config, id_dropout=0.0))
    plain, padded = (loss_of(sure, weights, batch) for batch in (preference_batch, longer))
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    _, _, by_rows, _ = gradient_of(sure, weights, longer)
    assert not np.any(by_rows["video"][-3:])


def test_a_past_without_labels_is_not_predicted(preference_task, preference_batch, weights, loss_of):
    """A search click, or a label that is not told (weight 0), is part of the past; it adds no loss."""
    weight, label = preference_batch["weight_ExT"].copy(), preference_batch["label_ExT"]
    silent = {**preference_batch, "weight_ExT": np.zeros_like(weight)}
    assert float(loss_of(preference_task, weights, silent)[0]) == 0
    weight[1, 1] = weight[5, 0] = 0
    found = [
        float(loss_of(preference_task, weights, {**preference_batch, "weight_ExT": weight, "label_ExT": untold})[0])
        for untold in (label, np.where(weight > 0, label, 0), np.where(weight > 0, label, 1))
    ]
    assert found[0] == found[1] == found[2] != float(loss_of(preference_task, weights, preference_batch)[0])


def test_nobody_in_particular_adds_nothing(preference_task, weights):
    nobody = People(jnp.zeros((2, 8)), jnp.zeros((2, 8)), jnp.zeros(2))
    item = jax.random.normal(jax.random.key(1), (2, 8))
    got = preference_task.model.apply({"params": weights[0]}, item, nobody, method="personal")
    assert not np.any(got)
