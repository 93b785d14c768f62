"""Reads and checks the content vectors of a log: `content.npy` and `content_ids.npy`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pr2_jax.data.logs.streams import first_line
from pr2_jax.errors import BadInput


@dataclasses.dataclass(frozen=True)
class BroughtContent:
    """`vectors [n, F]` float32 of the videos with raw ids `ids [n]`, ascending."""

    ids: np.ndarray
    vectors: np.ndarray


def read_content(vectors_path: Path | None, ids_path: Path | None) -> BroughtContent | None:
    """None where the log has none. BadInput for anything but finite float [n, F >= 1] and n distinct whole ids."""
    if vectors_path is None or ids_path is None:
        return None
    vectors, ids = _load(vectors_path), _load(ids_path)
    if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f":
        raise BadInput(f"{vectors_path.name} is {vectors.dtype} {list(vectors.shape)}, expected float [videos, width]")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise BadInput(f"{ids_path.name} is {ids.dtype} {list(ids.shape)}, expected whole numbers [videos]")
    if len(ids) != len(vectors):
        raise BadInput(
            f"{vectors_path.name} has {len(vectors)} rows but {ids_path.name} has {len(ids)}: expected one id a row"
        )
    if len(ids) == 0:
        raise BadInput(f"{vectors_path.name} has no rows: remove both files or fill them")
    vectors = vectors.astype(np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(vectors[row])))
        raise BadInput(
            f"{vectors_path.name}, row {row}, column {column}: found {vectors[row, column]} (item {ids[row]}), "
            f"expected a finite number; {int((~finite).sum())} of {len(ids)} rows are not finite"
        )
    order = np.argsort(ids, kind="stable")
    ids, vectors = ids[order].astype(np.int64), vectors[order]
    again = np.flatnonzero(ids[1:] == ids[:-1])
    if len(again):
        raise BadInput(
            f"{ids_path.name}, row {int(order[again[0] + 1])}: item {ids[again[0]]} stands twice, expected each once"
        )
    return BroughtContent(ids, vectors)


def _load(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(f"{path.name} is not a readable .npy array ({first_line(error)})") from None
    if not isinstance(loaded, np.ndarray):
        raise BadInput(f"{path.name} is an .npz archive, expected one .npy array")
    return loaded
