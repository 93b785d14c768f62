"""Catalogue arrays against the store's ragged columns, and blind to what comes after their time."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.history.video_attributes import (
    VideoNumbers,
    catalogue_arrays,
    described,
    log_unigram,
    pad_ragged,
    query_words,
    styles,
)
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore

CONFIG = DataConfig(caption_tokens=4, query_tokens=2)


@pytest.fixture
def store(tiny, tmp_path, rng) -> LogStore:
    """With brought vectors for some videos."""
    tiny.arrays = {
        "content.npy": rng.normal(size=(4, 3)).astype(np.float32),
        "content_ids.npy": np.array([2, 3, 5, 8], np.int64),
    }
    return LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), CONFIG))


def test_pad_ragged():
    first, values = np.array([0, 0, 3, 4]), np.array([7, 8, 9, 5])
    got = pad_ragged(first, values, np.array([1, 0, 2, 1]), 2)
    assert got.dtype == np.int32
    assert got.tolist() == [[7, 8], [0, 0], [5, 0], [7, 8]]
    assert pad_ragged(np.zeros(3, int), np.zeros(0, int), np.array([0, 1]), 2).tolist() == [[0, 0], [0, 0]]
    assert pad_ragged(first, values, np.zeros(0, int), 2).shape == (0, 2)


def test_what_is_told_of_a_video(store):
    catalogue = catalogue_arrays(store, store.cuts.validation_ms, CONFIG)
    got, v = described(catalogue), store.videos
    for row in range(store.counts.videos):
        told = [v.words[v.first_word[row] : v.first_word[row + 1]].any(), v.author[row] > 0, v.category[row].any()]
        assert got[row] == any([*told, v.content[row].any()])
    assert not got[0]
    assert not got[store.video_rows(np.array([10**12]))[0]]  # in the interactions only
    assert got.sum() > 20


def test_captions_and_queries_are_cut_or_padded(store):
    caption = catalogue_arrays(store, store.cuts.validation_ms, CONFIG)["caption"]
    words = query_words(store, np.arange(store.counts.queries), CONFIG)
    for padded, ragged in ((caption, store.videos), (words, store.queries)):
        for row, got in enumerate(padded):
            want = ragged.words[ragged.first_word[row] : ragged.first_word[row + 1]].tolist()[: len(got)]
            assert got.tolist() == want + [0] * (len(got) - len(want))
    assert not caption[0].any()
    assert not words[0].any()


def test_numbers(store):
    before_ms = store.cuts.validation_ms
    numbers = catalogue_arrays(store, before_ms, CONFIG)["numbers"]
    upload = store.videos.upload_ms
    assert np.array_equal(numbers[:, 1], upload > 0)
    for row in range(store.counts.videos):
        want = np.log1p((before_ms - upload[row]) / DAY_MS) / 5 - 1 if upload[row] else 0
        np.testing.assert_allclose(numbers[row, 0], want, rtol=1e-5)
    assert not numbers[0].any()


def test_numbers_of_any_moment(store):
    """A video at several times, some before anything is known of it."""
    numbers = VideoNumbers(store)
    video = np.array([[3], [5]])
    times = np.array([store.cuts.start_ms - 10 * DAY_MS, int(numbers.since_ms_V[3]), store.cuts.test_ms])
    got = numbers(video, times)
    assert got.shape == (2, 3, 4)
    assert got.dtype == np.float32
    assert got[0, :, 1].tolist() == [0, 0, 1]
    assert not got[0, :2, 0].any()
    known = np.asarray(store.videos.upload_ms)[video[:, 0]] > 0
    assert np.array_equal(got[..., 3], np.broadcast_to(known[:, None], (2, 3)))
    assert (np.diff(got[known][..., 2], axis=1) > 0).all()  # older with time
    duration = numbers.durations(video, times)
    want = np.where(duration > 0, np.log1p(duration / 1000) / 5 - 1, 0)
    np.testing.assert_allclose(got[..., 0], want, rtol=1e-5)
    for place, time_ms in enumerate(times):
        past = VideoNumbers(store.truncated(int(time_ms)))
        assert past(video[:, 0], time_ms).tobytes() == np.ascontiguousarray(got[:, place]).tobytes()


def test_videos_are_described_without_the_feed(store):
    """Nothing that a feed view tells is in the towers' view of a video: a training row may be older than that view."""
    silent = store.truncated(store.cuts.start_ms)
    assert not silent.counts.events
    told, untold = (catalogue_arrays(s, store.cuts.validation_ms, CONFIG) for s in (store, silent))
    assert all(told[name].tobytes() == untold[name].tobytes() for name in told)


def test_nothing_later_is_looked_at(store):
    before_ms = store.cuts.validation_ms
    whole = catalogue_arrays(store, before_ms, CONFIG)
    cut = catalogue_arrays(store.truncated(before_ms), before_ms, CONFIG)
    assert all(whole[name].tobytes() == cut[name].tobytes() for name in whole)


def test_brought_vectors_are_unit_or_zero(store):
    brought = catalogue_arrays(store, store.cuts.validation_ms, CONFIG)["brought"]
    length = np.linalg.norm(brought, axis=1)
    has = np.isin(np.arange(store.counts.videos), store.video_rows(np.array([2, 3, 5, 8])))
    np.testing.assert_allclose(length[has], 1, rtol=1e-5)
    assert not length[~has].any()


def test_log_unigram():
    got = log_unigram(np.array([1, 1, 1, 3]), 4)
    assert got.dtype == np.float32
    np.testing.assert_allclose(np.exp(got), np.array([0.5, 3, 0.5, 1]) / 5, rtol=1e-6)
    assert np.isfinite(log_unigram(np.zeros(0, int), 4)).all()


def test_styles_by_hand():
    """Less the mean of the finest known category; then the author's mean, four videos of nothing counted with it."""
    content = np.array([[0.0], [1.0], [3.0], [5.0], [9.0]])
    author, category = np.array([0, 1, 1, 2, 0]), np.array([[0, 0], [4, 7], [4, 7], [4, 0], [4, 0]])
    found = styles(content, author, category)
    assert found[:, 0].tolist() == [0.0, -1.0, 1.0, -2.0, 2.0]
    np.testing.assert_allclose(found[:, 1], [0.0, 0.0, 0.0, -2.0 / 5, 0.0])
