"""The web application: one page, its style sheet, and `POST /api/search`. It reads no file by a name from a request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pr2_jax.demo import demo_request
from pr2_jax.demo.answers import Answers
from pr2_jax.errors import Pr2Error

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
STATIC = {"style.css": "text/css", "icon.svg": "image/svg+xml"}
HOSTS = ["127.0.0.1", "localhost"]
"""Accepted Host headers. Another site's name that resolves to this machine (DNS rebinding) is refused."""
WAITING = 8
"""Searches that may wait for the one that runs."""
BODY_S = 10
"""Seconds for a body to arrive."""
DISCARDED_BYTES = 4 * 1024 * 1024
"""How much of a too large body is still read, so that the sender gets to read the refusal."""
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class OneAtATime:
    """Searches in a thread of their own, one after the other, so that the server goes on answering."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="search")
        self._inside = 0

    async def __call__(self, call: Callable[..., T], *given: Any) -> T:
        """HTTPException 503 where too many wait already."""
        if self._inside > WAITING:
            raise HTTPException(503, f"busy: {WAITING} searches are waiting; try again", {"retry-after": "1"})
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *given)
        finally:
            self._inside -= 1


class Pages:
    """What the routes answer."""

    def __init__(self, answers: Answers, name: str) -> None:
        self._answers, self._one_at_a_time = answers, OneAtATime()
        self._static = {file: (HERE / "static" / file).read_bytes() for file in STATIC}
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,  # captions and queries are other people's text
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("page.html")
        day = datetime.datetime.fromtimestamp(answers.log["now_ms"] / 1000, datetime.UTC)
        self._always = {
            "name": name,
            "log": answers.log,
            "as_of": f"{day.day} {day:%B %Y}",
            "people": answers.people,
            "queries": answers.queries,
            "choices": (5, 10, 20, demo_request.MOST_RESULTS),
            "longest": demo_request.QUERY_CHARACTERS,
        }

    async def page(self, request: Request) -> Response:
        """The form; with `query` in the URL, also the results; with `user` alone, what is known of the person."""
        given = request.query_params
        wanted = demo_request.from_form(given)
        if "query" in given:
            answer = await self._one_at_a_time(self._answers.search, wanted)
            return self._html(request, 200, answer=answer, person=answer["person"], notes=answer["notes"])
        if wanted.user is None:
            return self._html(request, 200)
        person = await self._one_at_a_time(self._answers.person, wanted.user)
        unknown = [] if person["known"] else [f"Person {wanted.user} is not in the log."]
        return self._html(request, 200, person=person, notes=unknown)

    async def api(self, request: Request) -> Response:
        """`{"user": 12, "query": "...", "k": 10}` in, what `Answers.search` says out."""
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise HTTPException(403, "asked for by a page of another site")
        wanted = demo_request.from_json(await _body(request))
        return JSONResponse(await self._one_at_a_time(self._answers.search, wanted))

    async def static(self, request: Request) -> Response:
        """The style sheet and the icon."""
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(404)
        return Response(self._static[name], media_type=STATIC[name])

    async def error(self, request: Request, error: Exception) -> Response:
        """One line, as JSON from the API and on the page elsewhere."""
        status, said, headers = 500, "a defect of ours: the terminal shows where", None  # with the traceback
        if isinstance(error, HTTPException):
            status, said, headers = error.status_code, error.detail, error.headers
        elif isinstance(error, Pr2Error):
            status, said = 400, str(error)
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": said}, status, headers)
        return self._html(request, status, headers, error=said)

    def _html(self, request: Request, status: int, headers: Any = None, **shown: Any) -> Response:
        given = request.query_params
        answer = shown.get("answer")
        context = {"answer": None, "person": None, "notes": [], "error": None, **self._always, **shown}
        form = {name: given.get(name, "")[: demo_request.QUERY_CHARACTERS] for name in demo_request.FIELDS}
        form["k"] = form["k"] if form["k"].isascii() and form["k"].isdigit() else str(demo_request.DEFAULT_RESULTS)
        text = self._template.render(**context, form=form, largest=_largest(answer) if answer else {})
        return HTMLResponse(text, status, headers)


def _largest(answer: dict[str, Any]) -> dict[str, float]:
    """By head, the largest probability on the page: what a full bar stands for."""
    results = [one for results in answer["lists"].values() for one in results]
    heads = results[0]["heads"] if results else {}
    return {head: max(1e-9, *(one["heads"][head] for one in results)) for head in heads}


async def _body(request: Request) -> bytes:
    """At most BODY_BYTES; HTTPException 413 for more, 408 or 400 where it does not come, 503 where the server ends."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > DISCARDED_BYTES:
                    break
                if size <= demo_request.BODY_BYTES:
                    parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_S} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body did not arrive whole") from None
    except asyncio.CancelledError:  # the server has waited long enough for it
        raise HTTPException(503, "the demo ends") from None
    if size > demo_request.BODY_BYTES:
        raise HTTPException(413, f"the body is too large: at most {demo_request.BODY_BYTES:,} bytes are read")
    return b"".join(parts)


def _with_headers(app: ASGIApp) -> ASGIApp:
    """The same application with HEADERS on every response, errors included."""
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await app(scope, receive, sent)

    return wrapped


def application(answers: Answers, name: str) -> ASGIApp:
    """Over finished systems; `name` stands in the title."""
    pages = Pages(answers, name)
    app = Starlette(
        routes=[
            Route("/", pages.page),
            Route("/api/search", pages.api, methods=["POST"]),
            Route("/static/{name}", pages.static),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={HTTPException: pages.error, Pr2Error: pages.error, Exception: pages.error},
    )
    app.router.redirect_slashes = False
    return _with_headers(app)
