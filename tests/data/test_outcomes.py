"""When views begin and are known, by numbers worked by hand; what is missing is unknown."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import CLICK, LIKE, NEVER_MS, PLAY
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.outcomes import LONGEST_MS, clicked_ms, ordered, result_known_ms, searched, timed, times
from pr2_jax.data.store.log_store import LogStore

FLAGS = ("click", "like", "follow", "forward")


def feed(*rows: tuple) -> pl.DataFrame:
    """(user, batch, playing time, duration, then click, like, follow, forward as 1, 0 or None)."""
    columns = list(zip(*rows, strict=True))
    flags = {
        n: pl.Series([None if x is None else bool(x) for x in columns[4 + k]], dtype=pl.Boolean)
        for k, n in enumerate(FLAGS)
    }
    numbers = dict(zip(("user", "time_ms", "play_ms", "duration_ms"), columns[:4], strict=True))
    numbers = {name: pl.Series(list(x), dtype=pl.Int64) for name, x in numbers.items()}
    return pl.DataFrame({**numbers, "video": range(len(rows)), **flags})


def test_a_batch_by_hand():
    """Ten are handed out at 1,000; somebody else's in between; a batch handed out while one is watched."""
    got = timed(
        feed(
            (7, 1_000, 30, 40, 1, 0, 0, 0),
            (7, 1_000, 0, 50, 0, 0, 0, 0),  # skipped at once
            (8, 1_000, 5, 50, 1, 0, 0, 0),
            (7, 1_000, None, 60, 1, 1, 0, 0),  # no playing time: the duration
            (7, 1_000, None, None, 1, None, None, None),  # nor a duration: nothing
            (7, 1_000, 90, None, 0, 0, 0, 1),  # a duration is missing
            (7, 1_000, None, 25, None, None, None, None),  # nothing is told
            (7, 1_050, 10, 20, 0, 0, 0, 0),
            (7, 1_000, 15, 0, None, 0, None, 0),  # 0 = unknown
        )
    )
    assert got["time_ms"].to_list() == [1_000, 1_030, 1_000, 1_030, 1_090, 1_090, 1_180, 1_050, 1_205]
    assert got["known_ms"].to_list() == [1_030, 1_030, 1_005, 1_090, 1_090, 1_180, NEVER_MS, 1_060, 1_220]
    assert got["told"].to_list() == [31, 31, 31, 30, 2, 30, 0, 31, 20]
    assert got["play_ms"].to_list() == [30, 0, 5, 0, 0, 90, 0, 10, 15]
    assert got["duration_ms"].to_list() == [40, 50, 50, 60, 0, 0, 25, 20, 0]
    assert got["click"].to_list() == [True, False, True, True, True, False, False, False, False]
    assert not any(got[name].null_count() for name in got.columns)
    assert got.schema["told"] == pl.UInt8


def test_other_people_s_rows_change_nothing(rng):
    user, batch, span = rng.integers(0, 4, 200), rng.integers(0, 3, 200), rng.integers(0, 50, 200)
    began, ended = times(user, batch, span)
    clock: dict[tuple, int] = {}
    for row in range(200):
        key = int(user[row]), int(batch[row])
        assert began[row] == clock.get(key, batch[row])
        clock[key] = began[row] + span[row]
        assert ended[row] == clock[key]
    order = np.argsort(user, kind="stable")
    for got, want in zip(times(user[order], batch[order], span[order]), (began, ended), strict=True):
        assert np.array_equal(got, want[order])


@pytest.mark.parametrize("far", [0, 2**61, -(2**61)])
def test_order_is_that_of_lexsort(far, rng):
    group, time_ms = rng.integers(0, 9, 300).astype(np.int32), rng.integers(0, 20, 300)
    time_ms[5] += far
    assert np.array_equal(ordered(group, time_ms), np.lexsort((time_ms, group)))
    assert ordered(group[:0], time_ms[:0]).tolist() == []


def test_nonsense_stays_in_the_far_future():
    """Never before the batch, however long the sums."""
    began, ended = times(np.ones(5_000, int), np.zeros(5_000, int), np.full(5_000, 2**63 - 1))
    assert (np.diff(began) == LONGEST_MS).all()
    assert (ended > began).all()
    assert [x.tolist() for x in times(*np.zeros((3, 0), int))] == [[], []]


def test_results_with_outcomes(tiny_dir):
    """The click is known with the session, the rest once it was played, and what is not told never."""
    tables = read_log(tiny_dir, DataConfig())
    search = tables.search.sort("time_ms", "session", "position").with_columns(
        play_ms=pl.when(pl.col("position") > 0).then(7_000),
        duration_ms=pl.lit(9_000),
        like=pl.when(pl.col("position") > 1).then(True),
        follow=pl.lit(None, pl.Boolean),
        forward=pl.lit(None, pl.Boolean),
    )
    store = LogStore.from_tables(dataclasses.replace(tables, search=searched(search)))
    e, i = store.events, store.impressions
    position = i.position[i.clicks > 0]
    clicked = np.flatnonzero(e.surface == 1)
    first = position == 0
    assert (i.told[i.position == 0] == 2).all()
    assert (i.told[i.position == 1] == 3).all()
    assert (i.told[i.position > 1] == 7).all()
    assert np.bincount(e.told[clicked], minlength=8).tolist() == [
        0,
        0,
        first.sum(),
        (position == 1).sum(),
        0,
        0,
        0,
        (position > 1).sum(),
    ]
    untold = e.told[clicked] == 2
    assert (e.known_ms[clicked[untold]] == NEVER_MS).all()
    assert np.array_equal(e.known_ms[clicked[~untold]], e.time_ms[clicked[~untold]] + 7_000)
    assert np.array_equal(clicked_ms(e, clicked), e.time_ms[clicked])
    watched = clicked[~untold][0]
    cut = store.truncated(int(e.time_ms[watched]) + 3_000)
    row = np.flatnonzero(
        (cut.events.user == e.user[watched]) & (cut.events.time_ms == e.time_ms[watched]) & (cut.events.surface == 1)
    )
    assert cut.events.click[row].all()
    assert (cut.events.told[row] == 2).all()
    assert not cut.events.play_ms[row].any()
    shown = cut.impressions
    assert (shown.told[-1], shown.play_ms[-1], shown.like[-1]) == (2, 0, False)


@pytest.mark.parametrize("cell", ["playing_time", "duration_ms", "click"])
def test_a_missing_cell_is_no_bad_row(cell, tiny, tmp_path):
    tiny.put("rec_inter", 9, cell, "")
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    assert tables.counts["rec_inter.csv"].quarantined == 0
    assert tables.feed["told"][7] == {"playing_time": 30, "duration_ms": 30, "click": 29}[cell]


def test_results_without_a_playing_time_are_known_after_their_duration():
    told = np.array([CLICK | LIKE, CLICK | LIKE | PLAY, CLICK | LIKE | PLAY, CLICK], np.uint8)
    play, duration = np.array([0, 0, 30, 0]), np.array([60, 60, 60, 60])
    assert result_known_ms(np.full(4, 1_000), play, duration, told).tolist() == [1_060, 1_000, 1_030, NEVER_MS]
