"""SIGTERM while training: the running step is finished and saved, then the run ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from pr2_jax.errors import Stopped


class Stopping:
    """Context manager of a training run of `steps` steps: notes a SIGTERM, and raises Stopped at the end of the body.

    Alone, a process listens by itself; only the main thread can, and what the signal did before it does again
    afterwards. Where `jax.distributed` has been started, JAX listens: a signal to any process stops them all after the
    same step, some steps later.
    """

    def __init__(self, first: int, steps: int) -> None:
        self._step, self._steps, self._asked = first, steps, False
        self._together = jax.distributed.is_initialized()
        self._listens = not self._together and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Stopping:
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def after(self, step: int) -> bool:
        """Whether `step` is the last one. To be asked once after every step, by every process."""
        self._step = step
        if self._together:
            self._asked = multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
        if self._asked and kind is None:
            raise Stopped(f"stopped by SIGTERM after saving step {self._step} of {self._steps}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
