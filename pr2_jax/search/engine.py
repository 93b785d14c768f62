"""The search API in Python: `SearchEngine.load(place).search(user, query, k)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.history.histories import seen
from pr2_jax.data.history.video_attributes import padded_words
from pr2_jax.errors import BadInput
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.search.searcher import Ranked, Searcher
from pr2_jax.search.system import System, open_system
from pr2_jax.types import Requests


@dataclasses.dataclass(frozen=True)
class Because:
    """A past event that led to a result."""

    video_id: int  # raw
    share: float  # of the result's item-to-item score


@dataclasses.dataclass(frozen=True)
class Result:
    """One ranked video."""

    video_id: int  # raw
    score: float  # fused, comparable within one search only
    relevance: float  # merged retrieval score, 1 = the search's best
    heads: dict[str, float]  # calibrated probabilities of learned heads
    channels: dict[str, float]  # normalised scores of the channels that found it
    because: tuple[Because, ...]  # strongest first
    clicked_before: bool = False  # by the person; False for all where such videos are withheld


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of a query, as the log has it, or as typed if the log does not know it."""

    text: str
    known: bool


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The results of a search, and its query and user as understood."""

    results: tuple[Result, ...]  # best first
    known_user: bool
    words: tuple[Word, ...]  # in the order of the query
    unknown_words: tuple[str, ...]


class SearchEngine:
    """Serves searches as of the end of the last search day of the log."""

    def __init__(self, system: System, name: str = "pr2") -> None:
        self.system, self.now_ms = system, system.store.cuts.end_ms
        self.searcher = Searcher.open(system, system.fitted.snapshot(self.now_ms), name)

    @classmethod
    def load(cls, place: Path | str, config: Config | None = None, name: str = "pr2") -> SearchEngine:
        """Opens a finished work directory or a serving artifact. StaleArtifact: as `open_system`."""
        return cls(open_system(Path(place), config), name)

    def search(self, user: int | None, query: str | Sequence[int | str], k: int = 10) -> SearchResults:
        """The k best videos for a raw user id (None or unknown: no person) and a text, or a list of words and word ids.

        Without a known word results follow the person's preference, without a past relevance, without both popularity.
        Videos clicked before are marked, or left out (`search.clicked`).
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise BadInput(f"k = {k!r}, expected a whole number above 0")
        if user is not None and not _is_id(user):
            raise BadInput(f"user = {user!r}, expected a raw user id (a whole number) or None")
        store = self.system.store
        found = store.understood(query if isinstance(query, str) else _words(query))
        row = 0 if user is None else store.user_row(user)
        rows_Q = np.array([match.row for match in found], np.int32)
        words = tuple(Word(match.text, match.known) for match in found)
        unknown = tuple(word.text for word in words if not word.known)
        encoded = self.encode(np.array([row], np.int32), [rows_Q])
        ranked = self.rank(encoded, k)
        return SearchResults(tuple(self._results(encoded, ranked, k)), row > 0, words, unknown)

    def encode(self, user_B: np.ndarray, words: Sequence[np.ndarray]) -> EncodedRequests:
        """Requests as of `now_ms`, from user rows and ragged word rows."""
        system = self.system
        words_BxQ = padded_words(words, system.config.data)
        query_B = np.array([system.store.query_of_words.get(given.tobytes(), 0) for given in words], np.int32)
        time_ms_B = np.full(len(user_B), self.now_ms, np.int64)
        return system.encode(Requests(user_B, time_ms_B, words_BxQ, system.withheld(user_B, time_ms_B), query_B))

    def rank(self, encoded: EncodedRequests, k: int) -> Ranked:
        """Retrieves and ranks; at least k results where the catalogue has them."""
        depth = max(k, self.system.config.search.candidates)
        merged = self.searcher.candidates(encoded, self.searcher.retrieve(encoded), depth)
        return self.searcher.rank(encoded, merged)

    def _results(self, encoded: EncodedRequests, ranked: Ranked, k: int) -> list[Result]:
        ids_K = ranked.ids_BxK[0][ranked.ids_BxK[0] > 0][:k]
        raw = np.asarray(self.system.store.videos.raw_id)[ids_K]
        because = self._because(encoded, ids_K)
        r = encoded.requests
        before_K = np.isin(ids_K, (r.seen or seen(self.system.store, r.user_B, r.time_ms_B))[0])

        def result(n: int) -> Result:
            heads = zip(ranked.heads, ranked.probabilities_BxKxT[0, n].tolist(), strict=True)
            found = zip(ranked.channels, ranked.sources_BxKxC[0, n].tolist(), ranked.found_BxKxC[0, n], strict=True)
            return Result(
                video_id=int(raw[n]),
                score=float(ranked.scores_BxK[0, n]),
                relevance=float(ranked.relevance_BxK[0, n]),
                heads={head: p for head, p in heads if np.isfinite(p)},
                channels={name: score for name, score, by in found if by},
                because=because[n],
                clicked_before=bool(before_K[n]),
            )

        return [result(n) for n in range(len(ids_K))]

    def _because(self, encoded: EncodedRequests, ids_K: np.ndarray, most: int = 3) -> list[tuple[Because, ...]]:
        """The QRCF seeds that reach each video, strongest first; none in an impersonal pipeline."""
        if self.searcher.pipeline.impersonal or not len(ids_K):
            return [()] * len(ids_K)
        seeds, similarity = encoded.seeds, self.searcher.snapshot.similarity
        kept = seeds.strength_BxK[0] > 0
        video_S, strength_S = seeds.video_BxK[0][kept], seeds.strength_BxK[0][kept]
        neighbour_SxM = np.asarray(similarity.neighbour_VxM[video_S])
        weight_SxM = np.asarray(similarity.weight_VxM[video_S])
        raw = np.asarray(self.system.store.videos.raw_id)
        order_K = np.argsort(ids_K)
        place_SxM = order_K[np.searchsorted(ids_K, neighbour_SxM, sorter=order_K) % len(ids_K)]
        seed_N, column_N = np.nonzero(ids_K[place_SxM] == neighbour_SxM)
        part_KxS = np.zeros((len(ids_K), len(video_S)), np.float32)
        at_N = place_SxM[seed_N, column_N], seed_N
        np.add.at(part_KxS, at_N, strength_S[seed_N] * weight_SxM[seed_N, column_N])
        out = []
        for part_S in part_KxS:
            best = np.argsort(-part_S, kind="stable")[:most]
            total = max(float(part_S.sum()), 1e-9)
            out.append(tuple(Because(int(raw[video_S[s]]), float(part_S[s] / total)) for s in best if part_S[s] > 0))
        return out


def _is_id(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _words(query: Sequence[int | str]) -> list[int | str]:
    """BadInput where something is neither a word nor a word id."""
    if not isinstance(query, Sequence | np.ndarray) or isinstance(query, bytes):
        raise BadInput(f"query = {query!r}, expected a text, or a list of words and raw word ids")
    for word in query:
        if not isinstance(word, str) and not _is_id(word):
            raise BadInput(f"query has {word!r}, expected a word or a raw word id (a whole number)")
    return list(query)
