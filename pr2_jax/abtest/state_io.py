"""Dataclasses of arrays in `.npz` files: the state from which a killed experiment resumes."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Record = TypeVar("Record")


def to_arrays(record: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays by dotted field name; nested dataclasses are flattened."""
    out = {}
    for name, value in vars(record).items():
        if dataclasses.is_dataclass(value):
            out |= to_arrays(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = np.asarray(value)
    return out


def from_arrays(kind: type[Record], arrays: dict[str, np.ndarray], prefix: str = "") -> Record:
    """The record of this kind that `to_arrays` flattened."""
    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner):
            values[field.name] = from_arrays(inner, arrays, f"{prefix}{field.name}.")
        else:
            value = arrays[f"{prefix}{field.name}"]
            values[field.name] = value if inner is np.ndarray else inner(value)
    return kind(**values)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the file atomically."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a saved file."""
    with path.open("rb") as file, np.load(file) as arrays:  # opened here: NumPy would leave a damaged one open
        return {name: arrays[name] for name in arrays.files}
