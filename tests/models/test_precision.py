"""bfloat16 inside, float32 outside: types, and that little changes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.models.layers import lowered


def test_only_float32_is_lowered_and_times_are_not():
    tree = {"a": jnp.ones(2), "gap_seconds_BxH": jnp.ones(2), "b": [jnp.ones(2, jnp.int32), jnp.ones(2, bool)]}
    got = lowered(tree, "bfloat16", {"gap_seconds_BxH"})
    assert got["a"].dtype == jnp.bfloat16
    assert got["gap_seconds_BxH"].dtype == jnp.float32
    assert [x.dtype for x in got["b"]] == [jnp.int32, bool]
    assert lowered(tree, "float32", ()) is tree


def _products(jaxpr) -> list[str]:
    """Types of what is multiplied in every matrix product, those of inner functions too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.append(equation.invars[0].aval.dtype.name)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += _products(inner)
    return found


@pytest.mark.parametrize("name", ["content", "pdr", "qin"])
def test_training_in_bfloat16(name, request, read, weights_of):
    task, batch = request.getfixturevalue(f"{name}_task"), request.getfixturevalue(f"{name}_batch")
    low = dataclasses.replace(task, config=dataclasses.replace(task.config, compute="bfloat16"))
    params, tables = weights_of(task)
    prepared, rows = read(task, tables, batch)
    key = jax.random.key(0)

    def both(task):
        def loss(params, rows):
            return task.loss(params, rows, prepared, key)[0]

        return jax.jit(jax.value_and_grad(loss, (0, 1)))

    value, gradient = both(task)(params, rows)
    low_value, low_gradient = both(low)(params, rows)
    assert value.dtype == low_value.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(low_gradient))
    assert float(low_value) == pytest.approx(float(value), rel=0.03)
    assert float(low_value) != float(value)
    one, other = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in (gradient, low_gradient))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.99
    products = _products(jax.make_jaxpr(both(low))(params, rows).jaxpr)
    assert products.count("bfloat16") > 3 * products.count("float32")  # scores are float32
    assert set(_products(jax.make_jaxpr(both(task))(params, rows).jaxpr)) == {"float32"}
