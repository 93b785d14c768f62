"""Parses a search request from a form or from JSON and refuses an invalid one in one line."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.exceptions import HTTPException

from pr2_jax.search.requests_file import whole_number

QUERY_CHARACTERS = 200
MOST_RESULTS = 50
DEFAULT_RESULTS = 10
BODY_BYTES = 16 * 1024

FIELDS = ("user", "query", "k")


@dataclasses.dataclass(frozen=True)
class DemoRequest:
    """One search."""

    user: int | None  # raw; None = nobody in particular
    query: str
    k: int


def from_form(given: Mapping[str, str]) -> DemoRequest:
    """Of a URL's `user`, `query` and `k`, each of which may be missing. HTTPException 400 says what cannot be used."""
    text = given.get("user", "").strip()
    user = whole_number(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None
    if text and user is None:
        raise HTTPException(400, f"person: {short(text)} is not a raw user id (a whole number of 64 bits)")
    k = given.get("k", "").strip() or str(DEFAULT_RESULTS)
    if not re.fullmatch(r"[0-9]{1,9}", k):
        raise HTTPException(400, f"k: {short(k)} is not a whole number from 1 to {MOST_RESULTS}")
    return _within_limits(DemoRequest(user, given.get("query", ""), int(k)))


def from_json(body: bytes) -> DemoRequest:
    """Of `{"user": 12, "query": "...", "k": 10}`; without `user`, or with null, nobody in particular asks.

    HTTPException says what cannot be used: 400 for what is no JSON or beyond a limit, 422 for a wrong field or type.
    """
    try:
        given = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):  # also of what is not UTF-8, and of a number with thousands of digits
        raise HTTPException(400, 'the body is not JSON; expected {"user": 12, "query": "...", "k": 10}') from None
    if not isinstance(given, dict):
        raise HTTPException(422, 'the body is not an object; expected {"user": 12, "query": "...", "k": 10}')
    if unknown := [name for name in given if name not in FIELDS]:
        raise HTTPException(422, f"unknown field {short(unknown[0])}; expected {', '.join(FIELDS)}")
    user, query, k = given.get("user"), given.get("query"), given.get("k", DEFAULT_RESULTS)
    if user is not None and (type(user) is not int or whole_number(user) is None):
        raise HTTPException(422, f"user: {short(user)} is not a raw user id (a whole number of 64 bits) or null")
    if not isinstance(query, str) or not _is_text(query):
        raise HTTPException(422, f"query: {short(query) if 'query' in given else 'nothing'} is not a text")
    if type(k) is not int:
        raise HTTPException(422, f"k: {short(k)} is not a whole number from 1 to {MOST_RESULTS}")
    return _within_limits(DemoRequest(user, query, k))


def _within_limits(asked: DemoRequest) -> DemoRequest:
    if len(asked.query) > QUERY_CHARACTERS:
        raise HTTPException(400, f"query: {len(asked.query):,} characters, at most {QUERY_CHARACTERS} are read")
    if not 1 <= asked.k <= MOST_RESULTS:
        raise HTTPException(400, f"k: {short(asked.k)}, expected 1 to {MOST_RESULTS}")
    return asked


def short(value: Any) -> str:
    """Of what was given, enough to recognise it."""
    text = ascii(value) if not isinstance(value, str) or not _is_text(value) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_text(text: str) -> bool:
    """Half of a surrogate pair, which JSON can spell, cannot be sent back."""
    return not re.search("[\ud800-\udfff]", text)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
