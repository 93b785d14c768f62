"""The three windows of a log with holes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.batches.sessions import FOLDS, fold_of, training_sessions
from pr2_jax.data.batches.slates import feed_slates
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.periods import cuts_of
from pr2_jax.data.store.log_store import LogStore

DAY_MS = 86_400_000
END_MS = 20_000 * DAY_MS


def _searches(days_before_end: list[float], clicks: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"time_ms": [int(END_MS - day * DAY_MS) for day in days_before_end], "clicks": clicks})


@pytest.mark.parametrize(
    ("days_before_end", "clicks", "want"),
    [
        ([5, 1.5, 0.5], [1, 1, 1], 1),  # no hole
        ([5, 2, 1.000001, 0.5], [1, 1, 1, 1], 1),
        ([5, 2, 0.5], [1, 1, 1], 1),  # the window's first moment
        ([5, 2.000001, 0.5], [1, 1, 1], 2),
        ([5, 2.5, 1.5, 0.5], [1, 1, 0, 1], 2),  # nobody clicks the day before
        ([60, 40.5, 0.5], [1, 1, 1], 40),  # weeks
        ([5, 1.5, 0.5], [0, 0, 1], 1),  # refused elsewhere
    ],
)
def test_the_validation_window_begins_with_a_day_that_has_clicks(days_before_end, clicks, want):
    cuts = cuts_of(_searches(days_before_end, clicks), END_MS - 90 * DAY_MS, END_MS)
    assert (cuts.test_ms, cuts.end_ms) == (END_MS - DAY_MS, END_MS)
    assert cuts.validation_ms == cuts.test_ms - want * DAY_MS


def _spread(tiny, days: tuple[int, int, int, int]) -> None:
    """Puts the four days of the log that many days before the last."""
    for table, name in (("src_inter", "search_session_timestamp"), ("rec_inter", "timestamp")):
        times = np.array([int(float(cell)) for cell in tiny.column(table, name)])
        if table == "src_inter":
            end = int(times.max()) + 1
        number = np.clip(3 - (end - 1 - times) // DAY_MS, 0, 3)
        back = np.array([days[n] - (3 - n) for n in number])
        tiny.put_all(table, name, [str(time) for time in times - back * DAY_MS])


@pytest.mark.parametrize("days", [(30, 20, 10, 0), (6, 4, 2, 0), (4, 3, 2, 0)])
def test_a_log_with_holes_of_any_length_is_taken(days, tiny, tmp_path):
    _spread(tiny, days)
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    cuts, time_ms = store.cuts, np.asarray(store.sessions.time_ms)
    assert (cuts.test_ms - cuts.validation_ms) // DAY_MS == days[2] - days[3]
    held = time_ms[(time_ms >= cuts.validation_ms) & (time_ms < cuts.test_ms)]
    assert len(held)
    assert held.max() < cuts.validation_ms + DAY_MS  # a day, then the hole
    training = training_sessions(store)
    assert len(training)
    assert np.unique(fold_of(store, time_ms[training])).tolist() == list(range(FOLDS))
    slates = feed_slates(EventReader(store, LongPlay.fit(store, cuts.validation_ms, DataConfig())), 0, cuts.end_ms, 50)
    real = slates.impression_NxS >= 0
    times = np.asarray(store.events.time_ms)[np.maximum(slates.impression_NxS, 0)]
    span = np.where(real, times, times[:, :1]).max(1) - times[:, 0]
    assert (span < DAY_MS).all()
