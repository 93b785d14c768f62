"""What has run out, disk or device memory, in one line that says how to mend it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from pr2_jax.errors import Pr2Error, causes, disk_full

PyTree = Any
NAMED = 3
"""Arrays that a message about memory names."""


@contextlib.contextmanager
def explained(task: str, directory: Path, arrays: Mapping[str, PyTree]) -> Iterator[None]:
    """Pr2Error where the body runs out of disk space in `directory` or of device memory.

    `arrays` holds what is on the devices by kind: `state`, `frozen`, `batch`. It is read only when memory runs out, so
    the body may fill it as it goes.
    """
    try:
        yield
    except Pr2Error:
        raise
    except Exception as error:
        if code := disk_full(error):
            raise Pr2Error(_disk_line(directory, code, size(arrays["state"]))) from error
        if out_of_memory(error):
            raise Pr2Error(_memory_line(task, error, arrays)) from error
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether a device had no room left. TensorStore calls a full disk by the same name, but not by this class."""
    return any(isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e) for e in causes(error))


def size(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, in all and uncompressed."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their dotted paths: `tables.video`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _disk_line(directory: Path, code: int, needed: int) -> str:
    free = shutil.disk_usage(directory).free
    return (
        f"{directory} cannot be written ({os.strerror(code)}): a checkpoint takes up to {needed / 1e6:,.1f} MB, "
        f"{free / 1e6:,.1f} MB are free; older checkpoints are whole, so make room and run the same command again"
    )


def _memory_line(task: str, error: BaseException, arrays: Mapping[str, PyTree]) -> str:
    told = next(str(e) for e in causes(error) if "RESOURCE_EXHAUSTED" in str(e)).splitlines()[0]
    leaves = [(size(leaf), name, leaf) for name, leaf in by_name(dict(arrays)).items()]
    largest = sorted(leaves, key=lambda row: (-row[0], row[1]))[:NAMED]
    named = ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)} {count / 1e6:,.1f} MB" for count, name, leaf in largest)
    remedy = f"lower {task}.optim.batch"
    if not largest[0][1].startswith("batch"):
        remedy += f" or {task}.width, or split the tables over more devices (mesh.data, mesh.model)"
    return f"{task} does not fit the device's memory ({told[:160]}); the largest arrays are {named}: {remedy}"
