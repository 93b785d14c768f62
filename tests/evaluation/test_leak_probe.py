"""The leak probe must find what is planted, and nothing where nothing is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.data.batches.sessions import training_parts
from pr2_jax.data.history import histories
from pr2_jax.data.history.counters import TimedCounter
from pr2_jax.data.history.probe import LeakFound
from pr2_jax.data.history.video_attributes import VideoNumbers
from pr2_jax.evaluation.leak_probe import probe_day, probe_training
from pr2_jax.ranking.features import RankingFeatures
from pr2_jax.search.fitted_artifacts import FittedArtifacts
from pr2_jax.search.system import System

REAL_BEFORE = TimedCounter.before
REAL_ENDS = {name: getattr(histories, name) for name in ("history_end", "known_end")}


def _counts_its_own_moment(counter, keys_x, times_x):
    return REAL_BEFORE(counter, keys_x, np.asarray(times_x) + 1)


def _counts_the_whole_log(counter, keys_x, times_x):
    return REAL_BEFORE(counter, keys_x, np.full_like(np.asarray(times_x, np.int64), 2**61))


def _remembers_its_own_moment(real):
    return lambda events, user_N, before_ms_N: real(events, user_N, np.asarray(before_ms_N) + 1)


def _remembers_everything(real):
    return lambda events, user_N, before_ms_N: real(events, user_N, np.full(len(user_N), 2**61))


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


def test_nothing_leaks(system, micro_config):
    assert probe_day(system, micro_config, system.store.cuts.test_ms) == micro_config.evaluation.probe_sessions


@pytest.mark.parametrize("leak", [_counts_its_own_moment, _counts_the_whole_log])
def test_a_counter_that_sees_the_future(system, micro_config, monkeypatch, leak):
    monkeypatch.setattr(TimedCounter, "before", leak)
    with pytest.raises(LeakFound, match=r"session \d+ at \d+ ms: feature 'ranking' changes"):
        probe_day(system, micro_config, system.store.cuts.test_ms)


LEAKS = [("history_end", _remembers_its_own_moment), *((name, _remembers_everything) for name in REAL_ENDS)]


@pytest.mark.parametrize(("name", "leak"), LEAKS)
def test_a_history_that_sees_the_future(system, micro_config, monkeypatch, name, leak):
    monkeypatch.setattr(histories, name, leak(REAL_ENDS[name]))
    with pytest.raises(LeakFound, match=r"session \d+ at \d+ ms: feature '\w+' changes"):
        probe_day(system, micro_config, system.store.cuts.test_ms)


def test_a_duration_that_is_told_later(system, micro_config, monkeypatch):
    """On the judged day almost all durations have been told; among training rows the leak is plain."""
    monkeypatch.setattr(VideoNumbers, "durations", lambda numbers, video_x, time_ms_x: numbers.duration_ms_V[video_x])
    with pytest.raises(LeakFound, match=r"session \d+ at \d+ ms: feature 'ranking' changes"):
        probe_training(system, micro_config)


def test_nothing_leaks_into_training_rows(system, micro_config):
    assert probe_training(system, micro_config) == micro_config.evaluation.probe_sessions


def test_training_rows_are_probed_with_the_spaces_they_are_trained_on(system, micro_config, monkeypatch):
    asked, real, told = set(), System.encode, RankingFeatures.__call__
    parts = {}

    def encode(self, requests, held_out=None):
        encoded = real(self, requests, held_out)
        parts[id(encoded.encoders)] = held_out, encoded  # kept, so that nothing else gets its number
        return encoded

    def features(self, encoded, *rest):
        asked.add(parts[id(encoded.encoders)][0])
        return told(self, encoded, *rest)

    monkeypatch.setattr(System, "encode", encode)
    monkeypatch.setattr(RankingFeatures, "__call__", features)
    probe_training(system, micro_config)
    assert asked
    assert asked <= set(training_parts(system.store))
    asked.clear()
    probe_day(system, micro_config, system.store.cuts.test_ms)
    assert asked == {None}


@pytest.mark.parametrize(("name", "leak"), LEAKS)
def test_training_rows_that_remember_the_future(system, micro_config, monkeypatch, name, leak):
    monkeypatch.setattr(histories, name, leak(REAL_ENDS[name]))
    with pytest.raises(LeakFound, match=r"session \d+ at \d+ ms: feature '\w+' changes"):
        probe_training(system, micro_config)


def test_item_similarity_of_the_end_of_the_training_days(system, micro_config, monkeypatch):
    real, cut = System.similarity_as_of, system.store.cuts.validation_ms
    monkeypatch.setattr(System, "similarity_as_of", lambda self, before_ms: real(self, cut))
    with pytest.raises(LeakFound, match="of the snapshot of"):
        probe_training(system, micro_config)


def test_a_snapshot_of_a_later_day(system, micro_config, monkeypatch):
    real = FittedArtifacts.snapshot
    monkeypatch.setattr(FittedArtifacts, "snapshot", lambda self, as_of_ms: real(self, self.store.cuts.end_ms))
    with pytest.raises(LeakFound, match="of the snapshot of"):
        probe_day(system, micro_config, system.store.cuts.test_ms)


def test_evaluate_stops_at_a_leak(finished, monkeypatch, tmp_path, capsys):
    """Exit status 2, one line, no numbers."""
    directory = shutil.copytree(finished, tmp_path / "w")
    shutil.rmtree(directory / "eval")
    monkeypatch.setattr(TimedCounter, "before", _counts_the_whole_log)
    assert entry.main(["evaluate", "--workdir", str(directory)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("pr2: error: session ")
    assert "changes when the future is removed" in lines[-1]
    assert not (directory / "eval").exists()
    assert not (directory / "eval.partial").exists()
