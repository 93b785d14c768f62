"""Run files and metrics of a finished work directory, judged anew in plain Python from the log's own CSV files."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.data.batches.slates import search_slates
from pr2_jax.errors import BadInput
from pr2_jax.evaluation import evaluate
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.evaluation.rankings import Ranking, Rankings, session_metrics
from pr2_jax.search.system import System

DAY_MS = 86_400_000
RETRIEVAL = ("random", "popularity", "bm25", "dr", "bm25+dr", "qrcf", "pdr", "pr2")
RUNS = (
    *(f"retrieval.{name}" for name in RETRIEVAL),
    *(f"pipeline.{name}" for name in ("base", "pr2", "oracle")),
    *(f"slate.{name}" for name in ("random", "popularity", "bm25", "base", "qin", "oracle")),
)


@dataclasses.dataclass
class Session:
    user: str
    time_ms: int
    shown: list[str]
    clicked: set[str]


@dataclasses.dataclass
class Truth:
    """The test day by the CSV files alone."""

    sessions: dict[str, Session]
    clicks: dict[str, list[tuple[int, str]]]  # of each user, over the whole log, and when each was known
    videos: set[str]

    def past(self, session: Session) -> set[str]:
        """What the person had clicked before."""
        return {video for time_ms, video in self.clicks[session.user] if time_ms < session.time_ms}

    def judged(self, *, slate: bool) -> dict[str, Session]:
        """Sessions with a click; on what the person had not clicked before, where the whole catalogue is judged."""
        if slate:
            return {key: session for key, session in self.sessions.items() if session.clicked}
        new = {key: session.clicked - self.past(session) for key, session in self.sessions.items()}
        return {
            key: dataclasses.replace(self.sessions[key], clicked=clicked) for key, clicked in new.items() if clicked
        }


@pytest.fixture(scope="module")
def truth(finished) -> Truth:
    world = finished / "world"
    rows = _read(world / "src_inter.csv")
    end_ms = max(int(row["search_session_timestamp"]) for row in rows) + 1
    sessions: dict[str, Session] = {}
    clicks = collections.defaultdict(list)
    for row in rows:
        if row["item_type"] not in ("VIDEO", "IMAGE_ATLAS"):
            continue
        time_ms, clicked = int(row["search_session_timestamp"]), float(row["click_cnt"]) > 0
        if clicked:
            clicks[row["user_id"]].append((time_ms, row["item_id"]))
        if end_ms - DAY_MS <= time_ms < end_ms:
            new = Session(row["user_id"], time_ms, [], set())
            session = sessions.setdefault(row["search_session_id"], new)
            session.shown.append(row["item_id"])
            session.clicked |= {row["item_id"]} if clicked else set()
    clock: dict[tuple[str, str], int] = {}  # a batch is watched in the order of the file
    for row in _read(world / "rec_inter.csv"):
        batch = row["user_id"], row["timestamp"]
        clock[batch] = clock.get(batch, int(row["timestamp"])) + int(row["playing_time"])
        if float(row["click"]) > 0:
            clicks[row["user_id"]].append((clock[batch], row["item_id"]))
    return Truth(sessions, clicks, {row["item_id"] for row in _read(world / "item_features.csv")})


@pytest.fixture(scope="module")
def runs(finished) -> dict[str, dict[str, dict[str, float]]]:
    """run → session → video → score."""
    return {name: _read_run(finished / "eval" / f"{name}.run") for name in RUNS}


@pytest.fixture(scope="module")
def reported(finished) -> dict:
    return json.loads((finished / "eval" / "metrics.json").read_text())


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_run(path: Path) -> dict[str, dict[str, float]]:
    run = collections.defaultdict(dict)
    for line in path.read_text().splitlines():
        session, q0, video, rank, score, tag = line.split()
        assert (q0, tag) == ("Q0", path.stem)
        assert video not in run[session], f"{video} twice in session {session}"
        assert int(rank) == len(run[session]) + 1
        run[session][video] = float(score)
    return run


def _expected_gains(ranked: dict[str, float], clicked: set[str]) -> list[float]:
    """Relevance of each rank; equal scores share the mean of their ranks."""
    order = sorted(ranked.items(), key=lambda item: -item[1])
    by_score = collections.defaultdict(list)
    for video, score in order:
        by_score[score].append(float(video in clicked))
    return [sum(hits) / len(hits) for hits in by_score.values() for _ in hits]


def _twin(ranked: dict[str, float], session: Session, slate: bool) -> dict[str, float]:
    gains, clicks = _expected_gains(ranked, session.clicked), len(session.clicked)
    found = {"ndcg@10": sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:10]))}
    found["ndcg@10"] /= sum(1 / math.log2(place + 2) for place in range(min(10, clicks)))
    missed, found["mrr"], before, precision = 1.0, 0.0, 0.0, 0.0
    for place, gain in enumerate(gains, start=1):
        found["mrr"] += missed * gain / place
        missed *= 1 - gain
        precision += gain * (before + 1) / place
        before += gain
    if slate:
        right = [
            (mine > other) + 0.5 * (mine == other)
            for video, mine in ranked.items()
            if video in session.clicked
            for against, other in ranked.items()
            if against not in session.clicked
        ]
        return found | ({"auc": sum(right) / len(right)} if right else {})
    return found | {"map": precision / clicks} | {f"recall@{k}": sum(gains[:k]) / clicks for k in (10, 100)}


def test_every_run_of_the_design_is_there(finished, reported):
    assert {path.stem for path in (finished / "eval").glob("*.run")} == set(RUNS)
    assert set(reported["rows"]) == {f"{name}.run" for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_metrics_agree_with_a_plain_twin(name, runs, truth, reported):
    judged = truth.judged(slate=name.startswith("slate."))
    assert len(judged) > 20
    values = collections.defaultdict(list)
    for key, session in judged.items():
        for metric, value in _twin(runs[name].get(key, {}), session, name.startswith("slate.")).items():
            values[metric].append(value)
    row = reported["rows"][f"{name}.run"]
    assert {"ndcg@10", "mrr"} <= set(values) <= set(row)
    for metric, each in values.items():
        assert row[metric]["mean"] == pytest.approx(sum(each) / len(each), abs=1e-6), metric
        assert row[metric]["low"] <= row[metric]["mean"] <= row[metric]["high"]


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("slate.")])
def test_slates_hold_exactly_what_was_shown(name, runs, truth):
    assert runs[name].keys() == truth.sessions.keys()
    for key, session in truth.sessions.items():
        assert set(runs[name][key]) == set(session.shown)


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("slate.")])
def test_whole_catalogue_runs_hold_only_new_videos(name, runs, truth, micro_config):
    """No duplicate (the reader checks), nothing clicked before, nothing outside the catalogue, no session too many."""
    judged = truth.judged(slate=False).keys()
    assert runs[name].keys() <= judged
    deepest = 0
    for key, ranked in runs[name].items():
        session = truth.sessions[key]
        assert not truth.past(session) & ranked.keys()
        assert ranked.keys() <= truth.videos
        deepest = max(deepest, len(ranked))
        scores = list(ranked.values())
        assert scores == sorted(scores, reverse=True)
    retrieval = name.startswith("retrieval.")
    assert deepest <= (micro_config.retrieval.depth if retrieval else micro_config.search.candidates)
    whole = (
        "retrieval.random",
        "retrieval.popularity",
        "retrieval.pdr",
        "retrieval.pr2",
        "pipeline.base",
        "pipeline.pr2",
    )
    if name in whole:
        # The others find nothing where no word is known, or nothing was watched.
        assert runs[name].keys() == judged


def test_clicks_left_out_are_counted(finished, truth, reported):
    """And stand beside the table of the whole catalogue, whose title says the rule."""
    clicked = truth.judged(slate=True)
    again = {key: session.clicked & truth.past(session) for key, session in clicked.items()}
    want = {
        "withheld": True,
        "clicks": sum(len(session.clicked) for session in clicked.values()),
        "again": sum(map(len, again.values())),
        "sessions": sum(map(bool, again.values())),
        "nothing_new": sum(again[key] == session.clicked for key, session in clicked.items()),
    }
    assert reported["found_before"] == want
    assert want["again"] > want["nothing_new"] > 0
    for name in ("table.txt", "table.md", "slices.txt", "slices.md"):
        text = " ".join((finished / "eval" / name).read_text().split())
        assert f"Of {want['clicks']} clicks {want['again']}, in {want['sessions']} searches" in text
        assert ("videos already clicked withheld" in text) == name.startswith("table")


def test_differences_are_those_of_the_rows(reported):
    assert len(reported["differences"]) == len(evaluate.COMPARISONS)
    for pair, row in reported["differences"].items():
        one, other = (reported["rows"][f"{name}.run"] for name in pair.split(" - "))
        for metric, difference in row.items():
            assert difference["mean"] == pytest.approx(one[metric]["mean"] - other[metric]["mean"], abs=1e-9)
            assert difference["low"] <= difference["mean"] <= difference["high"]


def test_calibrated_rankers_report_probability_metrics(reported):
    for name in ("base", "qin"):
        row = reported["rows"][f"slate.{name}.run"]
        assert 0 < row["logloss"]["mean"] < 2
        assert 0 <= row["ece"] < 0.5
        assert row["pcoc"] > 0
    assert "logloss" not in reported["rows"]["slate.bm25.run"]


def test_the_leak_probe_ran(reported, micro_config):
    asked = micro_config.evaluation.probe_sessions
    assert reported["leak_probe_sessions"] == {"test_day": asked, "training_day": asked}


def test_tables_name_every_run(finished):
    for name in ("table.txt", "table.md"):
        text = (finished / "eval" / name).read_text()
        assert all(run in text for run in RUNS)


def test_print_again(finished_alone, capsys):
    assert entry.main(["evaluate", "--workdir", str(finished_alone)]) == 0
    assert capsys.readouterr().out == (finished_alone / "eval" / "table.txt").read_text()


def test_a_day_without_a_click_is_refused(finished, micro_config, monkeypatch, tmp_path):
    real = evaluate.day_of

    def silent(*arguments):
        return dataclasses.replace(real(*arguments), sessions=np.zeros(0, np.int64), clicked=[])

    monkeypatch.setattr(evaluate, "day_of", silent)
    with pytest.raises(BadInput, match="no search of the test day has a click"):
        evaluate.run(finished, micro_config, tmp_path)


def test_a_day_on_which_everything_was_clicked_orders_nothing(finished, micro_config):
    """Any order of it is a perfect one: that is no figure of a ranking."""
    system = System.open(finished, micro_config)
    cuts = system.store.cuts
    day = day_of(system, cuts.test_ms, cuts.end_ms)
    slates = search_slates(system.store, day.all_sessions, 8)
    score_NxS = np.random.default_rng(0).random(slates.video_NxS.shape)
    ranking = {"slate.random": Ranking(slates.video_NxS, score_NxS, of_shown=True)}
    some = session_metrics(system, Rankings(day, slates, ranking))["slate.random"]
    labels = slates.label_NxSxY.copy()
    labels[..., 0] = slates.video_NxS > 0
    every = session_metrics(system, Rankings(day, dataclasses.replace(slates, label_NxSxY=labels), ranking))[
        "slate.random"
    ]
    assert np.isfinite(some["ndcg@10"]).any()
    assert all(np.isnan(every[metric]).all() for metric in ("ndcg@10", "mrr", "auc"))
