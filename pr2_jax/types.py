"""Dimension letters and the small records that rooms hand to each other.

Arrays carry their shape as a suffix (`history_BxHxD`). The letters, everywhere:

    B  requests or rows of a batch      Q  query tokens           C  caption tokens
    H  long history                     R  real-time history      K  kept or returned
    D  width                            V  videos (rows)          U  users (rows)
    S  results of a slate               T  tasks (heads)          N  negatives
    E  events of the log                L  category levels        P  profile fields
    F  width of brought content vectors M  neighbours a video

Row 0 of every vocabulary (users, videos, words, authors, categories, queries) is *unknown*; real rows start at 1.
Times are milliseconds since 1970 in int64 NumPy arrays and never enter a jitted function as such (64-bit integers are
off in JAX); models see log-scaled gaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

NO_VIDEO = -1
"""Pads the ids of `Candidates` where a channel found fewer than k."""

NEVER = -1e9
"""Logit of a masked slot. Finite, so that a row of nothing but padding yields numbers, not NaN."""

TASKS = ("click", "long_play", "like")
"""Heads of the ranker and feedback losses of the dual encoder, in this order."""


Batch = Mapping[str, Any]
"""Arrays by name, each name ending in the array's shape."""


@dataclasses.dataclass(frozen=True)
class ModelFunction:
    """A part of a trained model: a jitted program and the arrays that it reads (parameters, tables, the catalogue).

    Where the program came from, from the model's code or from a serving artifact, is not its caller's business.
    """

    program: Callable[[Mapping[str, Any], Batch], Any]
    weights: Mapping[str, Any]  # nested dictionaries of arrays

    def __call__(self, batch: Batch) -> Any:
        """An array, or a tuple of them."""
        return self.program(self.weights, batch)


Functions = Mapping[str, ModelFunction]
"""By name: `content_query`, `pdr_video`, `qin`, ... (models/model_functions.py has them all)."""


class People(NamedTuple):
    """What a model with no attention keeps of N pasts."""

    preference_NxD: Any  # mean of what each event says
    habit_NxG: Any  # mean signals
    events_N: Any  # how many there were


@dataclasses.dataclass(frozen=True)
class Requests:
    """B searches. `seen` lists, for each, the video rows that must not be returned (`System.withheld`)."""

    user_B: np.ndarray  # int32 user rows, 0 = unknown
    time_ms_B: np.ndarray  # int64; only events strictly before this may be looked at
    words_BxQ: np.ndarray  # int32 word rows, 0 = padding or unknown word
    seen: tuple[np.ndarray, ...] = ()  # B sorted int32 arrays, or () for no exclusion

    def __len__(self) -> int:
        return len(self.user_B)

    def slice(self, start: int, stop: int) -> Requests:
        return Requests(
            self.user_B[start:stop], self.time_ms_B[start:stop], self.words_BxQ[start:stop], self.seen[start:stop]
        )

    def take(self, rows: np.ndarray) -> Requests:
        seen = tuple(self.seen[row] for row in rows) if self.seen else ()
        return Requests(self.user_B[rows], self.time_ms_B[rows], self.words_BxQ[rows], seen)


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Best first. Fewer than K results are padded with id -1 and score -inf."""

    ids_BxK: np.ndarray  # int32 video rows
    scores_BxK: np.ndarray  # float32, descending


class Channel(Protocol):
    """The one contract of every retrieval channel."""

    name: str

    def retrieve(self, requests: Requests, k: int) -> Candidates:
        """Returns the k best unseen videos of the catalogue for each request. Row 0 is never returned."""
        ...
