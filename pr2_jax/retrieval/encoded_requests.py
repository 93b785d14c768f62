"""A batch of requests with what the models make of it, each part computed once and taken by everybody who needs it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np

from pr2_jax.encoders.content_encoder import ContentEncoder
from pr2_jax.encoders.preference_encoder import PreferenceEncoder
from pr2_jax.encoders.preference_regression import Fits
from pr2_jax.retrieval.qrcf import SeedFilter, Seeds
from pr2_jax.types import Candidates, People, Requests


class Encoders(Protocol):
    """What turns a request into vectors: a `System`, or what stands in for it among training rows."""

    space: ContentEncoder
    preference: PreferenceEncoder
    seeds: SeedFilter


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRequests:
    """B requests. A part that nobody asks for is never computed: `base` has no seeds."""

    requests: Requests
    encoders: Encoders

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, rows: np.ndarray) -> EncodedRequests:
        """Some of them; all of them are this object.

        Fewer are encoded anew: the last bit of a matrix product depends on how many rows are multiplied at once.
        """
        return self if len(rows) == len(self) else EncodedRequests(self.requests.take(rows), self.encoders)

    @functools.cached_property
    def query_BxD(self) -> np.ndarray:
        """Content vectors of the queries; zero where no word is known."""
        return self.encoders.space.queries(self.requests.words_BxQ)

    @functools.cached_property
    def people(self) -> People:
        """The people in the preference space, as they were known just before their requests."""
        return self.encoders.preference.people(self.requests.user_B, self.requests.time_ms_B)

    @functools.cached_property
    def fits(self) -> Fits:
        """Their own regressions in that space."""
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
    """The one contract of every retrieval channel."""

    name: str

    def retrieve(self, encoded: EncodedRequests, k: int) -> Candidates:
        """Returns the k best unseen videos of the catalogue for each request. Row 0 is never returned."""
        ...
