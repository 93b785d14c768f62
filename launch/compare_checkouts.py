"""Do two checkouts make the same bytes? Runs the tiny world in both and compares the store, parameters and run files.

    python launch/compare_checkouts.py OLD NEW [--workdir DIR] [--rename taste=preference ...]

For changes that must not change what is computed: moves, renames, a new flow. OLD and NEW are checkouts, or work
directories that `pr2 run` has finished. `--rename` says that a directory, file or parameter of OLD has another name in
NEW. Exit status 1 where something differs. Reads arrays, not files: manifests and checkpoints hold times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CONFIG = "configs/quickstart.py:tiny"
TEXTS = (".run", ".csv")


def finished_run(place: Path, workdir: Path) -> Path:
    """A work directory: `place` itself, or the one that the checkout there makes in `workdir`."""
    if (place / "config.json").is_file():
        return place
    command = [sys.executable, "-m", "pr2_jax", "run", "--config", CONFIG, "--workdir", str(workdir)]
    subprocess.run(command, cwd=place, env=os.environ | {"PYTHONPATH": str(place.resolve())}, check=True)
    return workdir


def contents(workdir: Path) -> Iterator[tuple[str, np.ndarray | bytes]]:
    """Everything that a stage computed, by name: arrays, and text files whole."""
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir)
        if "tfds" in name.parts or not path.is_file():
            continue
        if path.suffix == ".npy":
            yield str(name), np.load(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                yield from ((f"{name}/{key}", arrays[key]) for key in sorted(arrays))
        elif path.suffix in TEXTS:
            yield str(name), path.read_bytes()
        elif path.name == "commit_success.txt":
            yield from parameters(path.parent, str(name.parent))


def parameters(directory: Path, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The leaves of a saved tree of parameters."""
    import jax
    from orbax.checkpoint import v1 as ocp

    for path, leaf in jax.tree_util.tree_leaves_with_path(ocp.load(directory)):
        yield f"{name}{jax.tree_util.keystr(path)}", np.asarray(leaf)


def renamed(name: str, renames: list[tuple[str, str]]) -> str:
    """The name that something of OLD has in NEW."""
    for old, new in renames:
        name = name.replace(old, new)
    return name


def differences(old: dict, new: dict) -> Iterator[str]:
    """One line for whatever is not the same on both sides."""
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            yield f"{name}: only in {'OLD' if name in old else 'NEW'}"
            continue
        one, other = old[name], new[name]
        if isinstance(one, bytes):
            same = one == other
        else:
            same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        if not same:
            yield f"{name}: differs"


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--workdir", type=Path, help="where the runs go (default: a temporary directory)")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    options = parser.parse_args()
    renames = [tuple(pair.split("=", 1)) for pair in options.rename]
    with tempfile.TemporaryDirectory() as temporary:
        place = (options.workdir or Path(temporary)).resolve()
        old = finished_run(options.old.resolve(), place / "old")
        new = finished_run(options.new.resolve(), place / "new")
        before = {renamed(name, renames): value for name, value in contents(old)}
        after = dict(contents(new))
    found = list(differences(before, after))
    print("\n".join([*found, f"{len(before)} arrays and files compared, {len(found)} differ"]))
    return 1 if found or not before else 0


if __name__ == "__main__":
    sys.exit(main())
