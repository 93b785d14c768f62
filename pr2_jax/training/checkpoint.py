"""Checkpoints, saved and restored with Orbax: `checkpoints/STEP/`. What a kill left half-written is no step.

Each step also keeps the facts of its run, and a checksum of the state: Orbax puts none on array data.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as legacy
from jax import Array
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from pr2_jax import artifacts, console
from pr2_jax.errors import StaleArtifact, causes
from pr2_jax.training import resource_limits
from pr2_jax.training.distributed import alone, is_first

PyTree = Any
CHECKPOINTS, HALF_WRITTEN = "checkpoints", "*.orbax-checkpoint-tmp"
SCHEMA = "checkpoint-1"
LEAST_SLICE = 1 << 20
"""Bytes of an array that one device writes at least."""


def abstract(tree: PyTree, place: jax.sharding.Sharding | None = None) -> PyTree:
    """Shapes, types and shardings (`place`, or their own) of a tree of arrays, which a restore needs."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place or x.sharding), tree)


def checksum(tree: PyTree) -> int:
    """32 bits that change with any bit of any array, and do not depend on shardings.

    Each word is multiplied by an odd number made from its place, and all are added up modulo 2^32 on the device.
    """
    sums = []
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        if leaf.is_fully_replicated:
            sums.append(_leaf_sum(np.uint32(number), leaf.addressable_data(0)))
        else:  # one at a time: collectives that run side by side can lock up a CPU's devices
            sums.append(jax.block_until_ready(_leaf_sum(np.uint32(number), leaf)))
    return sum(map(int, jax.device_get(sums))) % 2**32


@jax.jit
def _leaf_sum(number: Array, x: Array) -> Array:
    # One program a shape compiles faster than one for the tree.
    words = x.view(f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.full(x.shape, number, jnp.uint32)
    for axis in range(x.ndim):
        place = place * jnp.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    odd = (place ^ (place >> 15)) * jnp.uint32(0x85EBCA6B) | jnp.uint32(1)
    return jnp.sum(words * odd, dtype=jnp.uint32)


class Checkpoints:
    """The latest checkpoints of a run. A context manager.

    Saving is asynchronous. A save's error is raised by the next save, by `wait` or on leaving. A checkpoint with other
    `facts`, which are fit for JSON, is refused when it is restored.
    """

    def __init__(self, directory: Path, facts: Mapping[str, Any] | None = None, keep: int = 2) -> None:
        policies = ocp.training.preservation_policies
        self._facts = json.loads(json.dumps({"schema": SCHEMA, **(facts or {})}))
        self._place = directory.resolve() / CHECKPOINTS
        # Not by Orbax, whose thread might still be at it when the next Checkpointer opens the directory.
        for half in self._place.glob(HALF_WRITTEN) if is_first() else ():
            shutil.rmtree(half, ignore_errors=True)
        with _quiet():
            self._checkpointer = ocp.training.Checkpointer(
                self._place, context=_context(), preservation_policy=policies.LatestN(keep)
            )

    @property
    def steps(self) -> list[int]:
        """Steps on disk, ascending."""
        return [int(info.step) for info in self._checkpointer.checkpoints]

    def save(self, step: int, state: PyTree) -> None:
        """Starts a save, unless the step is on disk."""
        self.wait()
        if step in self.steps:
            return
        metadata = {"facts": self._facts, "checksum": checksum(state)}
        self._checkpointer.save_checkpointables_async(step, {"state": state}, force=True, custom_metadata=metadata)

    def restore(self, like: PyTree) -> PyTree | None:
        """The latest whole state, placed as `like` is; None where there is no checkpoint.

        Damaged ones after it are logged and moved to `damaged-STEP`. StaleArtifact where none is whole, or where the
        checkpoint was made from other facts.
        """
        self.wait()
        damaged: dict[int, str] = {}
        for step in reversed(self.steps):
            state, why = self._load(step, like)
            if why is None:
                self._set_aside(damaged, step)
                return state
            damaged[step] = why
        if damaged:
            step, why = next(iter(damaged.items()))
            raise StaleArtifact(
                f"{self._place} holds no checkpoint that can be read (step {step}: {why}): remove that directory to "
                "train from the start"
            )
        return None

    def wait(self) -> None:
        """Waits for a save under way and raises its error."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits for a save under way and frees the directory."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self.close()
        except Exception as failed:
            if kind is None:
                raise
            console.log(f"the last checkpoint was not saved either: {_line(failed)}")

    def _metadata(self, step: int) -> dict[str, Any] | None:
        """Facts and checksum of a checkpoint; None where they cannot be read."""
        try:
            metadata = self._checkpointer.checkpointables_metadata(step).custom_metadata
        except Exception:  # any error that damaged files cause in Orbax
            return None
        return metadata if isinstance(metadata, dict) and {"facts", "checksum"} <= metadata.keys() else None

    def _load(self, step: int, like: PyTree) -> tuple[PyTree, str | None]:
        """The state, or why it is damaged."""
        with _quiet():
            metadata, state, why = self._metadata(step), None, None
            if not _everywhere(metadata is not None):
                return None, "it does not say what it was made from"
            if changes := artifacts.differences(metadata["facts"], self._facts):
                raise StaleArtifact(
                    f"{self._place} holds checkpoints of another run ({artifacts.in_short(changes)}): remove that "
                    "directory to train from the start"
                )
            try:
                state = self._checkpointer.load_checkpointables(step, {"state": abstract(like)})["state"]
            except Exception as error:
                if resource_limits.out_of_memory(error):
                    raise
                why = f"it cannot be read, {_line(list(causes(error))[-1])}"
            if why:
                gc.collect()  # complaints of what a failed read left behind are muted here
        if not _everywhere(why is None):
            return None, why or "another process cannot read it"
        if checksum(state) != metadata["checksum"]:
            return None, "its values do not match their checksum"
        return state, None

    def _set_aside(self, damaged: dict[int, str], whole: int) -> None:
        if not damaged:
            return
        for step, why in damaged.items():
            aside = self._place / f"damaged-{step}"
            console.log(f"checkpoint of step {step} is damaged ({why}): moved to {aside}, step {whole} is used")
            if is_first():
                shutil.rmtree(aside, ignore_errors=True)
                (self._place / str(step)).rename(aside)
        _everywhere(True)  # no process reads before all are moved
        self._checkpointer.reload()


def _context() -> ocp.Context:
    # Orbax splits an array that several devices hold between them, with a program compiled for each shape and device:
    # worth it for large arrays alone.
    saving = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=LEAST_SLICE)
    return ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mutes Orbax, which reads arrays side by side and prints a traceback for each that fails."""
    before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with console.muted():
            yield
    finally:
        sys.unraisablehook = before


def _everywhere(here: bool) -> bool:
    """Whether `here` holds in every process; also a barrier."""
    return here if alone() else bool(multihost_utils.process_allgather(np.array(here)).all())


def _line(error: BaseException) -> str:
    """An error's class and first line, cut."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def save_params(directory: Path, tree: PyTree) -> None:
    """Writes a finished model's arrays to `directory/params`. Every process has to come; the first writes.

    As NumPy arrays: with several processes Orbax refuses arrays on a device of one.
    """
    target = directory.resolve() / "params"
    if is_first():
        shutil.rmtree(target, ignore_errors=True)
    ocp.save_checkpointables(target, {"params": jax.tree.map(np.asarray, tree)})


def load_params(directory: Path, like: PyTree) -> PyTree:
    """Reads what `save_params` wrote onto one device; `like` gives shapes (arrays or ShapeDtypeStructs).

    One process may do so alone. That needs Orbax's older interface: in the newer one each read moves a counter that
    must be equal in all processes when they save. A named device keeps Orbax from asking for those of the save.
    """
    place, me = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), jax.process_index()
    by_itself = legacy.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    handler = legacy.StandardCheckpointHandler(multiprocessing_options=by_itself)
    with legacy.Checkpointer(handler, multiprocessing_options=by_itself) as reader:
        return reader.restore(
            directory.resolve() / "params" / "params", args=legacy.args.StandardRestore(abstract(like, place))
        )
