"""Cuts of the log into training, validation and test, and periods of the training time for the folds of cross-fitting.

Periods are numbered from the validation cut backwards. Only periods that hold data have numbers of their own.
Otherwise a log of every second day would put all of its days into one fold, and the models that may not see that fold
would see nothing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from pr2_jax.data.columns import Cuts
from pr2_jax.data.schema import DAY_MS

if TYPE_CHECKING:
    import polars as pl

FOLDS = 2
"""Shares of the training days for cross-fitting of what is trained by gradients."""


@dataclasses.dataclass(frozen=True)
class Periods:
    """P lengths of training time up to `end_ms`, the end of the last training day that holds data."""

    end_ms: int
    length_ms: int
    number_P: np.ndarray  # int64, ascending, -1 = the last that holds data; one without data has the next one's number

    @staticmethod
    def of(cuts: Cuts, *time_ms: np.ndarray) -> Periods:
        """Of data at these times. A period is a day; data of fewer days than folds is cut into as many equal parts."""
        times = [np.asarray(each)[np.asarray(each) < cuts.validation_ms] for each in time_ms]
        times = [each for each in times if len(each)]
        first_ms = min((int(each.min()) for each in times), default=cuts.start_ms)
        last_ms = max((int(each.max()) for each in times), default=cuts.validation_ms - 1)
        day_of_first_ms = cuts.validation_ms + (first_ms - cuts.validation_ms) // DAY_MS * DAY_MS
        start_ms = max(cuts.start_ms, day_of_first_ms)  # what came before is not kept (a result of another type, say)
        end_ms = cuts.validation_ms + ((last_ms - cuts.validation_ms) // DAY_MS + 1) * DAY_MS
        length_ms = max(1, min(DAY_MS, -(-(end_ms - start_ms) // FOLDS)))
        count = max(1, -(-(end_ms - min(start_ms, first_ms)) // length_ms))
        held_P = np.zeros(count, bool)
        for each in times:
            held_P |= np.bincount(count + (each - end_ms) // length_ms, minlength=count) > 0
        return Periods(end_ms, length_ms, -np.maximum(np.cumsum(held_P[::-1])[::-1], 1))

    def __call__(self, time_ms_N: np.ndarray) -> np.ndarray:
        """Number of the period of each time. Numbers go on before the first data and from the end on (0, 1, ...)."""
        place_N = (np.asarray(time_ms_N) - self.end_ms) // self.length_ms + len(self.number_P)
        inside_N = np.clip(place_N, 0, len(self.number_P) - 1)
        return self.number_P[inside_N] + place_N - inside_N


def cuts_of(search: pl.DataFrame, start_ms: int, end_ms: int) -> Cuts:
    """Of search rows with `time_ms` and `clicks`. The test day is the last of the log.

    The validation window begins with the latest whole day before it on which a result was clicked: nothing can be
    chosen on a day without. Where that is not the day before, the rest of the window is the hole between the two.
    """
    test_ms = end_ms - DAY_MS
    last_ms = search.filter((search["clicks"] > 0) & (search["time_ms"] < test_ms))["time_ms"].max()
    days = 1 if last_ms is None else (test_ms - 1 - last_ms) // DAY_MS + 1
    return Cuts(start_ms, test_ms - days * DAY_MS, test_ms, end_ms)
