"""Sparse updates against loops over rows in float64: every mesh, repeated ids, several lookups of a table, row 0."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pr2_jax.training import embedding_tables as row_tables
from pr2_jax.training.embedding_tables import TableSpec, gather, init_tables
from pr2_jax.training.loop import DenseTable
from pr2_jax.training.mesh import make_mesh, single

SPECS = {"video": TableSpec(600, 4), "word": TableSpec(30, 4), "idle": TableSpec(5, 4)}
RATE, STEPS = 0.1, 20
MESHES = {
    "one": single,
    **{f"{d}x{m}": functools.partial(make_mesh, d, m) for d, m in ((8, 1), (4, 2), (2, 4), (1, 8))},
}
OPTIMIZERS = {"row_adagrad": row_tables.RowAdagrad(), "lazy_adam": row_tables.LazyAdam()}


def draw(step: int):
    """Ids with many repeats, zeros among them, and a gradient for each occurrence."""
    rng = np.random.default_rng([9, step])
    ids = {"history": rng.integers(0, 25, (3, 6)), "video": rng.integers(0, 600, 4), "query": rng.integers(0, 30, 5)}
    lookups = {"history": ("video", ids["history"]), "video": ("video", ids["video"]), "query": ("word", ids["query"])}
    return lookups, {name: rng.normal(size=(*x.shape, 4)).astype(np.float32) for name, x in ids.items()}


def adagrad(row, gradient, memory):
    total = memory.get("sum", 0.0) + np.square(gradient).mean()
    return row - RATE * gradient / (np.sqrt(total) + row_tables.EPSILON), {"sum": total}


def adam(row, gradient, memory):
    mean = 0.9 * memory.get("mean", 0.0) + 0.1 * gradient
    square = 0.999 * memory.get("square", 0.0) + 0.001 * np.square(gradient)
    count = memory.get("count", 0) + 1
    step = mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.999**count)) + row_tables.EPSILON)
    return row - RATE * step, {"mean": mean, "square": square, "count": count}


def by_loops(tables, rule):
    """Row by row, with what each row remembers in a dictionary."""
    tables, memory = {name: np.asarray(x, np.float64).copy() for name, x in tables.items()}, {}
    for step in range(STEPS):
        lookups, gradients = draw(step)
        summed: dict[tuple[str, int], np.ndarray] = {}
        for key, (table, ids) in lookups.items():
            for row, gradient in zip(ids.reshape(-1), gradients[key].reshape(-1, 4).astype(np.float64), strict=True):
                summed[table, row] = summed.get((table, row), 0) + gradient
        for (table, row), gradient in summed.items():
            if row:
                at = table, int(row)
                tables[table][row], memory[at] = rule(tables[table][row], gradient, memory.get(at, {}))
    return tables


def trained(optimizer, tables, mesh):
    names = {key: table for key, (table, _) in draw(0)[0].items()}

    @jax.jit
    def one(tables, state, ids, gradients):
        lookups = {key: (table, ids[key]) for key, table in names.items()}
        return row_tables.update_all(optimizers, tables, state, lookups, gradients, rates, mesh)

    optimizers, rates = dict.fromkeys(tables, optimizer), dict.fromkeys(tables, jnp.float32(RATE))
    state = row_tables.init_all(optimizers, tables)
    for step in range(STEPS):
        lookups, gradients = draw(step)
        ids = {key: x.astype(np.int32) for key, (_, x) in lookups.items()}
        tables, state = one(tables, state, ids, gradients)
    return tables


@pytest.fixture(scope="module")
def fresh():
    return init_tables(SPECS, jax.random.key(2))


@pytest.mark.parametrize("where", MESHES)
@pytest.mark.parametrize(("name", "rule"), [("row_adagrad", adagrad), ("lazy_adam", adam)])
def test_equal_to_loops(name, rule, where, fresh):
    got = trained(OPTIMIZERS[name], fresh, MESHES[where]())
    want = by_loops(fresh, rule)
    looked_up = [draw(step)[0][key][1] for step in range(STEPS) for key in ("history", "video")]
    touched = np.unique(np.concatenate([ids.reshape(-1) for ids in looked_up]))
    for table in SPECS:
        np.testing.assert_allclose(got[table], want[table], rtol=2e-5, atol=1e-5)  # float32 against float64
        assert np.array_equal(got[table][0], fresh[table][0])
    others = np.setdiff1d(np.arange(600), touched)
    assert len(others) > 400
    assert np.array_equal(np.asarray(got["video"])[others], np.asarray(fresh["video"])[others])
    assert np.array_equal(got["idle"], fresh["idle"])


def test_dense_is_adam_through_the_gather(fresh):
    """What autodiff of the plain gather gives optax, but for row 0."""
    got = trained(DenseTable(), fresh, single())
    tables, adam = dict(fresh), optax.adam(RATE)
    state = adam.init(tables)
    for step in range(STEPS):
        lookups, gradients = draw(step)
        weights = {key: jnp.where((ids != 0)[..., None], gradients[key], 0) for key, (_, ids) in lookups.items()}

        def weighed(tables, lookups=lookups, weights=weights):
            rows = gather(tables, lookups)
            return sum((rows[key] * weights[key]).sum() for key in rows)

        direction, state = adam.update(jax.grad(weighed)(tables), state)
        tables = optax.apply_updates(tables, direction)
    for name in SPECS:
        np.testing.assert_allclose(got[name], tables[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", MESHES)
def test_gather_is_plain_indexing_on_every_mesh(where, fresh):
    lookups = draw(0)[0]
    rows = jax.jit(lambda tables: gather(tables, lookups, MESHES[where]()))(fresh)
    for key, (table, ids) in lookups.items():
        assert np.array_equal(rows[key], np.asarray(fresh[table])[ids])


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS.values(), DenseTable()])
def test_ids_outside_change_nothing(optimizer, fresh):
    table_VxD, ids_N = fresh["video"], jnp.array([0, 1_024, 2**31 - 1])
    after, _ = optimizer.update(
        table_VxD, optimizer.init(table_VxD), ids_N, jnp.ones((3, 4)), jnp.float32(RATE), single()
    )
    assert np.array_equal(after, table_VxD)


@pytest.mark.parametrize("slots_a_place", [1, 8])
@pytest.mark.parametrize("upper", [2, 40, 10**9])
def test_every_occurrence_finds_one_leader_of_its_own_id(upper, slots_a_place, rng, monkeypatch):
    """Few slots force many rounds; the ids' range does not matter."""
    monkeypatch.setattr(row_tables, "SLOTS_A_PLACE", slots_a_place)
    ids_N = rng.integers(0, upper, 3_000).astype(np.int32)
    ids_N[::7] = row_tables.OUTSIDE
    leader_N = np.asarray(jax.jit(lambda ids: row_tables.leaders(ids))(ids_N))
    inside = ids_N != row_tables.OUTSIDE
    assert np.array_equal(leader_N == row_tables.OUTSIDE, ~inside)
    assert np.array_equal(ids_N[leader_N[inside]], ids_N[inside])
    assert len(np.unique(leader_N[inside])) == len(np.unique(ids_N[inside]))


def test_leaders_of_nothing():
    assert np.array_equal(row_tables.leaders(jnp.full(4, row_tables.OUTSIDE, jnp.int32)), [row_tables.OUTSIDE] * 4)
