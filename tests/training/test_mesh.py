"""The mesh's sizes, where arrays go by their schema, and that a step gives the same on every mesh of eight devices."""

from __future__ import annotations

import dataclasses
import re
import types

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from pr2_jax.config import Config, MeshConfig
from pr2_jax.errors import BadConfig, BadInput
from pr2_jax.training import mesh as meshes
from pr2_jax.training.loop import fit, init_state, make_step
from pr2_jax.training.mesh import floats, ints

SHAPES = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.mark.parametrize(
    ("asked", "got"), [((-1, 1), (8, 1)), ((-1, 4), (2, 4)), ((1, -1), (1, 8)), ((4, 2), (4, 2)), ((2, -1), (2, 4))]
)
def test_sizes(asked, got):
    assert tuple(meshes.make_mesh(*asked).shape.values()) == got


@pytest.mark.parametrize("asked", [(3, 1), (-1, 3), (4, 4), (-1, -1), (0, 8), (-1, 0)])
def test_sizes_that_do_not_divide_are_refused(asked):
    with pytest.raises(BadConfig, match=rf"data = {asked[0]} x model = {asked[1]} does not divide 8 devices"):
        meshes.make_mesh(*asked)


SCHEMA = {
    "words_BxQ": ints("B", "Q"),
    "session_B": ints("B"),
    "uniform_N": ints("N"),
    "signals_ExG": floats("E", 2),
    "gap_BxQ": floats("B", "Q", exact=True),
}


def _batch(rows: int = 8) -> dict[str, np.ndarray]:
    return {
        "words_BxQ": np.zeros((rows, 3), np.int32),
        "session_B": np.zeros(rows, np.int32),
        "uniform_N": np.zeros(5, np.int32),
        "signals_ExG": np.zeros((7, 2), np.float32),
        "gap_BxQ": np.zeros((rows, 3), np.float32),
    }


def test_placement_goes_by_the_schema():
    mesh, batch = meshes.make_mesh(4, 2), _batch()
    meshes.check_batch("toy", SCHEMA, batch, mesh)
    placed = meshes.place(mesh, SCHEMA, batch)
    shards = {name: placed[name].addressable_shards[0].data.shape for name in batch}
    assert shards == {
        "words_BxQ": (2, 3), "session_B": (2,), "uniform_N": (5,), "signals_ExG": (7, 2), "gap_BxQ": (2, 3),
    }  # fmt: skip
    assert meshes.exact_names(SCHEMA) == {"gap_BxQ"}


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("session_B", None, "a batch of toy lacks session_B, expected words_BxQ, session_B, uniform_N,"),
        ("odd_B", np.zeros(8), "a batch of toy has odd_B, expected words_BxQ, session_B"),
        ("session_B", np.zeros(7, np.int32), "a batch of toy: session_B is int32[7], expected int32[B=8]"),
        ("session_B", np.zeros(8, np.int64), "a batch of toy: session_B is int64[8], expected int32[B=8]"),
        ("gap_BxQ", np.zeros((8, 4), np.float32), "gap_BxQ is float32[8, 4], expected float32[B=8, Q=3]"),
        ("gap_BxQ", np.zeros(8, np.float32), "gap_BxQ is float32[8], expected float32[B=8, Q=3]"),
        ("signals_ExG", np.zeros((7, 3), np.float32), "signals_ExG is float32[7, 3], expected float32[E=7, 2]"),
    ],
)
def test_a_batch_that_is_not_what_was_declared_is_one_line(name, array, said):
    batch = _batch() | {name: array}
    batch = {key: x for key, x in batch.items() if x is not None}
    with pytest.raises(BadInput, match=re.escape(said)):
        meshes.check_batch("toy", SCHEMA, batch, meshes.make_mesh(4, 2))


def test_fit_refuses_a_batch_that_is_not_what_the_task_declares(toy, batch_at, optim, tmp_path):
    def wide(step):
        return batch_at(step) | {"label_B": batch_at(step)["label_B"].astype(np.float64)}

    with pytest.raises(BadInput, match=r"a batch of toy: label_B is float64\[4\], expected float32\[B=4\]"):
        fit(toy, wide, optim, steps=2, directory=tmp_path)


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(BadConfig, match=r"a batch of 6 \(words_BxQ\) does not split over 4 data-parallel devices"):
        meshes.check_batch("toy", SCHEMA, _batch(6), meshes.make_mesh(4, 2))


def test_a_share_that_does_not_split_names_the_whole():
    """Whatever its own size: all processes have to stop, or those that go on would wait for the others."""
    with pytest.raises(BadConfig, match=r"a batch of 6 \(words_BxQ\) does not split over 4 data-parallel devices"):
        meshes.check_batch("toy", SCHEMA, _batch(4), meshes.make_mesh(4, 2), size=6)


@pytest.mark.parametrize(
    ("owners", "rows"),
    [
        ([[0, 0], [0, 0], [1, 1], [1, 1]], {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}),
        ([[0, 1], [0, 1]], {0: [0, 1, 2, 3, 4, 5, 6, 7], 1: [0, 1, 2, 3, 4, 5, 6, 7]}),  # the model axis spans them
        ([[0, 0], [1, 1], [0, 0], [1, 1]], {0: [0, 1, 4, 5], 1: [2, 3, 6, 7]}),  # as TPU hosts may lie in a slice
        ([[0], [1], [2], [3]], {0: [0, 1], 1: [2, 3], 2: [4, 5], 3: [6, 7]}),
    ],
)
def test_rows_that_each_process_builds(owners, rows):
    devices = np.array([[types.SimpleNamespace(process_index=owner) for owner in row] for row in owners])
    mesh = types.SimpleNamespace(devices=devices, shape={"data": len(owners), "model": len(owners[0])})
    assert {process: meshes.local_rows(mesh, 8, process).tolist() for process in rows} == rows
    assert not meshes.whole(mesh)


def test_one_process_builds_every_row():
    mesh = meshes.make_mesh(4, 2)
    assert meshes.whole(mesh)
    assert meshes.local_rows(mesh, 8).tolist() == list(range(8))


def _trained(toy, optim, mesh, batches):
    state, step = init_state(toy, optim, 10, mesh), make_step(toy, optim, 10, mesh)
    metrics = []
    for batch in batches:
        state, found = step(state, toy.frozen, meshes.place(mesh, toy.schema, batch))
        metrics.append({name: float(value) for name, value in found.items()})
    return state, metrics


@pytest.mark.parametrize("shape", SHAPES)
def test_every_mesh_trains_alike(shape, toy, optim, batch_at):
    """Loss, metrics, parameters and tables after eight steps."""
    batches = [{name: np.tile(x, 2) for name, x in batch_at(step).items()} for step in range(8)]
    one, one_metrics = _trained(toy, optim, meshes.single(), batches)
    many, many_metrics = _trained(toy, optim, meshes.make_mesh(*shape), batches)
    for a, b in zip(one_metrics, many_metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-7)  # the bias is a difference, near 0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "lazy_adam", "row_adagrad"])
def test_tables_and_their_state_are_split_and_stay_so(name, toy, optim, batch_at):
    mesh, optim = meshes.make_mesh(4, 2), dataclasses.replace(optim, table_optimizer=name)
    state, step = init_state(toy, optim, 10, mesh), make_step(toy, optim, 10, mesh)
    for _ in range(2):
        for leaf in jax.tree.leaves((state.tables, state.table_opt)):
            split = leaf.addressable_shards[0].data.shape
            assert split == ((leaf.shape[0] // 8, *leaf.shape[1:]) if leaf.ndim else ())
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves((state.params, state.dense_opt)))
        assert all(isinstance(leaf.sharding, NamedSharding) for leaf in jax.tree.leaves(state))
        state, _ = step(
            state, toy.frozen, meshes.place(mesh, toy.schema, {n: np.tile(x, 2) for n, x in batch_at(0).items()})
        )
    said = meshes.described(mesh, state)
    assert said.startswith("mesh of data 4 x model 2: ")
    assert f"{len(jax.tree.leaves((state.params, state.dense_opt)))} arrays on every device" not in said  # and the step
    assert "split by rows" in said


@pytest.mark.parametrize(
    ("mesh", "batches", "message"),
    [
        ({"data": 3}, {}, "a mesh of data = 3 x model = 1 does not divide 8 devices; take one of 1, 2, 4, 8 for one"),
        ({"data": -1, "model": -1}, {}, "a mesh of data = -1 x model = -1 does not divide 8 devices"),
        ({"data": 4, "model": 2}, {"base": 18}, "base.optim.batch = 18 does not split over 4 data-parallel devices"),
        ({"data": 8}, {"pdr": 12}, "pdr.optim.batch = 12 does not split over 8"),
    ],
)
def test_a_config_that_does_not_fit_the_devices_is_refused_before_anything_runs(mesh, batches, message):
    config = dataclasses.replace(Config(), mesh=MeshConfig(**mesh))
    for name, batch in batches.items():
        section = vars(config)[name]
        section = dataclasses.replace(section, optim=dataclasses.replace(section.optim, batch=batch))
        config = dataclasses.replace(config, **{name: section})
    with pytest.raises(BadConfig, match=re.escape(message)):
        meshes.check_sizes(config.mesh, config.split_batches)
    meshes.check_sizes(Config().mesh, Config().split_batches)


def test_devices_that_tables_do_not_split_over_are_refused():
    with pytest.raises(BadConfig, match="6 devices: tables come in blocks of 512 rows"):
        meshes.make_mesh(6, 1, jax.devices()[:6])
