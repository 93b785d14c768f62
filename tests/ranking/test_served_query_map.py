"""A query's map from fitting to serving: its numbers by hand, without the future, and served as fitted."""

from __future__ import annotations

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from pr2_jax.data.history.counters import TimedCounter
from pr2_jax.data.history.probe import LeakFound
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.evaluation.leak_probe import probe_day
from pr2_jax.ranking import calibration
from pr2_jax.ranking.query_map import PRIOR_SHOWN, QUERY_NUMBERS, QueryMap, QueryNumbers
from pr2_jax.search import batch_scoring
from pr2_jax.search.searcher import Calibrated, Searcher
from pr2_jax.search.system import System
from pr2_jax.stages.export_artifact import export
from pr2_jax.stages.fit_scores import fit_scores
from pr2_jax.types import Requests


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


def test_numbers_of_a_query_by_hand(system):
    """Counted in plain loops over the log; the last searches of the log know most."""
    store = system.store
    sessions = np.arange(store.counts.sessions)[-40:]
    got = QueryNumbers(system.log.counters)(system.log.requests(sessions, withhold=False))
    first = store.sessions.first_impression
    for row, session in zip(got, sessions, strict=True):
        query, time_ms = int(store.sessions.query[session]), int(store.sessions.time_ms[session])
        past = [s for s in range(session) if store.sessions.query[s] == query and store.sessions.time_ms[s] < time_ms]
        shown = sum(int(first[s + 1] - first[s]) for s in past)
        clicks = sum(int((store.impressions.clicks[first[s] : first[s + 1]] > 0).sum()) for s in past)
        words = int(store.queries.first_word[query + 1] - store.queries.first_word[query])
        known = [word > 0 for word in store.queries.words[store.queries.first_word[query] :][: min(words, 4)]]
        want = [np.log1p(len(past)), len(past) > 0, sum(known), clicks / (shown + PRIOR_SHOWN)]
        np.testing.assert_allclose(row, [*want, shown / (shown + PRIOR_SHOWN)])
    assert len(QUERY_NUMBERS) == got.shape[1]
    assert (got[:, 1] == 1).any()
    nobody = Requests(np.zeros(1, np.int32), store.sessions.time_ms[sessions[:1]], np.zeros((1, 4), np.int32))
    assert QueryNumbers(system.log.counters)(nobody).tolist() == [[0, 0, 0, 0, 0]]


def test_the_probe_sees_a_query_that_knows_its_own_moment(system, micro_config, monkeypatch):
    real, _ = TimedCounter.before, system.log.counters.query_clicks  # which is made before the leak

    def leaks(counter, keys_x, times_x):
        return real(counter, keys_x, np.asarray(times_x) + 1)

    def told(self, requests):
        with monkeypatch.context() as patch:
            patch.setattr(TimedCounter, "before", leaks)
            return real_numbers(self, requests)

    real_numbers = QueryNumbers.__call__
    monkeypatch.setattr(QueryNumbers, "__call__", told)
    with pytest.raises(LeakFound, match="feature 'calibration' changes"):
        probe_day(system, micro_config, system.store.cuts.test_ms)


def _query_map() -> QueryMap:
    """One that moves a lot with each number."""
    rng = np.random.default_rng(3)
    count, knots = len(QUERY_NUMBERS), np.array([-13.8, -2.0, 0.0, 1.0, 13.8])
    scale = np.stack([np.zeros(count), np.ones(count)])
    return QueryMap(knots, -0.5, scale, rng.normal(0, 1, count + 1), rng.normal(0, 1, (4, count + 1)))


@pytest.fixture(scope="module")
def by_query(finished, tmp_path_factory):
    """The work directory with a query's map for clicks."""
    place = shutil.copytree(finished, tmp_path_factory.mktemp("query") / "w")
    plain = Calibrated.load(place / "qin" / "pr2.json")
    Calibrated((_query_map(), *plain.heads[1:]), plain.fusion).save(place / "qin" / "pr2.json")
    return place


def test_served_as_fitted_bit_for_bit(by_query, finished, tmp_path):
    """From the work directory and from the artifact alike; and other than without the query."""
    export(by_query, tmp_path / "a")
    assert (tmp_path / "a/qin/pr2.json").read_bytes() == (by_query / "qin/pr2.json").read_bytes()
    store = LogStore.open(finished / "store")
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "query"))
        first, words = np.asarray(store.queries.first_word), np.asarray(store.queries.words)
        for row in range(1, 12):
            text = " ".join(store.words.text[word] for word in words[first[row] : first[row + 1]])
            writer.writerow((int(store.users.raw_id[row]), text))
        writer.writerows([("", "zzqqxx"), ("", "")])
    said = {}
    for name, place in {"w": by_query, "a": tmp_path / "a", "plain": finished}.items():
        batch_scoring.score_file(place, tmp_path / "in.csv", tmp_path / f"{name}.parquet", 7)
        said[name] = (tmp_path / f"{name}.parquet").read_bytes()
    assert said["w"] == said["a"] != said["plain"]


def test_order_within_a_search_is_the_rankers(by_query, micro_config):
    system = System.open(by_query, micro_config)
    searcher = Searcher.open(system, system.fitted.snapshot(system.store.cuts.end_ms))
    sessions = np.arange(system.store.counts.sessions)[-30:]
    requests = system.log.requests(sessions, withhold=False)
    videos = np.random.default_rng(0).integers(1, system.store.counts.videos, (30, 20)).astype(np.int32)
    logits = searcher.score(system.encode(requests), videos)
    click = searcher.probabilities(requests, logits)[..., 0]
    order = np.argsort(logits[..., 0], axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(click, order, 1), axis=1) >= 0).all()
    alone = [searcher.probabilities(requests.slice(at, at + 1), logits[at : at + 1])[0] for at in range(30)]
    assert np.array_equal(np.stack(alone), searcher.probabilities(requests, logits))


@pytest.mark.parametrize("kind", ["platt", "query"])
def test_the_config_names_the_kind(finished, micro_config, monkeypatch, tmp_path, kind):
    """On the validation day's rows; feed heads have no query and take Platt."""
    monkeypatch.setattr(calibration, "LEAST_FOR_QUERY", 5)
    config = dataclasses.replace(micro_config, scores=dataclasses.replace(micro_config.scores, calibration=kind))
    fit_scores(System.open(finished, micro_config), config, finished / "qin", tmp_path)
    heads = Calibrated.load(tmp_path / "pr2.json").heads
    assert isinstance(heads[0], QueryMap if kind == "query" else calibration.Platt)
    assert all(isinstance(head, calibration.Platt) for head in heads[1:])
