"""A serving artifact: everything that search reads, with the models as exported programs.

    manifest.json   schema, facts, the functions, and size and SHA-256 of every file
    functions/      one program a function (jax.export: StableHLO for CPU, CUDA and TPU), without weights
    weights/        arrays that the programs take, each stored once
    store/ content/ preference/ index/ qin/ config.json     as in a work directory, only what search reads

Nothing here imports a model's code, Flax, Optax or Orbax.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from pr2_jax import artifacts
from pr2_jax.errors import StaleArtifact
from pr2_jax.types import ModelFunction

SCHEMA = "serving/3"
MADE_BY = "pr2 export"
FUNCTIONS, WEIGHTS = "functions", "weights"


class ServingArtifact(Mapping[str, ModelFunction]):
    """The functions of an artifact by name, each read on first use."""

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        self.directory, self.manifest = directory, manifest
        self._functions: dict[str, ModelFunction] = {}
        self._weights: dict[str, jax.Array] = {}

    @classmethod
    def open(cls, directory: Path) -> ServingArtifact:
        """The artifact, every byte checked. StaleArtifact where it is absent, half-written, damaged or of another
        schema."""
        artifact = cls(directory, artifacts.require(directory, SCHEMA, MADE_BY))
        artifact.verify()
        return artifact

    def verify(self) -> None:
        """StaleArtifact names the first file that differs from the manifest."""
        remedy = f"remove {self.directory} and make it anew with `{MADE_BY}`"
        if "digest" not in self.manifest or contents_digest(self.manifest) != self.manifest["digest"]:
            raise StaleArtifact(f"{self.directory / artifacts.MANIFEST} is not as it was written: {remedy}")
        files = self.manifest["files"]
        with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
            for name, damage in zip(files, pool.map(self._damage, files), strict=True):
                if damage:
                    raise StaleArtifact(f"{self.directory / name} {damage}: {remedy}")

    def _damage(self, name: str) -> str | None:
        path, entry = self.directory / name, self.manifest["files"][name]
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                return f"has {size:,} bytes, the manifest says {entry['bytes']:,}"
            if artifacts.sha256(path) != entry["sha256"]:
                return "does not hold what was exported (another SHA-256)"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None

    def __getitem__(self, name: str) -> ModelFunction:
        if name not in self._functions:
            entry = self.manifest[FUNCTIONS][name]
            weights = {weight: self._weight(file) for weight, file in entry["weights"].items()}
            self._functions[name] = ModelFunction(jax.jit(self.exported(name).call), nested(weights))
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest[FUNCTIONS])

    def __len__(self) -> int:
        return len(self.manifest[FUNCTIONS])

    def functions(self, model: str, directory: Path) -> ServingArtifact:
        """All functions, for any model: the interface of `types.Models`."""
        return self

    def exported(self, name: str) -> export.Exported:
        """One function's exported program: platforms, shapes, StableHLO."""
        path = self.directory / self.manifest[FUNCTIONS][name]["file"]
        try:
            program = export.deserialize(bytearray(path.read_bytes()))
            program.mlir_module()  # fails here, not in the first search, where StableHLO is of a later version
        except Exception as error:  # the file is whole, so its format is of another version
            raise StaleArtifact(
                f"{path} was exported by jax {self.manifest['versions']['jax']} and cannot be read by "
                f"jax {jax.__version__} ({str(error).splitlines()[0][:100]}): install that version, or make the "
                f"artifact anew with `{MADE_BY}`"
            ) from error
        return program

    def _weight(self, file: str) -> jax.Array:
        """A weight on the device, shared by all functions. On a CPU the array is the mapped file itself."""
        if file not in self._weights:
            self._weights[file] = jax.device_put(np.load(self.directory / file, mmap_mode="r").view(np.ndarray))
        return self._weights[file]


def contents_digest(manifest: Mapping[str, Any]) -> str:
    """A digest of the lists of functions and files."""
    return artifacts.digest([manifest.get(FUNCTIONS), manifest.get("files")])


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return out
