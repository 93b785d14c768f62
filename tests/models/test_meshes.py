"""The four models train alike on one device and on meshes of eight, PDR on every one: loss, metrics and parameters.

Negatives, logQ and every mean are of the whole batch, and so cannot depend on how it is split.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from pr2_jax.training.loop import init_state, make_step, state_shardings
from pr2_jax.training.mesh import BY_BATCH, everywhere, make_mesh, place, single

STEPS = 3
CASES = [("pdr", shape) for shape in ((8, 1), (2, 4), (1, 8))]
CASES += [("qin", (2, 4)), ("content", (4, 2)), ("preference", (4, 2))]  # one rule places all models


def _trained(task, optim, mesh, batch, fresh):
    state, step = jax.device_put(fresh, state_shardings(fresh, mesh)), make_step(task, optim, 10, mesh)
    frozen = everywhere(mesh, task.frozen)
    metrics = []
    for _ in range(STEPS):
        state, found = step(state, frozen, place(mesh, task.schema, batch))
        metrics.append({name: float(value) for name, value in found.items()})
    return state, metrics


@pytest.fixture(scope="module")
def on_one() -> dict:
    """The state to begin with and what one device made of it, by model."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), CASES, ids=[f"{name}-{d}x{m}" for name, (d, m) in CASES])
def test_every_mesh_trains_alike(name, shape, on_one, request):
    task, batch = request.getfixturevalue(f"{name}_task"), request.getfixturevalue(f"{name}_batch")
    batch = {key: np.concatenate([x] * 8) if task.schema[key].spec == BY_BATCH else x for key, x in batch.items()}
    optim = dataclasses.replace(task.config.optim, table_optimizer="row_adagrad", table_learning_rate=0.05)
    if name not in on_one:
        fresh = jax.tree.map(np.asarray, init_state(task, optim, 10))  # made once: each mesh would compile it anew
        on_one[name] = fresh, _trained(task, optim, single(), batch, fresh)
    fresh, (one, one_metrics) = on_one[name]
    many, many_metrics = _trained(task, optim, make_mesh(*shape), batch, fresh)
    for a, b in zip(one_metrics, many_metrics, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=2e-5)  # Adam divides by the size of small gradients
