"""What is saved comes back bit for bit; what is half saved is not taken for whole."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pr2_jax.training.checkpoint import Checkpoints, abstract, load_params, save_params
from pr2_jax.training.loop import fit, init_state


@pytest.fixture
def state(toy, optim):
    return init_state(toy, optim, 10)


def test_half_written_step_is_ignored(toy, batch_at, optim, same, tmp_path):
    """As a kill while saving step 8 leaves it: Orbax's temporary directory, with the bytes but without the rename."""
    plain, messy = tmp_path / "plain", tmp_path / "messy"
    plain.mkdir(), messy.mkdir()
    whole = fit(toy, batch_at, optim, steps=10, directory=plain)
    fit(toy, batch_at, optim, steps=10, until=4, directory=messy)
    half = messy / "checkpoints" / "8.orbax-checkpoint-tmp"
    shutil.copytree(messy / "checkpoints" / "4", half)
    for file in half.rglob("_METADATA"):
        file.unlink()
    asked = []
    resumed = fit(toy, lambda step: asked.append(step) or batch_at(step), optim, steps=10, directory=messy)
    assert asked == [4, 5, 6, 7, 8, 9]
    assert same(whole, resumed)


def test_a_saved_step_is_left_as_it_is(state, same, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    checkpoints.save(3, state)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, jax.tree.map(lambda x: x + jnp.ones_like(x), state))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert same(checkpoints.restore(state), state)
    checkpoints.close()


def test_only_the_latest_are_kept(state, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()) == ["2", "3"]


@pytest.mark.parametrize("saved_on", [1, 8])
@pytest.mark.parametrize("loaded_on", [1, 2, 8])
def test_saved_on_some_devices_and_loaded_on_others(saved_on, loaded_on, same, tmp_path):
    def placed(array, devices):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("model",))
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec("model")))

    table = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"table": placed(table, saved_on)})
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    got = checkpoints.restore({"table": placed(np.zeros_like(table), loaded_on)})
    checkpoints.close()
    assert same(got, {"table": table})
    assert len(got["table"].sharding.device_set) == loaded_on


def test_params_alone(state, same, tmp_path):
    save_params(tmp_path, state.params)
    save_params(tmp_path, (state.params, state.tables))  # a second save replaces the first
    params, tables = load_params(tmp_path, _shapes((state.params, state.tables)))
    assert same((params, tables), (state.params, state.tables))


def test_params_of_many_devices_on_one(same, tmp_path):
    """As a model trained on a pod and served on a laptop: where it was saved must not matter."""
    table = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()), ("model",))
    save_params(tmp_path, {"t": jax.device_put(table, NamedSharding(mesh, PartitionSpec("model")))})
    got = load_params(tmp_path, _shapes({"t": table}))
    assert same(got, {"t": table})
    assert len(got["t"].sharding.device_set) == 1


def _shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def test_abstract_tells_shape_type_and_place(state):
    told = abstract(state)
    for leaf, said in zip(jax.tree.leaves(state), jax.tree.leaves(told), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (said.shape, said.dtype, said.sharding)
