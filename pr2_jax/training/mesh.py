"""Sharding: a mesh of `data` x `model` devices, and the schema by which a batch is checked and placed on it.

A task declares its batches (`Schema`). Arrays that lead with B are split over `data`; the others (shared negatives
`_N`, chunks of timelines `_E`) are replicated. Tables are split by rows over the whole mesh; dense parameters and
frozen arrays are replicated. Programs are global: a softmax over in-batch negatives sees the whole batch on any mesh.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pr2_jax.config import MeshConfig
from pr2_jax.errors import BadConfig, BadInput

DATA, MODEL = "data", "model"
REPLICATED = PartitionSpec()
BY_BATCH = PartitionSpec(DATA)
BY_ROWS = PartitionSpec((DATA, MODEL))
"""Rows of a table, split over all devices of the mesh."""
ROW_MULTIPLE = 512
"""Tables are padded to a multiple of this many rows."""


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """One array of a batch.

    `dims`: a number where the config settles the size, else a letter (types.py), which has one size a batch.
    `exact` arrays stay float32 where a model computes in bfloat16.
    """

    dims: tuple[str | int, ...]
    dtype: str = "float32"
    exact: bool = False

    @property
    def spec(self) -> PartitionSpec:
        """The sharding: over `data` for arrays that lead with B."""
        return BY_BATCH if self.dims[0] == "B" else REPLICATED

    def shown(self, sizes: Mapping[str, int]) -> str:
        """As `float32[B=4, 6, 8]`, with the known sizes."""
        dims = [f"{dim}={sizes[dim]}" if dim in sizes else str(dim) for dim in self.dims]
        return f"{self.dtype}[{', '.join(dims)}]"


Schema = dict[str, ArraySpec]
"""The arrays of a batch, by name."""


def floats(*dims: str | int, exact: bool = False) -> ArraySpec:
    """A float32 array."""
    return ArraySpec(dims, "float32", exact)


def ints(*dims: str | int) -> ArraySpec:
    """An int32 array."""
    return ArraySpec(dims, "int32")


def exact_names(schema: Schema) -> set[str]:
    """Names of the arrays that stay float32."""
    return {name for name, spec in schema.items() if spec.exact}


def example(schema: Schema, size: int) -> dict[str, jax.Array]:
    """A batch for initialisation: ids are 1, the rest 0; dimensions given by a letter have `size`."""
    shapes = {name: [size if isinstance(dim, str) else dim for dim in spec.dims] for name, spec in schema.items()}
    return {name: jnp.full(shapes[name], int(spec.dtype == "int32"), spec.dtype) for name, spec in schema.items()}


def make_mesh(data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all); a size of -1 takes what is left. BadConfig where the sizes do not fit."""
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


def check_sizes(config: MeshConfig, batches: Mapping[str, int]) -> None:
    """BadConfig where a config's mesh does not fit the devices, or a batch the mesh. `batches`: sizes by field."""
    shards = configured(config).shape[DATA]
    for name, size in batches.items():
        _refuse_uneven(f"{name} = {size}", size, shards)


def configured(config: MeshConfig) -> Mesh:
    """The mesh of a config, over all devices."""
    return make_mesh(config.data, config.model)


def single(device: jax.Device | None = None) -> Mesh:
    """The mesh of one device."""
    return make_mesh(1, 1, [device or jax.local_devices()[0]])


def check_batch(
    task: str, schema: Schema, batch: Mapping[str, np.ndarray], mesh: Mesh, size: int | None = None
) -> None:
    """BadInput where a batch does not fit its schema; BadConfig where its rows do not split evenly.

    `size`: rows of the whole batch, where this is a process's share.
    """
    if odd := sorted(schema.keys() ^ batch.keys()):
        lacks = odd[0] in schema
        raise BadInput(f"a batch of {task} {'lacks' if lacks else 'has'} {odd[0]}, expected {', '.join(schema)}")
    sizes: dict[str | int, int] = {}
    for name, spec in schema.items():
        array = batch[name]
        pairs = zip(spec.dims, array.shape, strict=False)
        expected = [sizes.setdefault(dim, have) if isinstance(dim, str) else dim for dim, have in pairs]
        if array.dtype != spec.dtype or array.ndim != len(spec.dims) or list(array.shape) != expected:
            found = f"{array.dtype}{list(array.shape)}"
            raise BadInput(f"a batch of {task}: {name} is {found}, expected {spec.shown(sizes)}")
        if spec.spec == BY_BATCH:
            rows = len(array) if size is None else size
            _refuse_uneven(f"a batch of {rows} ({name})", rows, mesh.shape[DATA])


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
    """The `data` parts of a batch on a process's devices (default: this one's); the model axis repeats them."""
    process = jax.process_index() if process is None else process
    return [n for n, row in enumerate(mesh.devices) if any(device.process_index == process for device in row)]


def local_rows(mesh: Mesh, size: int, process: int | None = None) -> np.ndarray:
    """The rows of a batch of `size` that a process has to build, ascending."""
    parts = np.array_split(np.arange(size), mesh.shape[DATA])
    return np.concatenate([parts[n] for n in local_shards(mesh, process)])


def place(mesh: Mesh, schema: Schema, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """A host batch on the devices. Of arrays split over `data` each process gives its `local_rows`."""
    if whole(mesh):
        return {name: jax.device_put(array, NamedSharding(mesh, schema[name].spec)) for name, array in batch.items()}
    held = local_shards(mesh)

    def joined(array: np.ndarray) -> jax.Array:
        block = len(array) // len(held)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            start = held.index((index[0].start or 0) // block) * block
            return array[start : start + block]

        shape = (block * mesh.shape[DATA], *array.shape[1:])
        return jax.make_array_from_callback(shape, NamedSharding(mesh, BY_BATCH), part)

    return {
        name: joined(array) if schema[name].spec == BY_BATCH else everywhere(mesh, array)
        for name, array in batch.items()
    }


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """Arrays that every process holds, replicated over the mesh."""
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
    """A line of text: the mesh, and the arrays and bytes that a device holds, split and replicated."""
    total: dict[str, list[int]] = {}
    for leaf in jax.tree.leaves(state):
        rule = "split by rows" if leaf.sharding.spec == BY_ROWS else "on every device"
        count = total.setdefault(rule, [0, 0])
        count[0] += 1
        count[1] += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    parts = [f"{count} arrays {rule} ({size / 1e6:.1f} MB each)" for rule, (count, size) in sorted(total.items())]
    return f"mesh of data {mesh.shape[DATA]} x model {mesh.shape[MODEL]}: {', '.join(parts)}"
