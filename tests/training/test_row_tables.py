"""Rows of tables: the gather against plain indexing, values and gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import TableConfig
from pr2_jax.training.embedding_tables import TableSpec, astray, gather, init_tables, resolved


@pytest.fixture
def tables():
    return init_tables({"video": TableSpec(50, 4), "word": TableSpec(20, 4)}, jax.random.key(1))


def test_gather_is_plain_indexing(tables, rng):
    ids_BxH, ids_N = rng.integers(0, 50, (3, 6)), rng.integers(0, 20, 9)
    rows = gather(tables, {"history": ("video", ids_BxH), "query": ("word", ids_N)})
    assert np.array_equal(rows["history"], np.asarray(tables["video"])[ids_BxH])
    assert np.array_equal(rows["query"], np.asarray(tables["word"])[ids_N])


@pytest.mark.parametrize(("wrong", "is_astray"), [(49, False), (50, True), (511, True), (2**31 - 1, True), (-1, True)])
def test_a_row_outside_its_table_is_astray(wrong, is_astray):
    specs = {"video": TableSpec(50, 4), "word": TableSpec(20, 4)}
    lookups = {"query": ("word", jnp.array([0, 19])), "history": ("video", jnp.array([[3, wrong]]))}
    assert bool(astray(specs, lookups)) is is_astray


def test_hashed_tables_share_their_rows():
    """Every row but the unknown one is used, about equally; 0 stays 0; exact tables keep their ids."""
    specs = {"video": TableSpec(10**6, 4, config=TableConfig(hashed_rows=101)), "word": TableSpec(10**6, 4)}
    ids_N = np.arange(10_000, dtype=np.int32)
    rows = resolved(specs, {"history": ("video", ids_N), "query": ("word", ids_N)})
    assert np.array_equal(rows["query"][1], ids_N)
    count = np.bincount(rows["history"][1], minlength=101)
    assert count[0] == 1
    assert count[1:].min() > 50
    assert count[1:].max() < 160
    assert init_tables(specs, jax.random.key(0))["video"].shape == (512, 4)
    assert not bool(astray(specs, rows))


def test_gradient_adds_up_over_repeats(tables, rng):
    ids_N = jnp.array([4, 7, 4, 4])
    weight_NxD = jnp.asarray(rng.normal(size=(4, 4)), jnp.float32)

    def weighed(tables):
        return (gather(tables, {"x": ("video", ids_N)})["x"] * weight_NxD).sum()

    gradient = jax.grad(weighed)(tables)
    want = np.zeros((512, 4), np.float32)
    np.add.at(want, np.asarray(ids_N), np.asarray(weight_NxD))
    np.testing.assert_allclose(gradient["video"], want, rtol=1e-6)
    assert not np.any(gradient["word"])


def test_a_table_more_leaves_the_others_as_they_were(tables):
    more = init_tables(
        {"author": TableSpec(9, 4), "video": TableSpec(50, 4), "word": TableSpec(20, 4)}, jax.random.key(1)
    )
    assert np.array_equal(more["video"], tables["video"])
    assert np.array_equal(more["word"], tables["word"])
    assert not np.array_equal(more["video"][:9], more["author"])


def test_rows_have_about_unit_length():
    table = init_tables({"video": TableSpec(2_000, 32)}, jax.random.key(0))["video"]
    assert table.shape == (2_048, 32)
    assert np.square(table[1:2_000]).sum(1).mean() == pytest.approx(1.0, abs=0.05)
    assert not np.any(table[0])
    assert not np.any(table[2_000:])
