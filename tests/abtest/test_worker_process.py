"""Worker processes end with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pr2_jax.abtest.worker_process import WorkerProcess
from pr2_jax.errors import BadInput, Pr2Error

STARTER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_worker_process import forever
from pr2_jax.abtest.worker_process import WorkerProcess
if __name__ == "__main__":
    with WorkerProcess("test's", forever, {path!r}) as worker:
        time.sleep(600)
"""


def forever(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def fails() -> None:
    raise BadInput("no such thing")


def writes(path: str) -> None:
    Path(path).write_text("done")


def _gone(pid: int, seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def _appears(path: Path, seconds: float = 120.0) -> int:
    until = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(path.read_text())


def test_waits_for_the_work(tmp_path):
    with WorkerProcess("test's", writes, str(tmp_path / "a")) as worker:
        worker.wait()
    assert (tmp_path / "a").read_text() == "done"


def test_says_that_it_failed():
    with (
        WorkerProcess("test's", fails) as worker,
        pytest.raises(Pr2Error, match="the test's process ended with status 2"),
    ):
        worker.wait()


def test_says_so_before_anybody_waits():
    with WorkerProcess("test's", fails) as worker:
        worker.check()  # nothing yet: it starts
        worker.join(60)
        with pytest.raises(Pr2Error, match="the test's process ended with status 2"):
            worker.check()


def test_is_ended_when_the_body_is_left(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), WorkerProcess("test's", forever, str(tmp_path / "pid")):
        pid = _appears(tmp_path / "pid")
        raise KeyboardInterrupt
    assert _gone(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_a_parent_that_is_killed(tmp_path, how):
    script = tmp_path / "starter.py"
    script.write_text(STARTER.format(tests=str(Path(__file__).parent), path=str(tmp_path / "pid")))
    parent = subprocess.Popen([sys.executable, str(script)])
    pid = _appears(tmp_path / "pid")
    parent.send_signal(how)
    parent.wait(timeout=10)
    assert _gone(pid)
