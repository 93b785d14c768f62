"""Side-by-side comparison of two pipelines on one search: their results with captions and reasons."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pr2_jax.data.columns import SEARCH_SURFACE
from pr2_jax.data.history.histories import latest
from pr2_jax.data.schema import DAY_MS
from pr2_jax.search.engine import Result, SearchEngine, Word
from pr2_jax.search.pipelines import COMPARED
from pr2_jax.search.system import open_system

CAPTION_WORDS = 12


@dataclasses.dataclass(frozen=True)
class Past:
    """A past event of the person."""

    video_id: int  # raw
    caption: str
    days_ago: float  # before the search
    searched: bool  # a clicked search result, not a feed view
    engaged: bool  # clicked, liked, followed or forwarded


@dataclasses.dataclass(frozen=True)
class Shown:
    """A result of one of the pipelines."""

    result: Result
    caption: str
    because: tuple[tuple[str, float], ...]  # captions of the past events that led to it, and their shares
    elsewhere: tuple[int | None, ...]  # its places in the other pipelines' results, from 1; None = not among them


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One search by several pipelines."""

    user: int | None  # raw
    query: str
    known_user: bool
    words: tuple[Word, ...]
    unknown_words: tuple[str, ...]
    past: tuple[Past, ...]  # latest first
    lists: dict[str, tuple[Shown, ...]]  # by pipeline, best first


class SideBySide:
    """Several pipelines over one work directory or serving artifact."""

    def __init__(self, engines: dict[str, SearchEngine]) -> None:
        self.engines = engines
        self.system = next(iter(engines.values())).system

    @classmethod
    def load(cls, place: Path | str, names: Sequence[str] = COMPARED) -> SideBySide:
        """As `SearchEngine.load`."""
        system = open_system(Path(place))
        return cls({name: SearchEngine(system, name) for name in names})

    def search(self, user: int | None, query: str, k: int = 10, past: int = 12, depth: int = 0) -> Comparison:
        """The k best of each pipeline, and the person's last `past` events.

        `Shown.elsewhere` looks at max(k, depth) results of the other pipelines.
        """
        found = {name: engine.search(user, query, max(k, depth)) for name, engine in self.engines.items()}
        places = {name: {r.video_id: n for n, r in enumerate(f.results, 1)} for name, f in found.items()}

        def shown(name: str, result: Result) -> Shown:
            because = tuple((self.caption(one.video_id), one.share) for one in result.because)
            others = tuple(places[other].get(result.video_id) for other in places if other != name)
            return Shown(result, self.caption(result.video_id), because, others)

        one = next(iter(found.values()))
        lists = {name: tuple(shown(name, result) for result in f.results[:k]) for name, f in found.items()}
        return Comparison(user, query, one.known_user, one.words, one.unknown_words, self.past(user, past), lists)

    def past(self, user: int | None, most: int) -> tuple[Past, ...]:
        """The last events of a person, latest first; none of an unknown user."""
        store, now_ms = self.system.store, next(iter(self.engines.values())).now_ms
        row = 0 if user is None else store.user_row(user)
        (first,), (end,) = latest(store, np.array([row]), np.array([now_ms]), most)
        events, raw = store.events, store.videos.raw_id
        engaged = self.system.log.reader.signals(np.arange(first, end), np.int64(now_ms))[:, :4].any(1)
        return tuple(
            Past(
                video_id := int(raw[events.video[at]]),
                self.caption(video_id),
                (now_ms - int(events.time_ms[at])) / DAY_MS,
                bool(events.surface[at] == SEARCH_SURFACE),
                bool(engaged[at - first]),
            )
            for at in range(int(end) - 1, int(first) - 1, -1)
        )

    def caption(self, video_id: int) -> str:
        return self.system.store.caption(video_id, CAPTION_WORDS)
