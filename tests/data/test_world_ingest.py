"""The simulated platform takes the same road as a real log."""

from __future__ import annotations

import filecmp

import pytest

from pr2_jax.config import Config, DataConfig, WorldConfig
from pr2_jax.data.ingest.ingest import ingest
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput
from pr2_jax.simulation.world_builder import ShortVideoWorld

CONFIG = Config(
    data=DataConfig(source="short_video_world", max_bad_share=0.0), world=WorldConfig(users=60, videos=600, days=5)
)


def test_world_ingests_whole_and_again_the_same(tmp_path):
    for work in ("one", "one", "two"):  # the second run replaces what the first left
        report = ingest(None, CONFIG, tmp_path / work, builder=ShortVideoWorld)
    one, two = tmp_path / "one" / "store", tmp_path / "two" / "store"
    names = sorted(file.name for file in one.iterdir())
    assert filecmp.cmpfiles(one, two, names, shallow=False)[0] == names
    assert report.videos == 600
    assert report.videos_with_content > 0
    assert all(count.quarantined == 0 for count in report.tables.values())
    left = read_log(tmp_path / "one" / "world", CONFIG.data)  # the raw files stay, for other tools
    assert LogStore.from_tables(left).fingerprint == LogStore.open(one).fingerprint


def test_world_takes_no_input(tmp_path):
    with pytest.raises(BadInput, match="leave out --input"):
        ShortVideoWorld.read_source(tmp_path, CONFIG, tmp_path)
