"""The store against plain Python over the raw rows; its bytes, its refusals, and its truncation."""

from __future__ import annotations

import collections
import dataclasses
import filecmp
import json
import random
from pathlib import Path

import numpy as np
import pytest

from pr2_jax import artifacts
from pr2_jax.config import DataConfig
from pr2_jax.data.columns import NEVER_MS
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.store import log_store as store_module
from pr2_jax.data.store.log_store import LogStore, save_store
from pr2_jax.errors import BadInput, StaleArtifact

DAY_MS = 86_400_000


@pytest.fixture
def store(tiny_dir, tmp_path) -> LogStore:
    return save_store(LogStore.from_tables(read_log(tiny_dir, DataConfig())), tmp_path / "store", {}, {})


def arrays(store: LogStore) -> dict[str, np.ndarray]:
    groups = ("users", "videos", "queries", "events", "sessions", "impressions", "words")
    return {
        f"{group}.{field.name}": value
        for group in groups
        for field in dataclasses.fields(getattr(store, group))
        if isinstance(value := getattr(getattr(store, group), field.name), np.ndarray)
    }


def plain_sessions(tiny) -> dict[int, dict]:
    """{session id: user, time, words, shown video → clicks in the order shown}, straight from the rows."""
    out: dict[int, dict] = {}
    for user, session, _, time_ms, words, source, video, clicks, kind in tiny.tables["src_inter"][1:]:
        if kind in ("VIDEO", "IMAGE_ATLAS"):
            entry = out.setdefault(int(session), {"shown": collections.Counter()})
            entry |= {"user": int(user), "time": int(time_ms), "words": json.loads(words), "source": source}
            entry["shown"][int(video)] += int(clicks)
    return out


def test_sessions_equal_the_rows(store, tiny):
    plain = plain_sessions(tiny)
    s, videos = store.sessions, store.videos.raw_id
    assert sorted(plain) == sorted(s.raw_id)
    assert list(zip(s.time_ms, s.raw_id, strict=True)) == sorted(zip(s.time_ms, s.raw_id, strict=True))
    for row, raw in enumerate(s.raw_id):
        want, cut = plain[int(raw)], slice(s.first_impression[row], s.first_impression[row + 1])
        assert store.users.raw_id[s.user[row]] == want["user"]
        assert s.time_ms[row] == want["time"]
        assert store.source_names[s.source[row] - 1] == want["source"]
        assert videos[store.impressions.video[cut]].tolist() == list(want["shown"])
        assert store.impressions.clicks[cut].tolist() == list(want["shown"].values())
        q = store.queries
        words = q.words[q.first_word[s.query[row]] : q.first_word[s.query[row] + 1]]
        known = [raw if place else None for raw, place in zip(want["words"], words, strict=True)]
        assert [int(store.words.raw_id[w]) if w else None for w in words] == known


def test_events_are_every_view_and_every_clicked_result(store, tiny):
    e = store.events
    want = []
    for user, video, play, duration, _, time_ms, click, forward, like, follow, *_ in tiny.tables["rec_inter"][1:]:
        actions = [flag == "1" for flag in (click, like, follow, forward)]
        spans = (int(float(play) + 0.5), int(float(duration)))
        known = int(float(time_ms)) + spans[0]  # no two views of this log share a person and a time
        want.append((int(user), int(float(time_ms)), int(video), 0, *actions, *spans, known, 31))
    for entry in plain_sessions(tiny).values():
        clicked = [video for video, clicks in entry["shown"].items() if clicks]
        want += [
            (entry["user"], entry["time"], video, 1, True, False, False, False, 0, 0, entry["time"], 2)
            for video in clicked
        ]
    columns = (
        store.users.raw_id[e.user],
        e.time_ms,
        store.videos.raw_id[e.video],
        e.surface,
        e.click,
        e.like,
        e.follow,
        e.forward,
        e.play_ms,
        e.duration_ms,
        e.known_ms,
        e.told,
    )
    got = list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted(got) == sorted(want)
    assert [row[:2] for row in got] == sorted(row[:2] for row in got)
    assert ((e.query > 0) <= (e.surface == 1)).all()
    np.testing.assert_array_equal(np.bincount(e.user, minlength=store.counts.users), np.diff(store.users.first_event))


def test_ties_keep_file_order_feed_before_search(tiny, tmp_path):
    user, time_ms = tiny.tables["src_inter"][1][0], tiny.tables["src_inter"][1][3]
    for video in ("9", "3", "6"):
        tiny.tables["rec_inter"].insert(1, [user, video, "0", "2", "", time_ms, "1", "0", "0", "0", "0", "0"])
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    e = store.events
    at = (store.users.raw_id[e.user] == int(user)) & (e.time_ms == int(time_ms))
    assert e.surface[at].tolist()[:3] == [0, 0, 0]
    assert store.videos.raw_id[e.video[at]].tolist()[:3] == [6, 3, 9]


def test_a_video_shown_twice_is_one_impression(tiny, tmp_path):
    tiny.put("src_inter", 12, "item_id", tiny.tables["src_inter"][8][6])
    tiny.put("src_inter", 9, "click_cnt", "1")
    tiny.put("src_inter", 12, "click_cnt", "2")
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    row = int(np.flatnonzero(store.sessions.raw_id == 899)[0])
    cut = slice(store.sessions.first_impression[row], store.sessions.first_impression[row + 1])
    assert store.impressions.position[cut].tolist() == [0, 1, 2, 3, 5]
    assert store.impressions.clicks[cut][1] == 3


def test_cuts_are_those_of_the_published_protocol(store, tiny):
    """As checks/measure.py: the last 24 hours of search rows are the test day, the 24 before the validation day."""
    times = [int(row[3]) for row in tiny.tables["src_inter"][1:]]
    end = max(times) + 1
    assert (store.cuts.end_ms, store.cuts.test_ms, store.cuts.validation_ms) == (end, end - DAY_MS, end - 2 * DAY_MS)
    day = {int(r[1]) for r in tiny.tables["src_inter"][1:] if end - DAY_MS <= int(r[3]) < end}
    assert set(store.sessions.raw_id[store.sessions.time_ms >= store.cuts.test_ms]) == day


def test_vocabularies(store, tiny):
    assert store.counts.videos == 31
    assert store.counts.users == 13
    assert (np.diff(store.videos.raw_id[1:]) > 0).all()
    assert store.video_rows(np.array([3, 10**12, 77, -1])).tolist() == [3, 30, 0, 0]
    assert [store.user_row(raw) for raw in (101, 112, 5)] == [1, 12, 0]
    lone = store.video_rows(np.array([10**12]))[0]
    assert store.videos.author[lone] == store.videos.kind[lone] == store.videos.upload_ms[lone] == 0
    assert store.videos.first_word[lone] == store.videos.first_word[lone + 1]
    assert store.users.profile[12].tolist() == [0, 0, 0, 0]
    assert store.users.profile_sizes == (5, 4, 3, 1)
    first, second = tiny.tables["item_features"][1], store.video_rows(np.array([1]))[0]
    f = store.videos.first_word
    assert store.words.raw_id[store.videos.words[f[second] : f[second + 1]]].tolist() == json.loads(first[1])


def test_words_of_late_queries_are_unknown(tiny, tmp_path):
    end = max(int(row[3]) for row in tiny.tables["src_inter"][1:]) + 1
    for line, row in enumerate(tiny.tables["src_inter"][1:], start=2):
        late = int(row[3]) >= end - 2 * DAY_MS
        tiny.put("src_inter", line, "keyword", "[501, 3]" if late else "[500, 3]")
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    assert store.word_rows([500, 501, 3]).tolist()[1] == 0
    assert (store.word_rows([500, 3]) > 0).all()
    assert store.counts.queries == 3
    assert store.queries.words[2:].tolist() == [0, store.word_rows([3])[0]]


def test_words_by_text_and_id(store):
    row = int(store.word_rows([3])[0])
    assert row > 0
    given = ["w3", "W3", 3, "3", "nonsense", "", "w3-W3", -8, "w777"]
    assert store.word_rows(given).tolist() == [*[row] * 4, 0, *[row] * 2, 0, 0]  # an empty text is no word
    for typed in ("ｗ３", "W3!", "3", "[3]"):
        assert [(word.text, word.row) for word in store.understood(typed)] == [("w3", row)]
    assert store.word_rows("w3, x W3").tolist() == [row, 0, row]
    assert store.word_rows("").dtype == np.int32
    assert store.words.text[0] is None
    assert store.words.text[store.word_rows([3])[0]] == "w3"


def test_order_of_users_and_videos_in_the_files_does_not_matter(store, tiny, tmp_path):
    for table in ("user_features", "item_features"):
        rows = tiny.tables[table]
        rows[1:] = random.Random(1).sample(rows[1:], len(rows) - 1)
    again = LogStore.from_tables(read_log(tiny.write(tmp_path / "again"), DataConfig()))
    assert again.fingerprint == store.fingerprint


def test_brought_content_is_joined_by_id(tiny, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    tiny.arrays = {"content.npy": vectors, "content_ids.npy": np.array([9, 4444, 2])}
    store = save_store(
        LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig())), tmp_path / "store", {}, {}
    )
    assert store.videos.content.shape == (31, 5)
    np.testing.assert_array_equal(store.videos.content[store.video_rows(np.array([9, 2]))], vectors[[0, 2]])
    assert np.count_nonzero(np.abs(store.videos.content).sum(1)) == 2


def test_twice_gives_the_same_bytes(store, tiny_dir, tmp_path):
    save_store(LogStore.from_tables(read_log(tiny_dir, DataConfig())), tmp_path / "again", {}, {})
    names = sorted(file.name for file in (tmp_path / "store").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "again").iterdir())
    assert filecmp.cmpfiles(tmp_path / "store", tmp_path / "again", names, shallow=False)[0] == names


def test_opened_equals_in_memory_and_is_read_only(store, tiny_dir, tmp_path):
    opened, memory = LogStore.open(tmp_path / "store"), LogStore.from_tables(read_log(tiny_dir, DataConfig()))
    assert opened.fingerprint == memory.fingerprint
    assert (opened.counts, opened.cuts, opened.words.text) == (memory.counts, memory.cuts, memory.words.text)
    for name, array in arrays(memory).items():
        np.testing.assert_array_equal(arrays(opened)[name], array)
        assert arrays(opened)[name].dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        opened.events.click[0] = True


def test_other_schema_is_refused_naming_both(store, tmp_path):
    path = tmp_path / "store" / artifacts.MANIFEST
    path.write_text(path.read_text().replace(store_module.SCHEMA, "log-store/0"))
    with pytest.raises(StaleArtifact, match=r"schema 'log-store/0', this version reads 'log-store/3'.*pr2 ingest"):
        LogStore.open(tmp_path / "store")


def test_half_built_store_is_no_store(store, tmp_path):
    (tmp_path / "store" / artifacts.MANIFEST).unlink()
    with pytest.raises(StaleArtifact, match="half-written"):
        LogStore.open(tmp_path / "store")


@pytest.mark.parametrize("spoil", ["missing", "short"])
def test_damaged_column_is_refused(spoil, store, tmp_path):
    path = tmp_path / "store" / "events.user.npy"
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StaleArtifact, match=r"events\.user\.npy is missing or damaged"):
        LogStore.open(tmp_path / "store")


def test_a_failed_build_leaves_the_old_store(store, tiny_dir, tmp_path, monkeypatch):
    def full_disk(path: Path, array: np.ndarray) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store_module.np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_store(LogStore.from_tables(read_log(tiny_dir, DataConfig())), tmp_path / "store", {}, {})
    assert LogStore.open(tmp_path / "store").fingerprint == store.fingerprint
    assert not (tmp_path / "store.partial").exists()


def test_a_directory_of_someone_else_is_not_replaced(tiny_dir, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(BadInput, match="was not made by pr2"):
        save_store(LogStore.from_tables(read_log(tiny_dir, DataConfig())), tmp_path / "mine", {}, {})


def test_truncated_holds_only_the_past(crowded_store):
    """What had begun, and of that no outcome that was not known yet."""
    store = crowded_store
    before_ms = int(store.sessions.time_ms[50])
    cut, e = store.truncated(before_ms), store.events
    keep = e.time_ms < before_ms
    known = e.known_ms[keep] < before_ms
    assert 5 < (~known).sum() < keep.sum() / 2
    for field in dataclasses.fields(cut.events):
        got, want = getattr(cut.events, field.name), getattr(e, field.name)[keep]
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got[known], want[known])
        if field.name in ("user", "video", "query", "time_ms", "surface", "duration_ms"):
            np.testing.assert_array_equal(got, want)
        elif field.name == "known_ms":
            assert (got[~known] == NEVER_MS).all()
        else:
            assert not got[~known].any()
            assert field.name not in ("click", "play_ms", "told") or want[~known].any()
    np.testing.assert_array_equal(
        np.bincount(cut.events.user, minlength=cut.counts.users), np.diff(cut.users.first_event)
    )
    assert cut.counts.sessions == len(cut.sessions.raw_id) == 50
    assert (cut.sessions.time_ms < before_ms).all()
    assert cut.counts.impressions == len(cut.impressions.video) == cut.sessions.first_impression[-1]
    assert cut.counts.events == keep.sum() < store.counts.events
    assert (cut.cuts, cut.words, cut.videos) == (store.cuts, store.words, store.videos)
    assert cut.fingerprint != store.fingerprint


def test_a_part_of_a_log_in_the_rows_of_the_whole(crowded_log, tmp_path):
    """The log without its last days, read anew, is the whole one cut there, whatever it no longer mentions."""
    log = crowded_log
    end = max(int(row[3]) for row in log.tables["src_inter"][1:])
    for line, row in enumerate(
        log.tables["src_inter"][1:], start=2
    ):  # late queries look alike: their words are unknown
        if int(row[3]) >= end - 2 * DAY_MS:
            log.put("src_inter", line, "keyword", f"[{600 + int(row[1]) % 5}, 3]")
    whole = LogStore.from_tables(read_log(log.write(tmp_path / "whole"), DataConfig()))
    before_ms = end - DAY_MS // 2
    for table, column in (("src_inter", 3), ("rec_inter", 5)):
        header, *rows = log.tables[table]
        log.tables[table] = [header, *(row for row in rows if float(row[column]) < before_ms)]
    log.tables["user_features"], log.tables["item_features"] = (
        log.tables[name][:3] for name in ("user_features", "item_features")
    )
    tables = read_log(log.write(tmp_path / "part"), DataConfig(), whole=False)
    part, cut = LogStore.from_tables(tables, like=whole), whole.truncated(before_ms)
    assert part.counts.sessions == cut.counts.sessions < whole.counts.sessions
    for name in ("raw_id", "user", "query", "time_ms", "source", "first_impression"):
        np.testing.assert_array_equal(getattr(part.sessions, name), getattr(cut.sessions, name), err_msg=name)
    for name in ("video", "position", "clicks"):
        np.testing.assert_array_equal(getattr(part.impressions, name), getattr(cut.impressions, name))
    early, same = part.events.time_ms < before_ms, cut.events.user
    np.testing.assert_array_equal(part.events.user[early], same)
    np.testing.assert_array_equal(part.events.video[early], cut.events.video)
    late = part.sessions.query[part.sessions.time_ms >= whole.cuts.validation_ms]
    assert len(np.unique(late)) == 5  # told apart by first use
    assert (part.videos, part.words, part.cuts) == (whole.videos, whole.words, whole.cuts)


def test_truncated_before_everything_is_empty(store):
    cut = store.truncated(0)
    assert (cut.counts.events, cut.counts.sessions, cut.counts.impressions) == (0, 0, 0)
