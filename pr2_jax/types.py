"""Dimension letters and the small records that rooms hand to each other.

Arrays carry their shape as a suffix (`history_BxHxD`). The letters, everywhere:

    B  requests or rows of a batch      Q  query tokens           C  caption tokens
    H  long history                     R  real-time history      K  kept or returned
    D  width                            V  videos (rows)          U  users (rows)
    S  results of a slate               T  heads of a model       N  negatives
    Y  labels of the log (LABELS)
    E  events of the log                L  category levels        P  profile fields
    F  width of brought content vectors M  neighbours a video

Row 0 of every vocabulary (users, videos, words, authors, categories, queries) is *unknown*; real rows start at 1.
Times are milliseconds since 1970 in int64 NumPy arrays and never enter a jitted function as such (64-bit integers are
off in JAX); models see log-scaled gaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

NO_VIDEO = -1
"""Pads the ids of `Candidates` where a channel found fewer than k."""

NEVER = -1e9
"""Logit of a masked slot. Finite, so that a row of nothing but padding yields numbers, not NaN."""

Batch = Mapping[str, Any]
"""Arrays by name, each name ending in the array's shape."""


@dataclasses.dataclass(frozen=True)
class ModelFunction:
    """A part of a trained model: a jitted program and the arrays that it reads (parameters, tables, the catalogue).

    Where the program came from, from the model's code or from a serving artifact, is not its caller's business.
    """

    program: Callable[[Mapping[str, Any], Batch], Any]
    weights: Mapping[str, Any]  # nested dictionaries of arrays
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the schema of its batches, where known

    def __call__(self, batch: Batch) -> Any:
        """An array, or a tuple of them."""
        return self.program(self.weights, batch)


Functions = Mapping[str, ModelFunction]
"""By name: `content_query`, `pdr_video`, `qin`, ... (models/model_functions.py has them all)."""


class Models(Protocol):
    """Trained models, of a work directory (search/trained_models.py) or of a serving artifact
    (export/serving_artifact.py)."""

    def functions(self, model: str, directory: Path) -> Functions:
        """Of `content`, `preference`, `pdr`, `qin` or `base`; `directory` holds its parameters in a work directory."""
        ...


class People(NamedTuple):
    """What a model with no attention keeps of N pasts."""

    preference_NxD: Any  # mean of what each event says
    habit_NxG: Any  # mean signals
    events_N: Any  # how many there were


@dataclasses.dataclass(frozen=True)
class Requests:
    """B searches. `seen` lists, for each, the video rows that must not be returned."""

    user_B: np.ndarray  # int32 user rows, 0 = unknown
    time_ms_B: np.ndarray  # int64; only events strictly before this may be looked at
    words_BxQ: np.ndarray  # int32 word rows, 0 = padding or unknown word
    seen: tuple[np.ndarray, ...] = ()  # B sorted int32 arrays, or () for no exclusion
    query_B: np.ndarray | None = None  # query rows; 0, or no array: a query that the log does not know

    def __post_init__(self) -> None:
        if self.query_B is None:
            object.__setattr__(self, "query_B", np.zeros(len(self.user_B), np.int32))

    def __len__(self) -> int:
        return len(self.user_B)

    def slice(self, start: int, stop: int) -> Requests:
        return self._rows(slice(start, stop), self.seen[start:stop])

    def take(self, rows: np.ndarray) -> Requests:
        return self._rows(rows, tuple(self.seen[row] for row in rows) if self.seen else ())

    def _rows(self, rows: slice | np.ndarray, seen: tuple[np.ndarray, ...]) -> Requests:
        return Requests(self.user_B[rows], self.time_ms_B[rows], self.words_BxQ[rows], seen, self.query_B[rows])


@dataclasses.dataclass(frozen=True)
class Candidates:
    """Best first. Fewer than K results are padded with id -1 and score -inf."""

    ids_BxK: np.ndarray  # int32 video rows
    scores_BxK: np.ndarray  # float32, descending
