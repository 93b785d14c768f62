"""The writer of serving artifacts: programs with open batch sizes, weights stored once, and the file list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from pr2_jax import artifacts
from pr2_jax.export.serving_artifact import FUNCTIONS, WEIGHTS
from pr2_jax.types import ModelFunction

PLATFORMS = ("cpu", "cuda", "tpu")
OPEN = ("B", "N", "S")
"""Dimensions that stay open in an exported program; the config settles the others."""


class Writer:
    """Fills the directory of a new artifact."""

    def __init__(self, directory: Path, sizes: Mapping[str, int] | None = None) -> None:
        """`sizes`, by letter, of the dimensions that the data's config settles."""
        self._directory, self._sizes = directory, sizes or {}
        self._file_of: dict[tuple, str] = {}
        (directory / FUNCTIONS).mkdir()
        (directory / WEIGHTS).mkdir()

    def take(self, source: Path, name: str) -> None:
        """Adds a file or directory under `name`, hard-linked where possible: finished files never change in place."""
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                target = self._directory / name / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                artifacts.link_or_copy(path, target)

    def known(self, name: str) -> None:
        """Lets an array file of the artifact serve as a weight."""
        self._file_of.setdefault(_key(np.load(self._directory / name, mmap_mode="r")), name)

    def function(self, name: str, function: ModelFunction) -> dict[str, Any]:
        """Exports a function and returns its entry in the manifest."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), function.weights)
        opened = open_shapes(function.inputs, self._sizes)
        exported = export.export(function.program, platforms=PLATFORMS)(shapes, opened)
        file = f"{FUNCTIONS}/{name}.jaxexport"
        (self._directory / file).write_bytes(exported.serialize())
        flat, _ = jax.tree_util.tree_flatten_with_path(function.weights)
        names = ["/".join(key.key for key in path) for path, _ in flat]
        weights = {leaf: self._weight(f"{name}/{leaf}", x) for leaf, (_, x) in zip(names, flat, strict=True)}
        return {
            "file": file,
            "platforms": list(exported.platforms),
            "inputs": {key: _shown(aval) for key, aval in opened.items()},
            "outputs": [_shown(aval) for aval in exported.out_avals],
            "weights": weights,
        }

    def _weight(self, name: str, array: jax.Array) -> str:
        array = np.asarray(array)
        key = _key(array)
        if key not in self._file_of:
            self._file_of[key] = f"{WEIGHTS}/{name.replace('/', '.')}.npy"
            np.save(self._directory / self._file_of[key], array)
        return self._file_of[key]

    def files(self) -> dict[str, dict[str, Any]]:
        """Size and SHA-256 of every file; equal files become one on the disk."""
        found, first = {}, {}
        for path in sorted(self._directory.rglob("*")):
            if path.is_file() and path.name != artifacts.IN_PROGRESS:
                digest = artifacts.sha256(path)
                if digest in first:
                    path.unlink()
                    artifacts.link_or_copy(first[digest], path)
                first.setdefault(digest, path)
                name = path.relative_to(self._directory).as_posix()
                found[name] = {"bytes": path.stat().st_size, "sha256": digest}
        return found


def open_shapes(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of schema `inputs`: dimensions of `OPEN` are open, other letters have their `sizes`."""
    scope, out = export.SymbolicScope(), {}
    for name, array in inputs.items():
        dims = [str(sizes[dim] if isinstance(dim, str) and dim not in OPEN else dim) for dim in array.dims]
        out[name] = jax.ShapeDtypeStruct(export.symbolic_shape(",".join(dims), scope=scope), array.dtype)
    return out


def _shown(aval: Any) -> str:
    return f"{np.dtype(aval.dtype).name}[{','.join(map(str, aval.shape))}]"


def _key(array: np.ndarray) -> tuple:
    data = np.ascontiguousarray(array).data if array.size else b""
    return array.dtype.str, array.shape, hashlib.sha256(data).digest()


def total_bytes(files: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of an artifact on the disk, where equal files are one."""
    return sum({said["sha256"]: said["bytes"] for said in files.values()}.values())
