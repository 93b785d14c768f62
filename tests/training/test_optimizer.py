"""The schedule's corners, and which optimiser decays what."""

from __future__ import annotations

import dataclasses
import typing

import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import OptimConfig, TableConfig
from pr2_jax.config.training_config import TableOptimizer
from pr2_jax.training.embedding_tables import TableSpec
from pr2_jax.training.loop import TABLE_OPTIMIZERS, dense_optimizer, schedule, table_optimizers, table_schedules
from pr2_jax.training.mesh import single

CONFIG = OptimConfig(warmup_share=0.1)


def test_schedule_rises_to_the_peak_and_falls_to_a_fiftieth():
    rate = schedule(2.0, 100, CONFIG)
    values = np.array([float(rate(step)) for step in range(101)])
    assert values[0] == 0
    assert values.argmax() == 10
    np.testing.assert_allclose([values[5], values[10], values[100]], [1.0, 2.0, 0.04], rtol=1e-5)
    assert (np.diff(values[10:]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedule_of_a_short_run_is_finite(steps):
    rate = schedule(1.0, steps, CONFIG)
    assert all(0 <= float(rate(step)) <= 1 for step in range(steps + 1))


def _second_update(optimizer, value, gradient):
    state = optimizer.init(value)
    _, state = optimizer.update(gradient, state, value)  # at the start of the warm-up the rate is 0
    return optimizer.update(gradient, state, value)[0]


def test_decay_is_for_dense_parameters_only():
    config, value = dataclasses.replace(CONFIG, weight_decay=0.1), {"w": jnp.ones(3)}
    nothing = {"w": jnp.zeros(3)}
    assert (_second_update(dense_optimizer(config, 10), value, nothing)["w"] < 0).all()
    for tx in TABLE_OPTIMIZERS.values():
        table_VxD = jnp.ones((512, 3))
        ids_N, gradient_NxD = jnp.array([5]), jnp.zeros((1, 3))
        after, _ = tx.update(table_VxD, tx.init(table_VxD), ids_N, gradient_NxD, jnp.float32(0.1), single())
        assert np.array_equal(after, table_VxD)


def test_a_table_of_its_own_mind():
    """What a table's config leaves open is as the model's; every name of the config is known."""
    assert tuple(sorted(TABLE_OPTIMIZERS)) == typing.get_args(TableOptimizer)
    config = dataclasses.replace(CONFIG, table_optimizer="lazy_adam", table_learning_rate=0.5)
    own = TableConfig(optimizer="row_adagrad", learning_rate=2.0)
    specs = {"video": TableSpec(9, 4, config=own), "word": TableSpec(9, 4)}
    chosen = table_optimizers(config, specs)
    assert chosen["video"] is TABLE_OPTIMIZERS["row_adagrad"]
    assert chosen["word"] is TABLE_OPTIMIZERS["lazy_adam"]
    rates = table_schedules(config, specs, 100)
    assert [float(rates[name](10)) for name in specs] == [2.0, 0.5]


def test_gradients_are_clipped_together():
    """Adam forgets a gradient's scale, so clipping shows in its first moment."""
    gradient = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    optimizer = dense_optimizer(dataclasses.replace(CONFIG, clip_norm=5.0), 10)
    _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    moment = state[1][0].mu
    np.testing.assert_allclose([moment["a"][0], moment["b"][0]], [0.3, 0.4], rtol=1e-5)
