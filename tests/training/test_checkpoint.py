"""What is saved comes back bit for bit; what is half saved is not taken for whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pr2_jax.errors import Pr2Error, StaleArtifact
from pr2_jax.training.checkpoint import Checkpoints, abstract, checksum, load_params, save_params
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
    assert checkpoints.steps == []
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


@pytest.mark.parametrize(("saved_on", "loaded_on"), [(8, 1), (8, 2), (1, 8)])
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


FACTS = {"steps": 400, "tables": {"video": {"rows": 20_480}}}


def _numbers(seed: int) -> dict[str, jax.Array]:
    """Mostly one table: the middle of the data file is in it."""
    table = np.random.default_rng(seed).normal(size=(512, 32)).astype(np.float32)
    return {"step": jnp.int32(seed), "table": jnp.asarray(table)}


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A directory with steps 4 and 8, whose states are `_numbers(4)` and `_numbers(8)`."""
    directory = tmp_path_factory.mktemp("two_saved")
    with Checkpoints(directory, FACTS) as checkpoints:
        for step in (4, 8):
            checkpoints.save(step, _numbers(step))
    return directory


def _damage(place, how):
    if how == "emptied":
        shutil.rmtree(place)
        place.mkdir()
    for file in [file for file in [place] if file.is_file()]:
        content = bytearray(file.read_bytes())
        if how == "deleted":
            file.unlink()
            continue
        if how == "garbled":
            content[len(content) // 2] ^= 0x10
        file.write_bytes(content[: len(content) // 2] if how == "cut" else content)


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("", "emptied"),
        ("_CHECKPOINT_METADATA", "garbled"),
        ("state/_METADATA", "cut"),
        ("state/ocdbt.process_0/d/*", "deleted"),
        ("state/ocdbt.process_0/d/*", "cut"),
        ("state/ocdbt.process_0/d/*", "garbled"),
    ],
)
def test_a_damaged_checkpoint_is_left_out_and_said_so(where, how, two_saved, same, tmp_path, capfd):
    """The one before is used."""
    shutil.copytree(two_saved, tmp_path, dirs_exist_ok=True)
    (place,) = [tmp_path / "checkpoints" / "8"] if not where else (tmp_path / "checkpoints" / "8").glob(where)
    _damage(place, how)
    with Checkpoints(tmp_path, FACTS) as checkpoints:
        assert same(checkpoints.restore(_numbers(0)), _numbers(4))
        assert checkpoints.steps == [4]
    (line,) = capfd.readouterr().err.splitlines()
    assert "checkpoint of step 8 is damaged (" in line
    assert line.endswith(f"moved to {tmp_path / 'checkpoints' / 'damaged-8'}, step 4 is used")
    assert ("its values do not match their checksum" in line) == (where.endswith("*") and how == "garbled")


def test_a_damaged_checkpoint_makes_room_for_a_new_one(two_saved, same, tmp_path):
    shutil.copytree(two_saved, tmp_path, dirs_exist_ok=True)
    _damage(tmp_path / "checkpoints" / "8" / "state" / "manifest.ocdbt", "deleted")
    with Checkpoints(tmp_path, FACTS) as checkpoints:
        assert same(checkpoints.restore(_numbers(0)), _numbers(4))
        checkpoints.save(8, _numbers(9))
    with Checkpoints(tmp_path, FACTS) as checkpoints:
        assert same(checkpoints.restore(_numbers(0)), _numbers(9))


def test_nothing_is_moved_where_no_checkpoint_is_whole(two_saved, tmp_path):
    """As where the disk cannot be read for a moment: starting over would throw days away."""
    shutil.copytree(two_saved, tmp_path, dirs_exist_ok=True)
    for step in ("4", "8"):
        (tmp_path / "checkpoints" / step / "state" / "manifest.ocdbt").unlink()
    with (
        Checkpoints(tmp_path, FACTS) as checkpoints,
        pytest.raises(StaleArtifact, match=r"holds no checkpoint that can be read \(step 8: .*remove that directory"),
    ):
        checkpoints.restore(_numbers(0))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "8"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (FACTS | {"steps": 800}, "steps was 400, is now 800"),
        (FACTS | {"tables": {"video": {"rows": 30_208}}}, "tables.video.rows was 20480, is now 30208"),
        (FACTS | {"schema": "checkpoint-0"}, 'schema was "checkpoint-1", is now "checkpoint-0"'),
    ],
)
def test_another_run_is_refused_by_naming_both_sides(facts, message, two_saved):
    with (
        Checkpoints(two_saved, facts) as checkpoints,
        pytest.raises(StaleArtifact, match=rf"checkpoints of another run \({message}\): remove that directory"),
    ):
        checkpoints.restore(_numbers(0))


def test_fit_refuses_what_another_config_or_vocabulary_left(toy, batch_at, optim, same, tmp_path):
    whole = fit(toy, batch_at, optim, steps=10, until=4, directory=tmp_path)
    for other, config, steps, message in (
        (toy, optim, 20, "steps was 10, is now 20"),
        (toy, dataclasses.replace(optim, seed=4, learning_rate=0.1), 10, "optim.learning_rate was 0.05, is now 0.1; "),
        (dataclasses.replace(toy, rows=600), optim, 10, "tables.item.rows was 7, is now 600; trained"),
        (dataclasses.replace(toy, frozen=jnp.zeros(9)), optim, 10, "untrained. was .float32.7.., is now .float32.9.."),
    ):
        with pytest.raises(StaleArtifact, match=message):
            fit(other, batch_at, config, steps=steps, directory=tmp_path)
    seldom = dataclasses.replace(optim, checkpoint_every=5)
    assert same(whole, fit(toy, batch_at, seldom, steps=10, until=4, directory=tmp_path)), "saves may come more seldom"


def test_checksum_sees_every_bit_and_no_mesh():
    tree = {"a": jnp.arange(24, dtype=jnp.float32).reshape(8, 3), "b": jnp.zeros(4), "c": jnp.array([True, False])}
    kinds = {"d": jnp.ones((), jnp.int32), "e": jnp.ones(2, jnp.bfloat16), "f": jnp.zeros((0, 2))}
    plain = checksum(tree | kinds)
    mesh = Mesh(np.array(jax.devices()), ("model",))
    split = {"a": jax.device_put(tree["a"], NamedSharding(mesh, PartitionSpec("model")))}
    assert checksum(tree | kinds | split) == plain
    swapped = {"a": tree["a"][::-1]}
    flipped = {"b": jnp.zeros(4).at[2].set(-0.0)}
    moved = {"a": tree["b"], "b": tree["a"]}
    others = [swapped, flipped, moved, {"c": jnp.array([False, True])}, {"e": jnp.array([1, 2], jnp.bfloat16)}]
    assert len({plain, *(checksum(tree | kinds | other) for other in others)}) == 1 + len(others)


def test_a_failed_save_is_not_lost(toy, batch_at, optim, same, tmp_path, monkeypatch):
    """The disk fills up while step 8 is written in the background, and the error comes out of `fit`."""
    whole = fit(toy, batch_at, optim, steps=10, directory=_made(tmp_path / "whole"))
    rename, full = os.rename, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(source, target, **options):
        if str(target).endswith("/checkpoints/8"):
            raise full
        return rename(source, target, **options)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(
        Pr2Error, match=r"run cannot be written \(No space left on device\): .* older checkpoints are whole"
    ):
        fit(toy, batch_at, optim, steps=10, directory=_made(tmp_path / "run"))
    monkeypatch.setattr(os, "rename", rename)
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps[-1] == 4
    assert same(whole, fit(toy, batch_at, optim, steps=10, directory=tmp_path / "run"))


def test_a_failed_save_does_not_hide_why_a_run_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "rename", lambda *paths, **options: 1 / 0)

    def diverging() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(4, _numbers(4))
            raise FloatingPointError("loss is nan")

    with pytest.raises(FloatingPointError, match="loss is nan"):
        diverging()
    assert "the last checkpoint was not saved either: ZeroDivisionError: division by zero" in capsys.readouterr().err


def test_checkpoints_removed_between_two_runs_begin_anew(toy, batch_at, optim, same, tmp_path):
    whole = fit(toy, batch_at, optim, steps=10, directory=tmp_path)
    curve = (tmp_path / "curve.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    assert same(whole, fit(toy, batch_at, optim, steps=10, directory=tmp_path))
    assert (tmp_path / "curve.jsonl").read_text() == curve
    assert [json.loads(line)["step"] for line in curve.splitlines()] == [10]


def _made(directory):
    directory.mkdir()
    return directory
