"""Records of arrays as `.npz` files and back: what a killed experiment carries on from."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Record = TypeVar("Record")


def flat(record: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """A dataclass of arrays, numbers and other such dataclasses as arrays by dotted name."""
    out = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            out |= flat(value, f"{prefix}{field.name}.")
        else:
            out[f"{prefix}{field.name}"] = np.asarray(value)
    return out


def restored(kind: type[Record], arrays: dict[str, np.ndarray], prefix: str = "") -> Record:
    """The record that `flat` took apart."""
    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner):
            values[field.name] = restored(inner, arrays, f"{prefix}{field.name}.")
        else:
            value = arrays[f"{prefix}{field.name}"]
            values[field.name] = value if inner is np.ndarray else inner(value)
    return kind(**values)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def load(path: Path) -> dict[str, np.ndarray]:
    """What `save` wrote."""
    with path.open("rb") as file, np.load(file) as arrays:  # opened here: NumPy would leave a damaged one open
        return {name: arrays[name] for name in arrays.files}
