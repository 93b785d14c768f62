"""Whatever is sent amiss gets a status and one line, and the next search is answered as before."""

from __future__ import annotations

import json
import socket
import threading
import time
from urllib.parse import quote

import pytest

from pr2_jax.demo import demo_request, web

GOOD = {"user": 12, "query": "space", "k": 3}
NO_JSON = "the body is not JSON"
API = {
    "nothing": (b"", 400, NO_JSON),
    "half an object": (b'{"user": 12', 400, NO_JSON),
    "not UTF-8": (b'{"query": "\xff"}', 400, NO_JSON),
    "NaN": (b'{"query": "a", "k": NaN}', 400, NO_JSON),
    "brackets without end": (b"[" * 16_000, 400, NO_JSON),
    "a number of thousands of digits": (b'{"query": "a", "user": ' + b"9" * 9000 + b"}", 400, NO_JSON),
    "a list": (b"[1]", 422, "not an object"),
    "no query": ({"user": 12}, 422, "query: nothing is not a text"),
    "a query of null": ({"query": None}, 422, "query: None is not a text"),
    "a query of words": ({"query": ["a"]}, 422, "query: "),
    "half of a pair": (b'{"query": "\\ud800"}', 422, "query: "),
    "a user in words": ({"query": "a", "user": "Bob"}, 422, "user: 'Bob' is not a raw user id"),
    "a user of one half": ({"query": "a", "user": 0.5}, 422, "user: 0.5"),
    "a user of yes": ({"query": "a", "user": True}, 422, "user: True"),
    "a user beyond 64 bits": ({"query": "a", "user": 2**70}, 422, "user: 1180591620717411303424"),
    "k in words": ({"query": "a", "k": "10"}, 422, "k: '10'"),
    "k of yes": ({"query": "a", "k": True}, 422, "k: True"),
    "k of null": ({"query": "a", "k": None}, 422, "k: None"),
    "k of 0": ({"query": "a", "k": 0}, 400, "k: 0, expected 1 to 50"),
    "k below 0": ({"query": "a", "k": -1}, 400, "k: -1, expected 1 to 50"),
    "k of many": ({"query": "a", "k": 51}, 400, "k: 51, expected 1 to 50"),
    "k of very many": ({"query": "a", "k": 10**400}, 400, "k: 1000"),
    "a typo": ({"query": "a", "users": 1}, 422, "unknown field 'users'; expected user, query, k"),
    "a long query": ({"query": "a" * 201}, 400, "query: 201 characters, at most 200"),
    "a large body": ({"query": "a" * demo_request.BODY_BYTES}, 413, "too large: at most 16,384 bytes"),
    "a larger body": (b"x" * 3_000_000, 413, "too large"),
    "a large body in chunks": ([b"x" * 1000] * 40, 413, "too large"),
}
FORM = {
    "a user in words": ("/?user=Bob&query=a", "person: &#39;Bob&#39; is not a raw user id"),
    "a user in other digits": ("/?user=%D9%A1&query=a", "person: "),
    "a user beyond 64 bits": (f"/?user={'9' * 19}&query=a", "person: "),
    "a user of thousands of digits": (f"/?user={'9' * 5000}", "person: "),
    "k of 0": ("/?query=a&k=0", "k: 0, expected 1 to 50"),
    "k of many": ("/?query=a&k=51", "k: 51, expected"),
    "k in words": ("/?query=a&k=ten", "k: &#39;ten&#39;"),
    "k in other digits": ("/?query=a&k=%D9%A1", "k: "),
    "k of thousands of digits": (f"/?query=a&k={'9' * 5000}", "k: "),
    "a long query": (f"/?query={'a' * 201}", "query: 201 characters"),
}
NOWHERE = (
    "/nothing",
    "/api",
    "/api/",
    "/api/searches",
    "/static",
    "/static/",
    "/static/page.html",
    "/static/../web.py",
    "/static/../static/style.css",
    "/static/%2e%2e/web.py",
    "/static/..%2fweb.py",
    "/static/%2e%2e%2fweb.py",
    "/static/%252e%252e%252fweb.py",
    "/static/..%5cweb.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/style.css%00",
    "/static/style.css/",
    "//etc/passwd",
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/templates/page.html",
)


@pytest.fixture(scope="module")
def answer(answers) -> dict:
    return answers.search(demo_request.DemoRequest(None, answers.queries[0], 3))


@pytest.fixture(scope="module")
def site(answer, opened, stand_in):
    with opened(stand_in(answer)) as site:
        yield site


def _goes_on(site):
    assert site.search(**GOOD).status == 200


@pytest.mark.parametrize("case", API)
def test_api(site, case):
    body, status, said = API[case]
    reply = site.ask("/api/search", "POST", iter(body) if isinstance(body, list) and status == 413 else body)
    assert reply.status == status
    error = json.loads(reply.text)
    assert list(error) == ["error"]
    assert said in error["error"]
    assert "\n" not in error["error"]
    assert len(error["error"]) < 200
    _goes_on(site)


@pytest.mark.parametrize("case", FORM)
def test_form(site, case):
    path, said = FORM[case]
    reply = site.ask(path)
    assert reply.status == 400
    assert said in reply.text
    assert 'class="error"' in reply.text
    assert len(reply.text) < 10_000
    assert site.ask("/?user=12&query=space").status == 200


@pytest.mark.parametrize("path", NOWHERE)
def test_paths_that_lead_nowhere(site, path):
    reply = site.ask(path)
    assert reply.status == 404
    assert "root:" not in reply.text
    assert "import" not in reply.text
    assert reply.text.startswith('{"error":' if path.startswith("/api/") else "<!doctype html>")
    _goes_on(site)


def test_answers_do_not_wait_for_an_acknowledgement(site, monkeypatch):
    """The server's packets are not held back, which would cost 40 ms a request on a connection that stays open."""
    asked, real = [], socket.socket.setsockopt

    def noted(this, *option):
        asked.append((threading.current_thread(), option))
        return real(this, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", noted)
    assert site.ask("/static/icon.svg").status == 200
    of_server = [option for thread, option in asked if thread is not threading.current_thread()]
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in [tuple(map(int, option)) for option in of_server]


def test_methods(site):
    for path, method, allowed in (
        ("/api/search", "GET", "POST"),
        ("/api/search", "PUT", "POST"),
        ("/", "POST", "GET"),
        ("/static/style.css", "DELETE", "GET"),
    ):
        reply = site.ask(path, method)
        assert reply.status == 405
        assert allowed in reply.headers["allow"]
    assert site.ask("/", "HEAD").status == 200
    _goes_on(site)


def test_hosts(site):
    """A page of another site whose name resolves to this machine would ask under that name."""
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        for path, method in (("/", "GET"), ("/static/style.css", "GET"), ("/api/search", "POST")):
            assert site.ask(path, method, headers={"Host": host}).status == 400
    for host in ("localhost", f"localhost:{site.port}", "127.0.0.1", f"127.0.0.1:{site.port}"):
        assert site.ask("/", headers={"Host": host}).status == 200


def test_pages_of_other_sites_may_not_search(site):
    for origin, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        reply = site.ask("/api/search", "POST", GOOD, {"Sec-Fetch-Site": origin})
        assert reply.status == status


@pytest.mark.parametrize("sent", [b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000])
def test_what_is_no_http(site, sent):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    _goes_on(site)


def test_a_body_that_does_not_come(site, monkeypatch):
    monkeypatch.setattr(web, "BODY_S", 0.1)
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
    _goes_on(site)


def test_who_leaves_early(site, caplog):
    for sent in (
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"GET / HTTP/1.1\r\n",
    ):
        with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
            connection.sendall(sent)
    _goes_on(site)
    assert not caplog.records, "what others send amiss is not logged"


def test_one_at_a_time_few_wait_and_the_rest_is_served(answer, opened, stand_in):
    inside, most, lock, gate = 0, 0, threading.Lock(), threading.Event()

    def slowly():
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        assert gate.wait(120)
        with lock:
            inside -= 1

    replies = []
    with opened(stand_in(answer, slowly)) as site:
        callers = [
            threading.Thread(target=lambda: replies.append(site.search(**GOOD))) for _ in range(1 + web.WAITING + 3)
        ]
        for caller in callers:
            caller.start()
        until = time.monotonic() + 120
        while len(replies) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        refused = list(replies)
        assert [reply.status for reply in refused] == [503] * 3
        assert refused[0].headers["retry-after"] == "1"
        assert "busy" in json.loads(refused[0].text)["error"]
        assert site.ask("/").status == 200, "what needs no search is answered meanwhile"
        gate.set()
        for caller in callers:
            caller.join()
        assert sorted(reply.status for reply in replies) == [200] * (1 + web.WAITING) + [503] * 3
        assert most == 1
        _goes_on(site)


def test_a_defect_of_ours_is_one_line_to_them_and_a_traceback_to_us(answer, opened, stand_in, caplog):
    def broken():
        raise RuntimeError("secret of the house")

    with opened(stand_in(answer, broken)) as site:
        reply = site.search(**GOOD)
        assert (reply.status, list(json.loads(reply.text))) == (500, ["error"])
        page = site.ask("/?user=12&query=" + quote("space"))
        assert page.status == 500
        assert "secret" not in reply.text + page.text
        assert "RuntimeError: secret of the house" in caplog.text
        assert page.headers["content-security-policy"]
        assert site.ask("/").status == 200
