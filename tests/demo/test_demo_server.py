"""`pr2 demo` as a command: the port, the work directory, the address that it prints, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from pr2_jax.cli import entry
from pr2_jax.demo import server
from pr2_jax.workdir import STAGES


def _refused(arguments, capsys):
    assert entry.main(["demo", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("pr2: error: ")
    return said[-1]


def test_a_port_in_use_is_said_before_anything_is_opened(tmp_path, capsys):
    """`tmp_path` is no work directory, which would have been said too."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = _refused(["--workdir", str(tmp_path), "--port", str(port)], capsys)
    assert said == f"pr2: error: port {port} is in use: choose another with --port, or any free one with --port 0"


def test_ports_that_are_none(tmp_path, capsys):
    for port, told in (
        ("65536", "expected 0 (any free one) to 65535"),
        ("-1", "whole number"),
        ("http", "whole number"),
    ):
        assert told in _refused(["--workdir", str(tmp_path), f"--port={port}"], capsys)


def test_places_that_are_not_finished(finished, tmp_path, capsys):
    assert "is not a work directory" in _refused(["--workdir", str(tmp_path), "--port", "0"], capsys)
    for name in ("config.json", "store", *STAGES):
        if name != "qin":
            (tmp_path / name).symlink_to(finished / name)
    said = _refused(["--workdir", str(tmp_path), "--port", "0"], capsys)
    assert str(tmp_path / "qin") in said
    assert "pr2 train qin" in said


def test_only_this_machine_can_connect():
    with server.listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.fixture
def started():
    """Starts Python code, and reads the address that it prints; with what it wrote to stderr so far."""
    processes, timers = [], []

    def started(code, *arguments):
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, **pipes)
        processes.append(process)
        timers.append(threading.Timer(200, process.kill))
        timers[-1].start()
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
        assert found, line or process.stderr.read()
        return process, int(found[1])

    yield started
    for process, timer in zip(processes, timers, strict=True):
        timer.cancel()
        process.kill()
        process.communicate()


def _get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


def _end(process, number):
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def test_from_the_command_to_the_answer_to_the_end(started, finished):
    process, port = started(
        "import sys; from pr2_jax.cli import entry as cli; sys.exit(cli.main())",
        "demo",
        "--workdir",
        str(finished),
        "--port",
        "0",
    )
    status, page = _get(port, "/?user=&query=film&k=5")
    assert status == 200
    assert page.count('<li id="pr2-') == 5
    said = _end(process, signal.SIGTERM)
    assert [line.split()[0] for line in said.splitlines()] == ["demo"] * 4, "opening, opened, ready, ended"
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


BUSY = """
import sys, time
from pr2_jax.cli import entry as cli
from pr2_jax.demo import server
from pr2_jax.demo.answers import Answers
class Slow:
    log, people, queries = {"people": 1, "videos": 1, "now_ms": 0}, (), ()
    def person(self, user):
        print("begun", flush=True)
        time.sleep(1)
        return {"user": user, "known": True, "events": 3, "past": [], "searches": ["space"]}
server._ready = lambda place: Slow()
sys.exit(cli.main(["demo", "--workdir", "w", "--port", "0"]))
"""


def test_ctrl_c_in_the_middle_of_an_answer(started):
    process, port = started(BUSY)
    with socket.create_connection(("127.0.0.1", port)) as caller, socket.create_connection(("127.0.0.1", port)):
        caller.sendall(b"GET /?user=12 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert process.stdout.readline() == "begun\n"
        _end(process, signal.SIGINT)
        assert caller.recv(100).startswith(b"HTTP/1.1 200 OK"), "what was asked is still answered"


def test_ctrl_c_while_a_body_is_awaited(started):
    process, port = started(BUSY.replace("server._ready", "server.PATIENCE_S = 1\nserver._ready"))
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert _get(port, "/")[0] == 200, "by now the other is being read"
        _end(process, signal.SIGINT)
