"""Ends of a training run: SIGTERM, after the running step is saved, and a full disk or device, with the remedy."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from pr2_jax.errors import Pr2Error, Stopped, causes, disk_full

PyTree = Any
NAMED = 3
"""Arrays that a message about memory names."""


@contextlib.contextmanager
def explained(task: str, directory: Path, arrays: Mapping[str, PyTree]) -> Iterator[None]:
    """Pr2Error where the body runs out of disk space in `directory` or of device memory.

    `arrays`: those on the devices, by kind (`state`, `frozen`, `batch`). The body may fill it as it goes.
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
    """Whether a device ran out of memory. TensorStore gives a full disk the same name, but another class."""
    return any(isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e) for e in causes(error))


def size(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, uncompressed."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by dotted path: `tables.video`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _disk_line(directory: Path, code: int, needed: int) -> str:
    free = shutil.disk_usage(directory).free
    return (
        f"{directory} cannot be written ({os.strerror(code)}): a checkpoint takes up to {needed / 1e6:,.1f} MB, "
        f"{free / 1e6:,.1f} MB are free; older checkpoints are whole, so make room and run the same command again"
    )


def _memory_line(task: str, error: BaseException, arrays: Mapping[str, PyTree]) -> str:
    message = next(str(e) for e in causes(error) if "RESOURCE_EXHAUSTED" in str(e)).splitlines()[0]
    leaves = [(size(leaf), name, leaf) for name, leaf in by_name(dict(arrays)).items()]
    largest = sorted(leaves, key=lambda row: (-row[0], row[1]))[:NAMED]
    named = ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)} {count / 1e6:,.1f} MB" for count, name, leaf in largest)
    remedy = f"lower {task}.optim.batch"
    if not largest[0][1].startswith("batch"):
        remedy += f" or {task}.width, or split the tables over more devices (mesh.data, mesh.model)"
    return f"{task} does not fit the device's memory ({message[:160]}); the largest arrays are {named}: {remedy}"


class Stopping:
    """Context manager of a training run: notes a SIGTERM, and raises Stopped at the end of the body.

    A process alone handles the signal in its main thread, and restores the old handler. Under `jax.distributed` JAX
    handles it: a signal to any process stops all of them after the same step.
    """

    def __init__(self, first: int, steps: int) -> None:
        self._step, self._steps, self._signalled = first, steps, False
        self._together = jax.distributed.is_initialized()
        self._listens = not self._together and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Stopping:
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def after(self, step: int) -> bool:
        """Whether `step` is the last one. Every process asks once after every step."""
        self._step = step
        if self._together:
            self._signalled = multihost_utils.reached_preemption_sync_point(step)
        return self._signalled

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
        if self._signalled and kind is None:
            raise Stopped(f"stopped by SIGTERM after saving step {self._step} of {self._steps}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
