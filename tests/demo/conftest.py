"""One site over the finished work directory, asked as a browser would, and a stand-in where no search is needed."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from pr2_jax.demo import server
from pr2_jax.demo.answers import Answers, Person
from pr2_jax.demo.web import application
from pr2_jax.search.side_by_side import SideBySide


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Site(NamedTuple):
    port: int

    def ask(self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """The path goes out as it is. `body`: bytes, an iterable of them (sent in chunks), or what JSON can hold."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            if isinstance(body, dict | list | str):
                body = json.dumps(body).encode()
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, named, reply.read().decode())

    def search(self, **fields: Any) -> Reply:
        return self.ask("/api/search", "POST", fields)


class StandIn:
    """For `Answers`: gives the same answer to everything, after calling something."""

    log = {"people": 1, "videos": 2, "now_ms": 1_700_000_000_000}  # noqa: RUF012
    people = (Person(12, 3, "few", ("space comedy",)),)
    queries = ("space",)

    def __init__(self, answer: dict[str, Any] | None = None, call: Callable[[], None] = lambda: None) -> None:
        self._answer, self._call = answer, call

    def search(self, asked: Any) -> Any:
        self._call()
        return self._answer

    def person(self, user: int) -> dict[str, Any]:
        return {"user": user, "known": True, "events": 3, "past": [], "searches": []}


@pytest.fixture(scope="session")
def stand_in() -> type[StandIn]:
    return StandIn


@pytest.fixture(scope="session")
def opened() -> Callable[[Any], contextlib.AbstractContextManager[Site]]:
    """Serves answers for the length of a `with`."""

    @contextlib.contextmanager
    def opened(answers: Any) -> Iterator[Site]:
        with contextlib.closing(server.listen(0)) as listening:
            port = listening.getsockname()[1]
            with server.running(application(answers, "w"), listening):
                yield Site(port)

    return opened


@pytest.fixture(scope="session")
def answers(finished) -> Answers:
    return Answers(SideBySide.load(finished))


@pytest.fixture(scope="module")
def site(answers, opened) -> Iterator[Site]:
    with opened(answers) as site:
        yield site


@pytest.fixture(scope="session")
def watcher(answers) -> int:
    """Raw id of the person with most clicks."""
    store = answers._store
    clicks_U = np.bincount(np.asarray(store.events.user)[np.asarray(store.events.click)])
    return int(store.users.raw_id[clicks_U.argmax()])
