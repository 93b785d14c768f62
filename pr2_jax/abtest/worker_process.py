"""Work in processes of their own, which end with the one that started them, however that ends."""

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


class WorkerProcess:
    """A process that runs `target(*args)` while the body of the `with` goes on; it is ended when the body is left."""

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:
        self._name = name
        self._process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(os.getpid(), target, args), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def wait(self) -> None:
        """Until it has done its work. Pr2Error where it failed; it has said why."""
        self._process.join()
        self.check()

    def check(self) -> None:
        """Pr2Error where it has failed by now."""
        if self._process.exitcode:
            raise Pr2Error(f"the {self._name} process ended with status {self._process.exitcode}")


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
