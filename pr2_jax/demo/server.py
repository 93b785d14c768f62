"""`pr2 demo`: opens the systems, serves the page on this machine's own address alone, ends with a signal."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from pr2_jax import console
from pr2_jax.demo.answers import Answers
from pr2_jax.demo.web import application
from pr2_jax.errors import BadInput
from pr2_jax.search.side_by_side import SideBySide

ADDRESS = "127.0.0.1"
URL_BYTES = 16 * 1024
PATIENCE_S = 5
"""Seconds that open requests get when the server ends."""


def serve(place: Path, port: int) -> None:
    """Serves a finished work directory or a serving artifact until SIGINT or SIGTERM.

    BadInput where the port cannot be had, before anything is loaded; StaleArtifact as `SideBySide.load`.
    """
    with contextlib.closing(listen(port)) as listening, console.stage("demo"):
        answers = _ready(place)
        ended = threading.Event()
        with _at_signal(ended.set), running(application(answers, place.resolve().name), listening) as alive:
            print(f"http://{ADDRESS}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
            while alive() and not ended.wait(1):
                pass
        console.log("ended")


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; 0 takes any free port. BadInput where that is not possible."""
    if port > 65_535:
        raise BadInput(f"--port {port}: expected 0 (any free one) to 65535")
    # The protocol is named, or asyncio leaves out TCP_NODELAY and every answer waits 40 ms for an acknowledgement.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or it is taken for a minute after the last run
    try:
        listening.bind((ADDRESS, port))
        listening.listen()
    except OSError as error:
        listening.close()
        said = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise BadInput(f"port {port} {said}: choose another with --port, or any free one with --port 0") from None
    return listening


@contextlib.contextmanager
def running(app: ASGIApp, listening: socket.socket) -> Iterator[Callable[[], bool]]:
    """Serves from a thread, so that signals stay the caller's; yields whether it still runs."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # defects of ours; what others send amiss is answered, not logged
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=PATIENCE_S,
        h11_max_incomplete_event_size=URL_BYTES,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="demo")
    thread.start()
    try:
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        yield thread.is_alive
    finally:
        server.should_exit = True
        thread.join()


def _ready(place: Path) -> Answers:
    start = time.perf_counter()
    console.log(f"opening {place}")
    answers = Answers(SideBySide.load(place))
    opened = time.perf_counter()
    console.log(f"opened in {console.duration(opened - start)}; first searches, which compile the models")
    answers.warm()
    console.log(f"ready to search after another {console.duration(time.perf_counter() - opened)}")
    return answers


@contextlib.contextmanager
def _at_signal(call: Callable[[], None]) -> Iterator[None]:
    """Calls that at SIGINT and SIGTERM, in place of what they do otherwise."""
    before = {number: signal.signal(number, lambda *_: call()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
