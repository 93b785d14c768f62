"""The TFDS exchange format loses nothing that the store needs, and TensorFlow stays out."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import polars as pl
import pytest
import tensorflow_datasets as tfds

from pr2_jax.config import Config, DataConfig
from pr2_jax.data.exchange.exchange_format import PARTS, SPLIT
from pr2_jax.data.exchange.log_builder import Kuaisar, write_exchange
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.outcomes import searched
from pr2_jax.data.schema import SCHEMA_VERSION
from pr2_jax.data.store.log_store import LogStore, save_store
from pr2_jax.errors import BadInput
from tests.data.plain_exchange import read_exchange


@pytest.mark.parametrize("content", [False, True])
def test_round_trip_gives_the_same_store(content, tiny, tmp_path):
    if content:
        vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        tiny.arrays = {"content.npy": vectors, "content_ids.npy": np.array([4, 2, 9, 999])}
    tiny.put("src_inter", 20, "keyword", "[]")
    tables = read_log(tiny.write(tmp_path / "log"), DataConfig())
    back = read_exchange(write_exchange(Kuaisar, tables, tmp_path / "tfds"))
    assert LogStore.from_tables(back).fingerprint == LogStore.from_tables(tables).fingerprint
    assert back.counts == tables.counts
    assert back.social.sort("user", "follows").equals(tables.social.sort("user", "follows"))
    assert "tensorflow" not in sys.modules


def test_outcomes_of_results_are_exchanged_where_there_are_any(tiny_dir, tmp_path):
    tables = read_log(tiny_dir, DataConfig())
    row = pl.int_range(pl.len())
    told = searched(
        tables.search.with_columns(
            play_ms=pl.when(row % 3 > 0).then(1_000 * row),
            duration_ms=pl.when(row % 4 > 0).then(60_000),
            like=pl.when(row % 5 > 0).then(row % 2 == 0),
            follow=pl.lit(None, pl.Boolean),
            forward=row % 7 == 0,
        )
    )
    store = LogStore.from_tables(dataclasses.replace(tables, search=told))
    back = read_exchange(write_exchange(Kuaisar, dataclasses.replace(tables, search=told), tmp_path / "tfds"))
    assert LogStore.from_tables(back).fingerprint == store.fingerprint
    assert store.impressions.told.any()
    assert store.fingerprint != LogStore.from_tables(tables).fingerprint
    saved = save_store(store, tmp_path / "store", {}, {})
    np.testing.assert_array_equal(saved.impressions.play_ms, store.impressions.play_ms)


def test_builder_on_its_own_reads_manual_data(tiny_dir, tmp_path, capsys):
    """As TFDS documents it, one part after the other; read back without our builder."""
    manual = tfds.download.DownloadConfig(manual_dir=tiny_dir)
    for part in PARTS:
        Kuaisar(config=part, data_dir=tmp_path / "tfds").download_and_prepare(download_config=manual)
    capsys.readouterr()
    directories = {part: tmp_path / "tfds" / "kuaisar" / part / f"{SCHEMA_VERSION}.0.0" for part in PARTS}
    tables = read_log(tiny_dir, DataConfig())
    assert LogStore.from_tables(read_exchange(directories)).fingerprint == LogStore.from_tables(tables).fingerprint
    timelines = tfds.builder_from_directory(directories["timelines"]).as_data_source(SPLIT)
    assert len(timelines) == 12  # one example a user
    assert isinstance(timelines[0]["feed_video"], np.ndarray)
    views = tables.feed.filter(tables.feed["user"] == 101)
    np.testing.assert_array_equal(timelines[0]["feed_video"], views["video"])


def test_preparing_says_nothing(tiny_dir, tmp_path, capfd):
    write_exchange(Kuaisar, read_log(tiny_dir, DataConfig()), tmp_path / "tfds")
    assert capfd.readouterr() == ("", "")


def test_kuaisar_needs_an_input(tmp_path):
    with pytest.raises(BadInput, match="--input"):
        Kuaisar.read_source(None, Config(), tmp_path)
