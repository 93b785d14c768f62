"""Encoded requests: query vectors, people and seeds of a batch of requests, each computed once, on first use."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np

from pr2_jax.encoders.preference_regression import Fits
from pr2_jax.encoders.space_encoders import ContentEncoder, PreferenceEncoder
from pr2_jax.retrieval.qrcf import SeedFilter, Seeds
from pr2_jax.types import Candidates, People, Requests


class Encoders(Protocol):
    """Frozen encoders of a `System`, or of a fold of cross-fitting."""

    space: ContentEncoder
    preference: PreferenceEncoder
    seeds: SeedFilter


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRequests:
    """B requests and their encodings. Unused ones are never computed: pipeline `base` has no seeds."""

    requests: Requests
    encoders: Encoders

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, rows: np.ndarray) -> EncodedRequests:
        """Some of the requests, encoded anew; the object itself where they are all.

        Rows of the encodings would not do: the last bit of a matrix product depends on the number of its rows.
        """
        return self if len(rows) == len(self) else EncodedRequests(self.requests.take(rows), self.encoders)

    @functools.cached_property
    def query_BxD(self) -> np.ndarray:
        """Content vectors of the queries; zero without a known word."""
        return self.encoders.space.queries(self.requests.words_BxQ)

    @functools.cached_property
    def people(self) -> People:
        """The people's preference embeddings just before their requests."""
        return self.encoders.preference.people(self.requests.user_B, self.requests.time_ms_B)

    @functools.cached_property
    def fits(self) -> Fits:
        """The people's preference regressions just before their requests."""
        return self.encoders.preference.fit.people(self.requests.user_B, self.requests.time_ms_B)

    @property
    def seeds(self) -> Seeds:
        """Their query-relevant past views."""
        return self._seeds[0]

    @property
    def latest(self) -> Seeds:
        """Their latest past views, whatever the query."""
        return self._seeds[1]

    @functools.cached_property
    def _seeds(self) -> tuple[Seeds, Seeds]:
        filtered, mine = self.encoders.seeds, self.encoders.space
        return filtered.both(self.requests, self.query_BxD if filtered.space is mine else None)


class Channel(Protocol):
    """A retrieval channel."""

    name: str

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        """The k best unseen videos of the catalogue for each request, never row 0."""
