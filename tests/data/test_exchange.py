"""The TFDS exchange format loses nothing that the store needs, and TensorFlow stays out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pr2_jax.config import Config, DataConfig
from pr2_jax.data.builders.exchange import PARTS, SPLIT, read_exchange
from pr2_jax.data.builders.kuaisar import Kuaisar
from pr2_jax.data.builders.log_builder import write_exchange
from pr2_jax.data.store import LogStore
from pr2_jax.data.tables import read_log
from pr2_jax.errors import BadInput


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


def test_builder_on_its_own_reads_manual_data(tiny_dir, tmp_path, capsys):
    """As TFDS documents it, one part after the other; read back without our builder."""
    manual = tfds.download.DownloadConfig(manual_dir=tiny_dir)
    for part in PARTS:
        Kuaisar(config=part, data_dir=tmp_path / "tfds").download_and_prepare(download_config=manual)
    capsys.readouterr()
    directories = {part: tmp_path / "tfds" / "kuaisar" / part / "2.0.0" for part in PARTS}
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
