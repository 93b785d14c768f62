"""Worker processes that end with their parent, also when the parent is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from pr2_jax.errors import Pr2Error

WATCH_SECONDS = 0.5


class WorkerProcess(multiprocessing.get_context("spawn").Process):
    """Runs `target(*args)` in a process while the `with` body runs; leaving the body ends the process."""

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:
        super().__init__(name=name, target=_run, args=(os.getpid(), target, args), daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()
        self.join()

    def wait(self) -> None:
        """Waits for the end of the work. Pr2Error where it failed; the process itself has printed why."""
        self.join()
        self.check()

    def check(self) -> None:
        """Pr2Error where the process has failed by now."""
        if self.exitcode:
            raise Pr2Error(f"the {self.name} process ended with status {self.exitcode}")


def _run(parent: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        target(*args)
    except Pr2Error as error:
        print(f"pr2: {error}", file=sys.stderr)
        sys.exit(2)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
