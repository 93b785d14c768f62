"""SIGTERM: who listens, for how long, and what is raised."""

from __future__ import annotations

import os
import signal
import threading

import jax
import pytest
from jax.experimental import multihost_utils

from pr2_jax.errors import Stopped
from pr2_jax.training.resource_limits import Stopping


@pytest.fixture(autouse=True)
def before():
    """What a SIGTERM did before; nothing, so that a handler left behind or missing does not end the test run."""
    noted = []

    def note(number, frame):
        noted.append(number)

    original = signal.signal(signal.SIGTERM, note)
    yield noted
    assert signal.getsignal(signal.SIGTERM) is note
    signal.signal(signal.SIGTERM, original)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _run(stopping: Stopping, ask_in: int | None, error: type[Exception] | None = None) -> list[int]:
    done = []
    with stopping:
        for step in range(1, 6):
            if step == ask_in:
                _terminate()
            done.append(step)
            if stopping.after(step):
                break
        if error:
            raise error
    return done


def test_the_running_step_is_the_last(before):
    stopping = Stopping(0, 20)
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM after saving step 3 of 20$"):
        _run(stopping, 3)
    assert before == []


def test_nobody_asks(before):
    assert _run(Stopping(0, 5), None) == [1, 2, 3, 4, 5]
    _terminate()
    assert before == [signal.SIGTERM], "the earlier handler is back"


def test_asked_when_all_is_done():
    """After the last step, while the last checkpoint is written."""
    with pytest.raises(Stopped, match="after saving step 7 of 7"), Stopping(7, 7):
        _terminate()


def test_an_error_goes_first():
    with pytest.raises(KeyError):
        _run(Stopping(0, 20), 3, KeyError)


def test_only_the_main_thread_can_listen():
    done = []
    thread = threading.Thread(target=lambda: done.extend(_run(Stopping(0, 5), None)))
    thread.start()
    thread.join()
    assert done == [1, 2, 3, 4, 5]


def test_several_processes_stop_after_a_step_they_agree_on(monkeypatch, before):
    """Where JAX listens, ours keeps out of it and asks once a step."""
    asked = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: asked.append(step) or step == 4)
    with pytest.raises(Stopped, match="after saving step 4 of 9"):
        _run(Stopping(0, 9), 2)
    assert asked == [1, 2, 3, 4]
    assert before == [signal.SIGTERM]
