import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.config import DataConfig, WorldConfig
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.errors import BadConfig, BadInput
from pr2_jax.simulation.world import World
from pr2_jax.simulation.world_tables import write_world

TINY = WorldConfig(
    users=100, videos=500, creators=60, topics=4, subtopics=3, words_per_subtopic=12, shared_words=40, days=5,
    sessions_per_day=0.5, content_width=8,
)  # fmt: skip

HEADERS = {
    "rec_inter.csv": "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,"
    "search_item_related",
    "src_inter.csv": "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,"
    "item_id,click_cnt,item_type",
    "user_features.csv": "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2",
    "social_network.csv": "user_id,user_follow_id",
    "item_features.csv": "item_id,caption,author_id,item_type,upload_time,upload_type,"
    + ",".join(
        f"{level}_level_category_{part}"
        for level in ("first", "second", "third", "fourth")
        for part in ("id", "name", "name_en")
    ),
    "words.csv": "word_id,word",
}


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("world") / "log"
    write_world(directory, TINY)
    return directory


def test_same_seed_same_bytes_and_another_seed_differs(written, tmp_path):
    write_world(tmp_path / "again", TINY)
    assert hashes(tmp_path / "again") == hashes(written)
    assert set(hashes(written)) == {*HEADERS, "content.npy", "content_ids.npy"}
    write_world(tmp_path / "other", dataclasses.replace(TINY, seed=1))
    other = hashes(tmp_path / "other")
    assert all(other[name] != digest for name, digest in hashes(written).items())


def test_headers_are_those_of_kuaisar(written):
    for name, header in HEADERS.items():
        assert (written / name).read_text(encoding="utf-8").split("\n", 1)[0] == header


def test_ingest_reads_every_row(written):
    """The simulated log needs no exception anywhere: no row is quarantined."""
    log = read_log(written, DataConfig(max_bad_share=0.0))
    assert len(log.feed) == len(pl.read_csv(written / "rec_inter.csv"))
    results = pl.read_csv(written / "src_inter.csv")["item_type"].is_in(["VIDEO", "IMAGE_ATLAS"])
    assert len(log.search) == results.sum()


def test_sessions_share_user_time_and_query_and_show_nothing_twice(written):
    rows = pl.read_csv(written / "src_inter.csv")
    per_session = rows.group_by("search_session_id").agg(
        pl.col("user_id", "search_session_timestamp", "keyword").n_unique(),
        pl.len().alias("rows"),
        pl.col("item_id").n_unique().alias("items"),
    )
    assert per_session.select(pl.col("user_id", "search_session_timestamp", "keyword").max()).row(0) == (1, 1, 1)
    assert (per_session["rows"] == per_session["items"]).all()
    assert rows["search_session_timestamp"].is_sorted()
    assert (rows["search_session_id"].diff().fill_null(0) >= 0).all()
    assert set(rows["item_type"].unique()) > {"VIDEO", "IMAGE_ATLAS"}
    assert all(json.loads(keyword) for keyword in rows["keyword"].unique())


def test_readable_times_are_beijing_and_within_the_days(written):
    rows = pl.read_csv(written / "rec_inter.csv")
    local = rows["time"].str.to_datetime("%Y-%m-%d %H:%M:%S").dt.timestamp("ms")
    assert ((local - 8 * 3_600_000) == rows["timestamp"] // 1000 * 1000).all()
    assert rows["timestamp"].is_sorted()
    assert rows["time"].min() >= "2023-05-22 00:00:00"
    assert rows["time"].max() < "2023-05-27 00:02:00"  # results watched a minute after the last search


def test_searches_and_feed_are_tied_together(written):
    views, shown = pl.read_csv(written / "rec_inter.csv"), pl.read_csv(written / "src_inter.csv")
    assert views["search"].sum() >= views["search_item_related"].sum() > 0
    assert views.filter((pl.col("search_item_related") == 1) & (pl.col("search") == 0)).is_empty()
    clicked = shown.filter(pl.col("click_cnt") > 0).join(views, on=["user_id", "item_id"])
    gap = clicked["timestamp"] - clicked["search_session_timestamp"]
    assert ((gap > 0) & (gap <= 60_000)).sum() > 0


def test_flags_follow_the_click(written):
    views = pl.read_csv(written / "rec_inter.csv")
    assert views.filter((pl.col("click") == 0) & (pl.sum_horizontal("like", "follow", "forward") > 0)).is_empty()
    played = views.select((pl.col("playing_time") / pl.col("duration_ms")).alias("share"), "click")
    left, stayed = (played.filter(pl.col("click") == c)["share"] for c in (0, 1))
    assert left.max() < 0.3
    assert stayed.median() > 0.6
    assert views["playing_time"].min() >= 0


def test_content_vectors_belong_to_videos_and_show_their_subtopic(written):
    content, ids = np.load(written / "content.npy"), np.load(written / "content_ids.npy")
    videos = pl.read_csv(written / "item_features.csv")
    assert content.dtype == np.float32
    assert content.shape == (len(ids), TINY.content_width)
    assert np.isfinite(content).all()
    assert 0.8 < len(ids) / len(videos) < 0.98
    assert np.isin(ids, videos["item_id"].to_numpy()).all()
    assert (np.diff(ids) > 0).all()
    catalogue = World.build(TINY).catalogue
    subtopic = catalogue.subtopic_V[np.searchsorted(catalogue.raw_id_V, ids)]
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = subtopic[:, None] == subtopic[None]
    np.fill_diagonal(same, False)
    assert cosine[same].mean() > cosine[~same].mean() + 0.15


def test_a_part_resized_leaves_the_others_as_they_were(written, tmp_path):
    write_world(tmp_path / "wide", dataclasses.replace(TINY, content_width=9))
    before, after = hashes(written), hashes(tmp_path / "wide")
    assert {name for name in before if before[name] != after[name]} == {"content.npy"}
    more = World.build(dataclasses.replace(TINY, users=150))
    assert (more.catalogue.captions_VxN == World.build(TINY).catalogue.captions_VxN).all()


def test_words_are_readable_distinct_and_some_have_two_owners(written):
    text = pl.read_csv(written / "words.csv")["word"].to_list()
    assert {"comedy", "music", "guitar", "funny"} <= set(text)
    assert len(set(text)) == len(text)
    default = World.build(WorldConfig(users=1, videos=10, creators=1)).vocabulary
    owners = np.bincount(default.owned_GxN.ravel())
    assert 0.1 < (owners > 1).sum() / (owners > 0).sum() < 0.25


def test_full_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="not empty"):
        write_world(tmp_path / "log", TINY)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "log.partial").exists()


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_world(tmp_path / "log", TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "users = 0"),
        ({"slate": 501}, "slate = 501 is above videos = 500"),
        ({"words_per_subtopic": 3}, "words_per_subtopic = 3"),
        ({"topics": 1, "subtopics": 2}, "people.interests = 5 is above"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(BadConfig, match=message):
        dataclasses.replace(TINY, **change)
