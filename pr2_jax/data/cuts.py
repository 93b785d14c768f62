"""Where training ends, the validation day begins and the test day begins."""

from __future__ import annotations

import polars as pl

from pr2_jax.data.columns import Cuts
from pr2_jax.data.schema import DAY_MS


def cuts_of(search: pl.DataFrame, start_ms: int, end_ms: int) -> Cuts:
    """Of search rows with `time_ms` and `clicks`. The test day is the last of the log.

    The validation window begins with the latest whole day before it on which a result was clicked: nothing can be
    chosen on a day without. Where that is not the day before, the rest of the window is the hole between the two.
    """
    test_ms = end_ms - DAY_MS
    last_ms = search.filter((pl.col("clicks") > 0) & (pl.col("time_ms") < test_ms))["time_ms"].max()
    days = 1 if last_ms is None else (test_ms - 1 - last_ms) // DAY_MS + 1
    return Cuts(start_ms, test_ms - days * DAY_MS, test_ms, end_ms)
