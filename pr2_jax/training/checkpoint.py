"""Saving and restoring with Orbax. A directory holds `checkpoints/STEP/{state}`; a half-written step is ignored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as legacy
from orbax.checkpoint import v1 as ocp

from pr2_jax.training.distributed import is_first

PyTree = Any
CHECKPOINTS = "checkpoints"


def abstract(tree: PyTree) -> PyTree:
    """Shapes, types and shardings of a tree of arrays: what a restore has to be told."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


class Checkpoints:
    """The latest states of a run. Saving is asynchronous: the loop goes on while the bytes are written."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            directory.resolve() / CHECKPOINTS,
            preservation_policy=policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def latest(self) -> int | None:
        """The last whole step on disk."""
        found = self._checkpointer.latest
        return None if found is None else int(found.step)

    def save(self, step: int, state: PyTree) -> None:
        """Starts a save; a step that is on disk already is left as it is."""
        if self.latest() != step:
            self._checkpointer.save_checkpointables_async(step, {"state": state}, force=True)

    def restore(self, like: PyTree) -> PyTree:
        """The latest state, placed as `like` is."""
        return self._checkpointer.load_checkpointables(None, {"state": abstract(like)})["state"]

    def close(self) -> None:
        """Waits for a save under way."""
        self._checkpointer.wait()
        self._checkpointer.close()


def save_params(directory: Path, tree: PyTree) -> None:
    """Writes a finished model's arrays to `directory/params`. Every process has to come; the first writes its own.

    As NumPy arrays: Orbax refuses arrays on a device of one process where there are others.
    """
    target = directory.resolve() / "params"
    if is_first():
        shutil.rmtree(target, ignore_errors=True)
    ocp.save_checkpointables(target, {"params": jax.tree.map(np.asarray, tree)})


def load_params(directory: Path, like: PyTree) -> PyTree:
    """Reads what `save_params` wrote onto one device; `like` gives shapes (arrays or ShapeDtypeStructs).

    Any process may do so without the others, for which Orbax's older interface is needed: with the newer one each read
    moves a counter that has to be the same in all processes when they save together, or all of them wait forever. The
    device is named: Orbax would otherwise look for the devices of the machine that saved.
    """
    place, me = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), jax.process_index()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)
    alone = legacy.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    handler = legacy.StandardCheckpointHandler(multiprocessing_options=alone)
    with legacy.Checkpointer(handler, multiprocessing_options=alone) as reader:
        return reader.restore(directory.resolve() / "params" / "params", args=legacy.args.StandardRestore(like))
