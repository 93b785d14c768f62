"""The raw leak probe on a log of batches: honest code passes, and a leak of ingest or of a reader is found."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pr2_jax.cli import entry
from pr2_jax.config import Config, DataConfig
from pr2_jax.data import outcomes
from pr2_jax.data.history import histories
from pr2_jax.data.history.counters import Counters
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import known, seen
from pr2_jax.data.history.labels import LongPlay, popularity
from pr2_jax.data.history.probe import LeakFound, Past, Searches, probe
from pr2_jax.data.log_view import LogView
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.schema import FEED, SEARCH, USERS, VIDEOS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput
from pr2_jax.evaluation.leak_probe import probe_training
from pr2_jax.evaluation.raw_leak_probe import RawLog, raw_past
from pr2_jax.search.system import System

START_MS, DAY_MS = 1_684_737_000_000, 86_400_000
PEOPLE, VIDEOS_SHOWN, DAYS, BATCH = 5, 30, 5, 10


def write_batches(directory: Path) -> Path:
    """Ten views a timestamp; while somebody watches the fourth of ten they search, and so does somebody else."""
    rng = np.random.default_rng(4)
    views, results = [], []

    def search(user: int, time_ms: int) -> None:
        for video in rng.choice(VIDEOS_SHOWN, 4, replace=False) + 1:
            row = [user, 7_000 + len(results) // 4, time_ms, f"[{rng.integers(1, 9)}, {40 + len(results) // 4}]"]
            results.append([*row, "USER_INPUT", video, int(rng.random() < 0.4), "VIDEO"])

    for day in range(DAYS):
        for user in range(1, PEOPLE + 1):
            begins = START_MS + day * DAY_MS + int(rng.integers(0, DAY_MS // 2))
            plays = rng.integers(0, 60_000, BATCH)
            for play in plays:
                clicked, rest = int(play > 20_000), (rng.random(3) < 0.2).astype(int)
                video, told = int(rng.integers(1, VIDEOS_SHOWN + 1)), rng.random() < 0.9
                views.append([user, video, f"{play}.0" if told else "", 30_000, begins, clicked, *rest])
            moment = begins + int(plays[:4].sum()) - 1
            search(user, moment)
            search(user % PEOPLE + 1, moment + 1)
    words = {str(video): f"[{video % 9}, {video % 7}]" for video in range(1, VIDEOS_SHOWN + 1)}
    items = [[video, text, 1, "2023-05-01", "", 1, 2, 0, 0] for video, text in words.items()]
    tables = {FEED: views, SEARCH: sorted(results, key=lambda row: row[2]), VIDEOS: items}
    tables[USERS] = [[user, 1, 1, 1, 1] for user in range(1, PEOPLE + 1)]
    directory.mkdir(parents=True)
    for table, rows in tables.items():
        with (directory / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table.names()[: len(rows[0])], *rows])
    return directory


def read(directory: Path) -> LogStore:
    return LogStore.from_tables(read_log(directory, DataConfig()))


@pytest.fixture
def log(tmp_path) -> Path:
    return write_batches(tmp_path / "log")


def told(store: LogStore, searches: Searches) -> dict[str, np.ndarray]:
    """What the data room tells of a person and of videos, without any trained model."""
    asked, counters = (searches.user_N, searches.time_ms_N), Counters(store)
    reader = EventReader(store, LongPlay(np.zeros(0, np.int64), np.array([15_000.0])))
    videos, times = np.arange(store.counts.videos), searches.time_ms_N[:, None]
    first, end = known(store, *asked, 50)
    first_ms = np.array(
        [store.events.time_ms[store.outcome_index.rows[a:b]].sum() for a, b in zip(first, end, strict=True)]
    )
    return {
        **reader.recent(*asked, 12),
        **reader.engaged(*asked, 40),
        "seen": np.array([videos.sum() for videos in seen(store, *asked)], np.int64),
        "preference": first_ms,
        "clicks": counters.video_clicks.before(videos, times),
        "results": counters.query_shown.before(searches.query_N, searches.time_ms_N),
        "popularity": np.stack([popularity(store, int(time_ms)) for time_ms in searches.time_ms_N]),
    }


def probed(log: Path, every: int = 3) -> int:
    """How many searches passed."""
    store = read(log)
    sessions = np.arange(store.counts.sessions)[8::every]
    with raw_past(log, Config(), store) as past:
        probe(store, sessions, told, past)
    return len(sessions)


def test_searches_fall_into_batches(log):
    """Else the probe would prove nothing."""
    store = read(log)
    e, s = store.events, store.sessions
    began = [(e.user == user) & (e.time_ms < time_ms) for user, time_ms in zip(s.user, s.time_ms, strict=True)]
    open_S = [int((mine & (e.known_ms >= time_ms)).sum()) for mine, time_ms in zip(began, s.time_ms, strict=True)]
    later_S = [
        int((e.time_ms[e.user == user] >= time_ms).sum()) for user, time_ms in zip(s.user, s.time_ms, strict=True)
    ]
    assert np.mean(open_S) > 0.4
    assert np.mean(later_S) > 5


def test_what_is_left_of_the_files(log, tmp_path):
    """In the middle of the fourth view of a batch: four rows of it are left, in their order, the fourth unanswered."""
    header, *rows = csv.reader((log / "rec_inter.csv").read_text().splitlines())
    user, begins = rows[200][0], int(rows[200][4])
    batch = [row for row in rows if (row[0], int(row[4])) == (user, begins)]
    spans = [int(float(row[2] or row[3])) for row in batch]
    moment = begins + sum(spans[:4]) - 1
    RawLog.of(log).write(tmp_path, moment)
    _, *left = csv.reader((tmp_path / "rec_inter.csv").read_text().splitlines())
    assert header == list(FEED.names())
    mine = [row for row in left if (row[0], int(row[4])) == (user, begins)]
    assert mine == [*batch[:3], [*batch[3][:2], "", *batch[3][3:5], "", "", "", ""]]
    early = [row for row in rows if int(row[4]) < moment - DAY_MS]
    assert [row for row in left if int(row[4]) < moment - DAY_MS] == early
    assert max(int(row[4]) for row in left) < moment <= max(int(row[4]) for row in rows)
    _, *searches = csv.reader((tmp_path / "src_inter.csv").read_text().splitlines())
    assert max(int(row[2]) for row in searches) < moment
    assert (tmp_path / "item_features.csv").read_text() == (log / "item_features.csv").read_text()


@pytest.mark.parametrize(("kind", "every"), [("folder", 3), ("zip", 12), ("parquet", 12)])
def test_honest_code_passes(kind, every, log, tmp_path):
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
            for file in log.iterdir():
                archive.write(file, f"KuaiSAR/{file.name}")
        log = tmp_path / "log.zip"
    elif kind == "parquet":
        for file in list(log.iterdir()):
            pl.read_csv(file).write_parquet(file.with_suffix(".parquet"))
            file.unlink()
    assert probed(log, every) > 30 // every


def test_a_table_in_parts_is_one_table(log):
    whole, lines = RawLog.of(log), (log / "rec_inter.csv").read_text().splitlines(keepends=True)
    (log / "rec_inter.csv").unlink()
    (log / "rec_inter").mkdir()
    for number, part in enumerate((lines[1:100], lines[100:])):
        (log / "rec_inter" / f"part-{number}.csv").write_text("".join([lines[0], *part]))
    parts = RawLog.of(log)
    for name, began in whole.began_ms.items():
        assert np.array_equal(parts.began_ms[name], began)
        assert np.array_equal(parts.ended_ms[name], whole.ended_ms[name])


def _known_when_begun(user_N, batch_ms_N, span_ms_N, real=outcomes.times):
    began_N, _ = real(user_N, batch_ms_N, span_ms_N)
    return began_N, began_N


def _known_with_the_batch(user_N, batch_ms_N, span_ms_N):
    return batch_ms_N, batch_ms_N + span_ms_N


def _told_in_reverse(user_N, batch_ms_N, span_ms_N, real=outcomes.times):
    began_N, ended_N = real(user_N[::-1], batch_ms_N[::-1], span_ms_N[::-1])
    return began_N[::-1].copy(), ended_N[::-1].copy()


@pytest.mark.parametrize("leak", [_known_when_begun, _known_with_the_batch, _told_in_reverse])
def test_a_leak_of_ingest_is_found(leak, log, monkeypatch):
    """The finished store is wrong all through, so that cutting it shows nothing; the files do."""
    monkeypatch.setattr(outcomes, "times", leak)
    store = read(log)
    probe(store, np.arange(store.counts.sessions)[8::3], told)
    with pytest.raises(LeakFound, match=r"^session \d+ at \d+ ms: feature '\w+' changes"):
        probed(log)


def test_a_click_filed_hours_early_is_found(log, monkeypatch):
    real = read_log

    def early(*args, **options):
        tables = real(*args, **options)
        return dataclasses.replace(tables, search=tables.search.with_columns(pl.col("time_ms") - 6 * 3_600_000))

    monkeypatch.setattr("pr2_jax.evaluation.raw_leak_probe.read_log", early)
    store = LogStore.from_tables(early(log, DataConfig()))
    with raw_past(log, Config(), store) as past, pytest.raises(LeakFound, match="changes"):
        probe(store, np.arange(30, 40), told, past)


def test_a_reader_that_does_not_wait_is_found(log, monkeypatch):
    real = histories.known_end
    monkeypatch.setattr(histories, "known_end", lambda index, user_N, time_N: real(index, user_N, time_N + 60_000))
    with pytest.raises(LeakFound, match="feature 'history_BxH' changes"):
        probed(log)


def test_another_log_is_refused(log, tmp_path):
    other = shutil.copytree(log, tmp_path / "other")
    lines = (other / "rec_inter.csv").read_text().splitlines(keepends=True)
    (other / "rec_inter.csv").write_text("".join(lines[:20] + lines[21:]))
    wrong = pytest.raises(BadInput, match=r"not the log that this work directory was made from \(events\.\w+ differ\)")
    with wrong, raw_past(other, Config(), read(log)):
        pass


def test_the_command(finished_alone, capsys):
    """One line on stdout, where all is well."""
    assert entry.main(["evaluate", "--workdir", str(finished_alone), "--raw-probe", str(finished_alone / "world")]) == 0
    said = capsys.readouterr().out
    assert said == (
        "raw leak probe: 6 searches of the test day and 6 searches of a training day read the same numbers "
        "from world without their future\n"
    )


def test_the_command_names_what_leaks(finished_alone, monkeypatch, capsys):
    real = histories.history_end
    monkeypatch.setattr(histories, "history_end", lambda store, user_N, time_N: real(store, user_N, time_N + DAY_MS))
    assert entry.main(["evaluate", "--workdir", str(finished_alone), "--raw-probe", str(finished_alone / "world")]) == 2
    assert "feature 'recent" in capsys.readouterr().err.splitlines()[-1]


def test_a_whole_system_made_with_a_leak(finished, micro_config, monkeypatch):
    """Everything that a search is told, from a store whose ingest knows outcomes as soon as views begin."""
    monkeypatch.setattr(outcomes, "times", _known_when_begun)
    store = read(finished / "world")
    opened = System.open(finished, micro_config)
    system = dataclasses.replace(opened, log=LogView.of(store, micro_config.data))
    evaluation = dataclasses.replace(micro_config.evaluation, probe_sessions=30)
    config = dataclasses.replace(micro_config, evaluation=evaluation)
    assert probe_training(system, config, Past(store.truncated)) == 30
    with raw_past(finished / "world", config, store) as past, pytest.raises(LeakFound, match=r"changes|differ"):
        probe_training(system, config, past)
