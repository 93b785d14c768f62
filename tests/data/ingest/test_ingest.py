"""From files to a store and a report; nothing is left behind by a failure."""

from __future__ import annotations

import dataclasses
import filecmp
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax import artifacts
from pr2_jax.config import Config, DataConfig
from pr2_jax.data.exchange.log_builder import LogBuilder
from pr2_jax.data.ingest import ingest as ingest_module
from pr2_jax.data.ingest.ingest import fingerprint, ingest, reason_stale
from pr2_jax.data.logs.log_tables import LogTables, read_log
from pr2_jax.data.store.log_store import SCHEMA, LogStore
from pr2_jax.errors import BadInput


def test_report(tiny, tmp_path):
    tiny.put("rec_inter", 8, "playing_time", "-1")
    tiny.put("src_inter", 2, "keyword", "[]")
    for line in range(8, 14):
        tiny.put("src_inter", line, "keyword", "[500]")
    tiny.arrays = {"content.npy": np.ones((2, 3), np.float32), "content_ids.npy": np.array([4, 999])}
    report = ingest(tiny.write(tmp_path / "log"), Config(), tmp_path / "work")
    assert (report.users, report.users_without_features) == (12, 1)
    assert (report.videos, report.videos_without_features) == (30, 1)
    assert (report.videos_with_content, report.brought_unknown) == (1, 1)
    assert report.sessions == sum(report.sessions_by_day.values()) == 81
    assert report.tables["rec_inter.csv"].quarantined == 1
    assert report.feed_views == 299
    clicked = sum(cell == "1" for cell in tiny.column("src_inter", "click_cnt"))
    assert report.written == {"sessions": 81, "clicked_rows": clicked, "reused_ids": 1}
    assert report.empty_query_share == pytest.approx(1 / 81)
    captions = {word for row in tiny.tables["item_features"][1:] for word in json.loads(row[1])}
    queries = {(row[1], row[4]): json.loads(row[4]) for row in tiny.tables["src_inter"][1:]}
    unseen = [bool(set(words) - captions) for words in queries.values()]
    assert report.unseen_word_share == pytest.approx(np.mean(unseen))
    text = "\n".join(report.lines())
    for phrase in ("300 rows read, 299 kept, 1 bad", "27 LIVE", "1 of them without features", "1.2% have no words"):
        assert phrase in text


def test_leaves_a_store_that_knows_its_origin(tiny_dir, tmp_path):
    report = ingest(tiny_dir, Config(), tmp_path / "work")
    store = LogStore.open(tmp_path / "work" / "store")
    assert store.fingerprint == LogStore.from_tables(read_log(tiny_dir, DataConfig())).fingerprint
    assert json.loads((tmp_path / "work" / "store" / "report.json").read_text()) == dataclasses.asdict(report)
    said = fingerprint(tiny_dir, Config())
    assert artifacts.fresh(tmp_path / "work" / "store", said, SCHEMA)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["store", "tfds"]


def test_fingerprint_follows_what_matters(tiny_dir):
    said = fingerprint(tiny_dir, Config())
    assert fingerprint(tiny_dir, Config(data=DataConfig(caption_tokens=5))) == said
    assert fingerprint(tiny_dir, Config(data=DataConfig(max_bad_share=0.5))) != said
    with (tiny_dir / "rec_inter.csv").open("a") as file:
        file.write("101,1,1,1,,1684737000000,0,0,0,0,0,0\n")
    assert fingerprint(tiny_dir, Config()) != said


def test_twice_gives_the_same_store(tiny_dir, tmp_path):
    for name in ("one", "two"):
        ingest(tiny_dir, Config(), tmp_path / name)
    one, two = tmp_path / "one" / "store", tmp_path / "two" / "store"
    names = sorted(file.name for file in one.iterdir())
    assert filecmp.cmpfiles(one, two, names, shallow=False)[0] == names


def test_quarantine_lies_in_the_store(tiny, tmp_path):
    tiny.put("rec_inter", 8, "playing_time", "-1")
    ingest(tiny.write(tmp_path / "log"), Config(), tmp_path / "work")
    aside = pl.read_csv(tmp_path / "work" / "store" / "quarantine.csv")
    assert aside.rows() == [("rec_inter.csv", 8, "playing_time", -1, "expected a number of ms >= 0, or nothing")]


def test_bad_log_writes_nothing(tiny_dir, tmp_path):
    (tiny_dir / "src_inter.csv").unlink()
    with pytest.raises(BadInput, match="src_inter"):
        ingest(tiny_dir, Config(), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_failure_midway_leaves_the_old_store(tiny_dir, tmp_path, monkeypatch):
    work = tmp_path / "work"
    ingest(tiny_dir, Config(), work)
    old = LogStore.open(work / "store").fingerprint

    def fails(*_: object) -> LogTables:
        raise OSError("no space left on device")

    monkeypatch.setattr(ingest_module, "write_exchange", fails)
    with pytest.raises(OSError, match="no space"):
        ingest(tiny_dir, Config(), work)
    assert LogStore.open(work / "store").fingerprint == old
    assert sorted(path.name for path in work.iterdir()) == ["store", "tfds"]


class Simulated(LogBuilder, skip_registration=True):
    """Stands for a builder that makes its own log."""

    name = "short_video_world"

    @classmethod
    def read_source(cls, input_path: Path | None, config: Config, workdir: Path) -> LogTables:
        assert input_path is None
        return read_log(Simulated.log, config.data)


def test_simulated_source_needs_no_input(tiny_dir, tmp_path):
    Simulated.log = tiny_dir
    config = Config(data=DataConfig(source="short_video_world"))
    report = ingest(None, config, tmp_path / "work", builder=Simulated)
    assert report.sessions == 80
    other = dataclasses.replace(config, world=dataclasses.replace(config.world, seed=5))
    assert fingerprint(None, config) != fingerprint(None, other)


def test_builder_and_source_must_agree(tiny_dir, tmp_path):
    with pytest.raises(ValueError, match="short_video_world"):
        ingest(tiny_dir, Config(), tmp_path / "work", builder=Simulated)


def test_files_of_others_are_not_deleted(tiny_dir, tmp_path):
    mine = tmp_path / "work" / "tfds" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("dear to me")
    with pytest.raises(BadInput, match=r"tfds would be replaced, but holds mine\.txt"):
        ingest(tiny_dir, Config(), tmp_path / "work")
    assert mine.read_text() == "dear to me"
    mine.unlink()
    ingest(tiny_dir, Config(), tmp_path / "work")
    ingest(tiny_dir, Config(), tmp_path / "work")  # what we made ourselves is replaced


def test_an_exchange_format_of_another_log_is_stale(tiny_dir, tmp_path):
    """As a kill leaves it between the two renames."""
    ingest(tiny_dir, Config(), tmp_path / "work")
    claim = fingerprint(tiny_dir, Config())
    assert reason_stale(tmp_path / "work", claim) is None
    assert "source" in reason_stale(tmp_path / "work", claim | {"source": "another"})
    (tmp_path / "work" / "tfds" / "made_from.json").write_text("{}")
    assert "tfds/ is of another log" in reason_stale(tmp_path / "work", claim)
