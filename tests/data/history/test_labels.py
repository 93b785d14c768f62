"""Labels and counts against loops, and that they stop at their cut."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import PLAY
from pr2_jax.data.history.labels import LongPlay, popularity
from pr2_jax.data.history.video_attributes import VideoNumbers
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.store.log_store import LogStore

CONFIG = DataConfig(duration_buckets=4)


def test_long_play_is_a_quantile_within_each_duration_bucket(store):
    fitted = LongPlay.fit(store, store.cuts.validation_ms, CONFIG)
    e = store.events
    views = (e.surface == 0) & (e.known_ms < store.cuts.validation_ms) & ((e.told & PLAY) > 0)
    labels = fitted.label(e.play_ms[views], e.duration_ms[views])
    bucket = np.searchsorted(fitted.edges_ms, e.duration_ms[views], side="right")
    sizes = np.bincount(bucket)
    assert len(sizes) == 4
    assert sizes.max() - sizes.min() <= 2
    for place in range(4):
        assert labels[bucket == place].mean() == pytest.approx(0.3, abs=0.02)
    assert (np.diff(fitted.thresholds_ms) > 0).all()  # play time grows with duration, seconds alone would not do


def test_long_play_by_hand():
    fitted = LongPlay(np.array([1000, 5000]), np.array([10.0, 20.0, 30.0]))
    play, duration = [10, 11, 20, 21, 30, 31, 11], [999, 999, 1000, 4999, 5000, 9000, 0]
    assert fitted.label(np.array(play), np.array(duration)).tolist() == [False, True, False, True, False, True, False]


def test_without_views_nothing_is_a_long_play(store):
    fitted = LongPlay.fit(store, 0, CONFIG)
    assert not fitted.label(np.array([10**9]), np.array([5])).any()


def test_one_duration_makes_one_bucket(tiny, tmp_path):
    tiny.put_all("rec_inter", "duration_ms", ["7000"] * 300)
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), CONFIG))
    fitted = LongPlay.fit(store, store.cuts.end_ms, CONFIG)
    assert fitted.edges_ms.tolist() == []
    assert len(fitted.thresholds_ms) == 1


@pytest.mark.parametrize("which", ["validation_ms", "test_ms", "start_ms"])
def test_duration_and_popularity_count_only_what_came_before(which, store):
    before_ms, e = getattr(store.cuts, which), store.events
    durations: dict[int, tuple[int, int]] = {}
    clicks = np.zeros(store.counts.videos)
    for row in range(store.counts.events):
        clicks[e.video[row]] += e.click[row] and e.known_ms[row] < before_ms
        if e.time_ms[row] < before_ms and e.surface[row] == 0 and e.duration_ms[row] > 0:
            seen = int(e.time_ms[row]), int(e.duration_ms[row])
            durations[int(e.video[row])] = min(seen, durations.get(int(e.video[row]), seen))
    videos = np.arange(store.counts.videos)
    got = VideoNumbers(store).durations(videos, np.int64(before_ms))
    assert got.tolist() == [durations.get(video, (0, 0))[1] for video in videos]
    past = VideoNumbers(store.truncated(before_ms))
    assert np.array_equal(past.durations(videos, np.int64(before_ms)), got)
    assert popularity(store, before_ms).dtype == np.float32
    np.testing.assert_array_equal(popularity(store, before_ms), clicks)


def test_unknown_durations_do_not_count(tiny, tmp_path):
    tiny.put_all("rec_inter", "duration_ms", ["" if line % 2 else "0" for line in range(300)])
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), CONFIG))
    assert not VideoNumbers(store).durations(np.arange(store.counts.videos), np.int64(store.cuts.end_ms)).any()


def test_a_duration_is_not_known_at_the_moment_of_the_view_that_tells_it(store):
    numbers, video = VideoNumbers(store), store.video_rows(np.array([1]))
    since = numbers.since_ms_V[video]
    assert since > 0
    assert numbers.durations(video, since) == 0
    assert numbers.durations(video, since + 1) == numbers.duration_ms_V[video] > 0


def test_fitting_sees_nothing_after_its_cut(store):
    before_ms = store.cuts.validation_ms
    whole, past = (LongPlay.fit(s, before_ms, CONFIG) for s in (store, store.truncated(before_ms)))
    np.testing.assert_array_equal(whole.edges_ms, past.edges_ms)
    np.testing.assert_array_equal(whole.thresholds_ms, past.thresholds_ms)
