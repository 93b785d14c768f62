"""A serving artifact: everything that search reads, with the models as exported programs.

    manifest.json   schema, what it was made from, the functions, and size and SHA-256 of every file
    functions/      one program a function (jax.export: StableHLO for CPU, CUDA and TPU), without weights
    weights/        arrays that the programs take, each stored once whoever reads it
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

SCHEMA = "serving/2"
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
        """StaleArtifact where the artifact is absent, half-written, of another schema, or any file is damaged.

        Every byte is read once and compared: what is then served is what was exported.
        """
        artifact = cls(directory, artifacts.require(directory, SCHEMA, MADE_BY))
        artifact.verify()
        return artifact

    def verify(self) -> None:
        """StaleArtifact names the first file that is not as the manifest says."""
        if "digest" not in self.manifest or contents_digest(self.manifest) != self.manifest["digest"]:
            raise StaleArtifact(
                f"{self.directory / artifacts.MANIFEST} is not as it was written: remove {self.directory} and make it "
                f"anew with `{MADE_BY}`"
            )
        said = self.manifest["files"]
        with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
            for name, wrong in zip(said, pool.map(self._what_is_wrong, said), strict=True):
                if wrong:
                    raise StaleArtifact(
                        f"{self.directory / name} {wrong}: remove {self.directory} and make it anew with `{MADE_BY}`"
                    )

    def _what_is_wrong(self, name: str) -> str | None:
        path, said = self.directory / name, self.manifest["files"][name]
        try:
            size = path.stat().st_size
            if size != said["bytes"]:
                return f"has {size:,} bytes, the manifest says {said['bytes']:,}"
            return (
                None
                if artifacts.sha256(path) == said["sha256"]
                else "does not hold what was exported (another SHA-256)"
            )
        except OSError as error:
            return f"cannot be read ({error.strerror})"

    def __getitem__(self, name: str) -> ModelFunction:
        if name not in self._functions:
            said = self.manifest[FUNCTIONS][name]
            weights = {weight: self._weight(file) for weight, file in said["weights"].items()}
            self._functions[name] = ModelFunction(jax.jit(self._program(said["file"]).call), nested(weights))
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest[FUNCTIONS])

    def __len__(self) -> int:
        return len(self.manifest[FUNCTIONS])

    def functions(self, model: str, directory: Path) -> ServingArtifact:
        """As `types.Models`: all of them, whichever model is asked for."""
        return self

    def exported(self, name: str) -> export.Exported:
        """One function as jax.export knows it: platforms, shapes, StableHLO."""
        return self._program(self.manifest[FUNCTIONS][name]["file"])

    def _program(self, file: str) -> export.Exported:
        try:
            program = export.deserialize(bytearray((self.directory / file).read_bytes()))
            program.mlir_module()  # StableHLO of a later version fails here, not in the first search
        except Exception as error:  # the file is whole, so this is a format of another version
            raise StaleArtifact(
                f"{self.directory / file} was exported by jax {self.manifest['versions']['jax']} and cannot be read by "
                f"jax {jax.__version__} ({str(error).splitlines()[0][:100]}): install that version, or make the "
                f"artifact anew with `{MADE_BY}`"
            ) from error
        return program

    def _weight(self, file: str) -> jax.Array:
        """On the device, once for all functions that read it. On a CPU the mapped file itself is the array."""
        if file not in self._weights:
            self._weights[file] = jax.device_put(np.load(self.directory / file, mmap_mode="r").view(np.ndarray))
        return self._weights[file]


def contents_digest(manifest: Mapping[str, Any]) -> str:
    """Stands for the lists of functions and files."""
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
