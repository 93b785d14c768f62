"""`pr2 search`: prints one search as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pr2_jax import console
from pr2_jax.errors import BadInput
from pr2_jax.search.engine import Result, SearchEngine, SearchResults, Word
from pr2_jax.search.requests_file import whole_number

PIPE_WIDTH = 160
"""Width of the table if the output is no terminal."""


def print_search(place: Path, user: str, query: str, k: int, as_json: bool) -> None:
    """Prints the k best videos of one search."""
    raw_user = whole_number(user)
    if raw_user is None:
        raise BadInput(f"--user {user!r}: a raw user id (a whole number) was expected")
    engine = SearchEngine.load(place)
    found = engine.search(raw_user, query, k)
    if not found.known_user:
        console.log(f"user {raw_user} is not in the log: results without a person's past")
    if said := _without_words(query, found):
        console.log(f"{said}: results by preference alone")
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        print(f"query     {understood(found.words)}")
        _print_table(engine, found)


def understood(words: Sequence[Word]) -> str:
    """A line with the known words, then the unknown ones."""
    known = " · ".join(word.text for word in words if word.known)
    unknown = ", ".join(word.text for word in words if not word.known)
    return (known or "(no known word)") + (f"  (unknown: {unknown})" if unknown else "")


def _without_words(query: str, found: SearchResults) -> str:
    """Why the query has no known word; "" if it has one."""
    if not query.strip():
        return "the query is empty"
    if not found.words:
        return "the query has no word, only signs"
    return "" if any(word.known for word in found.words) else "no word of the query is in the log"


def _print_table(engine: SearchEngine, found: SearchResults) -> None:
    out = Console() if Console().is_terminal else Console(width=PIPE_WIDTH)
    table = Table(box=None, pad_edge=False)
    heads = tuple(found.results[0].heads) if found.results else ()
    again = ["clicked before"] * any(result.clicked_before for result in found.results)
    for name in ("#", "video", "caption", "score", *heads, "found by", "because you watched", *again):
        number = name in ("#", "video", "score", *heads)
        table.add_column(name, justify="right" if number else "left", no_wrap=number)
    for place, result in enumerate(found.results, 1):
        table.add_row(*_cells(engine, place, result), *("yes" * result.clicked_before for _ in again))
    out.print(table)


def _cells(engine: SearchEngine, place: int, result: Result) -> list[str]:
    channels = " ".join(f"{name} {score:.2f}" for name, score in result.channels.items()) or "popularity"
    because = "; ".join(engine.system.store.caption(seed.video_id, 3) for seed in result.because)
    heads = [f"{p:.3f}" for p in result.heads.values()]
    caption = engine.system.store.caption(result.video_id, 6)
    return [str(place), str(result.video_id), caption, f"{result.score:.3f}", *heads, channels, because]
