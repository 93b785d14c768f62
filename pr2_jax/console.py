"""Log lines, progress bars and muted libraries. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE_S = 1.0
"""A bar appears once the work has taken this long."""

_stage: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="pr2")
_quiet = threading.Event()  # set in all processes of a run but the first
_live: list[Progress] = []  # the bar on the screen, so that a log line goes above it and not through it


def silence_libraries(warnings_too: bool = True) -> None:
    """Keeps library chatter off the screen: logs, and warnings unless `python -W` asks for them.

    What Orbax and asyncio log as errors they also raise, and we put it into one line; errors of others are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read by XLA's C++ at import
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)  # orbax, tfds and grain log here
    logging.getLogger("absl").addFilter(_not_orbax)
    for name in ("jax", "flax", "orbax", "etils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if warnings_too and not sys.warnoptions:
        warnings.simplefilter("ignore")


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drops what the body prints, C++ included: tfds writes to stdout, ScaNN's build to the stderr descriptor."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def keep_quiet() -> None:
    """No log line and no bar from this process any more; cli/entry.py still prints errors."""
    _quiet.set()


def keep_stdout_clean() -> None:
    """From now on only Python writes to stdout: Gloo reports each connection there, in the middle of any step.

    What C++ writes to descriptor 1 is dropped; NCCL's own log goes to a file with NCCL_DEBUG_FILE.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Names the stage in front of every log line of the body."""
    token = _stage.set(name)
    try:
        yield
    finally:
        _stage.reset(token)


@contextlib.contextmanager
def timed(ending: str = "") -> Iterator[None]:
    """Says after the body how long it took."""
    started = time.monotonic()
    yield
    log(f"done in {duration(time.monotonic() - started)}{ending}")


def log(message: str) -> None:
    """One line, `stage  message`."""
    if _quiet.is_set():
        return
    line = f"{_stage.get():<9} {message}"
    if _live:
        _live[-1].console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=sys.stderr, flush=True)


def log_renamed(old: str, new: str) -> None:
    """Says that an old name is still taken, and the present one."""
    log(f"{old} is called {new} now")


class Bar:
    """Progress of `total` units of work; `total` None where it is not known. Use as a context manager."""

    def __init__(self, description: str, total: float | None, unit: str = "") -> None:
        self.description, self.total, self.unit = description, total, unit.strip()
        self.done = 0.0
        self._shown: Progress | None = None
        self._wanted = sys.stderr.isatty() and not _live and not _quiet.is_set()  # one bar at a time
        self._start = time.monotonic()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._shown is not None:
            self._shown.stop()
            _live.remove(self._shown)

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Counts `amount` more units; `note` (a loss, a file) stands at the end of the line."""
        self.done += amount
        seconds = time.monotonic() - self._start
        if not self._wanted or seconds < PATIENCE_S:
            return
        if self._shown is None:
            self._show()
        left_s = (self.total - self.done) * seconds / self.done if self.total and self.done else 0.0
        speed = f"{rate(self.done, seconds)} {self.unit}".rstrip() + "/s"
        ahead = f", {duration(left_s)} left" if left_s > 0 else ""
        self._shown.update(self._task, completed=self.done, pace=speed + ahead, note=note)

    def _show(self) -> None:
        # Imported here: rich takes 0.2 s, and most runs show no bar.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        share = "{task.percentage:>3.0f}% " if self.total else ""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn(share + "{task.fields[pace]}  {task.fields[note]}", markup=False),
        )
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        label = f"{_stage.get():<9} {self.description}"
        self._task = self._shown.add_task(label, total=self.total, pace="", note="")
        self._shown.start()
        _live.append(self._shown)


def progress(items: Iterable[T], description: str, total: float | None = None, unit: str = "") -> Iterator[T]:
    """Hands `items` on, with a bar. `total` is `len(items)` where it has one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(description, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


def rate(count: float, seconds: float) -> str:
    """Units a second, three digits and a scale: `850`, `12.3k`, `4.1M`."""
    per_second = count / max(seconds, 1e-9)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.3g}{letter}"
    return f"{per_second:.3g}"


def duration(seconds: float) -> str:
    """`350 ms`, `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, left_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left_s:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
