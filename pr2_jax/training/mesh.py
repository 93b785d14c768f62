"""Where arrays live: a mesh of `data` x `model` devices and the few rules that place arrays on it.

The first letter of an array's shape suffix is its leading axis, and the rules read it: what leads with B is a row of
the batch and is split over `data`; everything else of a batch (shared negatives `_N`, chunks of timelines `_E`) is on
every device. Tables are split by rows over the whole mesh, dense parameters and frozen arrays are on every device. The
programs stay global (`jax.jit` with NamedSharding, once called pjit): a softmax over in-batch negatives sees the whole
batch on any mesh.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pr2_jax.config import Config, MeshConfig
from pr2_jax.errors import BadConfig
from pr2_jax.training.embedding_tables import ROW_MULTIPLE

DATA, MODEL = "data", "model"
REPLICATED = PartitionSpec()
BY_BATCH = PartitionSpec(DATA)
BY_ROWS = PartitionSpec((DATA, MODEL))
"""Rows of a table over all devices: a table's memory is shared out, whatever the shape of the mesh."""


def make_mesh(data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all). One of the sizes may be -1: whatever is left.

    BadConfig where the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes, count = [data, model], len(devices)
    if sizes.count(-1) == 1 and max(sizes) > 0:
        sizes = [count // max(sizes) if size == -1 else size for size in sizes]
    if min(sizes) < 1 or math.prod(sizes) != count:
        divisors = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise BadConfig(
            f"a mesh of data = {data} x model = {model} does not divide {count} devices; take one of {divisors} for "
            "one of them and -1 for the other"
        )
    if ROW_MULTIPLE % count:
        raise BadConfig(
            f"{count} devices: tables come in blocks of {ROW_MULTIPLE} rows, which do not split evenly over them; show "
            "the process a power of two of its devices (CUDA_VISIBLE_DEVICES)"
        )
    return jax.make_mesh(tuple(sizes), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=devices)


def check_config(config: Config) -> None:
    """BadConfig where the config's mesh does not fit the devices, or a model's batch the mesh: before anything runs."""
    shards = configured(config.mesh).shape[DATA]
    for name, optim in {
        "content": config.content.optim,
        "pdr": config.pdr.optim,
        "qin": config.qin.optim,
        "base": config.base.optim,
    }.items():
        _refuse_uneven(f"{name}.optim.batch = {optim.batch}", optim.batch, shards)


def configured(config: MeshConfig) -> Mesh:
    """The mesh of a config, over all devices."""
    return make_mesh(config.data, config.model)


def single(device: jax.Device | None = None) -> Mesh:
    """The mesh of one device."""
    return make_mesh(1, 1, [device or jax.local_devices()[0]])


def batch_spec(name: str) -> PartitionSpec:
    """Where an array of a batch goes, by its shape suffix."""
    suffix = name.rsplit("_", 1)[-1]
    return BY_BATCH if suffix == "B" or suffix.startswith("Bx") else REPLICATED


def check_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, size: int | None = None) -> None:
    """BadConfig where rows of the batch do not split evenly. `size`: the rows of the whole, where this is a share."""
    shards = mesh.shape[DATA]
    for name, array in batch.items():
        rows = len(array) if size is None else size
        if batch_spec(name) == BY_BATCH:
            _refuse_uneven(f"a batch of {rows} ({name})", rows, shards)


def _refuse_uneven(what: str, rows: int, shards: int) -> None:
    if rows % shards:
        raise BadConfig(
            f"{what} does not split over {shards} data-parallel devices; take a multiple of {shards} or a mesh with "
            "fewer of them (mesh.data)"
        )


def whole(mesh: Mesh) -> bool:
    """Whether every device of the mesh belongs to this process."""
    return all(device.process_index == jax.process_index() for device in mesh.devices.flat)


def local_shards(mesh: Mesh, process: int | None = None) -> list[int]:
    """Which of the `data` parts of a batch lie on devices of a process (default: this one). Processes that the model
    axis spans hold the same."""
    process = jax.process_index() if process is None else process
    return [n for n, row in enumerate(mesh.devices) if any(device.process_index == process for device in row)]


def local_rows(mesh: Mesh, size: int, process: int | None = None) -> np.ndarray:
    """Which rows of a batch of `size` a process has to build, ascending."""
    parts = np.array_split(np.arange(size), mesh.shape[DATA])
    return np.concatenate([parts[n] for n in local_shards(mesh, process)])


def place(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """A host batch on the devices. Of what is split over `data`, each process brings its `local_rows` only."""
    if whole(mesh):
        return {name: jax.device_put(array, NamedSharding(mesh, batch_spec(name))) for name, array in batch.items()}
    held = local_shards(mesh)

    def joined(array: np.ndarray) -> jax.Array:
        block = len(array) // len(held)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            start = held.index((index[0].start or 0) // block) * block
            return array[start : start + block]

        shape = (block * mesh.shape[DATA], *array.shape[1:])
        return jax.make_array_from_callback(shape, NamedSharding(mesh, BY_BATCH), part)

    return {
        name: joined(array) if batch_spec(name) == BY_BATCH else everywhere(mesh, array)
        for name, array in batch.items()
    }


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """Arrays that every process has, on every device."""
    sharding = NamedSharding(mesh, REPLICATED)
    if whole(mesh):
        return jax.device_put(tree, sharding)
    # `device_put` would send each array to all processes to compare them.
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda _: x), tree)


def local_copy(mesh: Mesh, tree: Any) -> Any:
    """Whole arrays on one device of this process. Every process has to come."""
    if not whole(mesh):
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_put(tree, jax.local_devices()[0])


def described(mesh: Mesh, state: Any) -> str:
    """The mesh, and how many arrays and bytes of a state a device holds by each rule, in a line for people to read."""
    total: dict[str, list[int]] = {}
    for leaf in jax.tree.leaves(state):
        rule = "split by rows" if leaf.sharding.spec == BY_ROWS else "on every device"
        count = total.setdefault(rule, [0, 0])
        count[0] += 1
        count[1] += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    parts = [f"{count} arrays {rule} ({size / 1e6:.1f} MB each)" for rule, (count, size) in sorted(total.items())]
    return f"mesh of data {mesh.shape[DATA]} x model {mesh.shape[MODEL]}: {', '.join(parts)}"
