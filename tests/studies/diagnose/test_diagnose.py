"""The diagnosis of a finished work directory: what it writes, what it measures, and faults planted in its files."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.config.loader import override
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.schema import DAY_MS
from pr2_jax.errors import StaleArtifact
from pr2_jax.metrics.bootstrap import interval
from pr2_jax.retrieval.qrcf import cosine_sample
from pr2_jax.search.fitted_artifacts import Choices, FittedArtifacts
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System
from pr2_jax.studies.diagnose import diagnose, ranking_diagnostics, retrieval_diagnostics
from pr2_jax.studies.diagnose.diagnose import checks
from pr2_jax.studies.diagnose.findings import LOOK, UNKNOWN, Diagnostic, judge
from pr2_jax.studies.diagnose.ranking_diagnostics import HISTORY, RankingDiagnostics, Slate, another, position_lean
from pr2_jax.studies.diagnose.retrieval_diagnostics import RetrievalDiagnostics

MEAN = functools.partial(interval, draws=50, seed=0)


@pytest.fixture(scope="module")
def diagnosed(finished, tmp_path_factory):
    """A copy of the work directory, diagnosed from the command line; exit status 0 whatever is found."""
    place = shutil.copytree(finished, tmp_path_factory.mktemp("diagnose") / "w")
    assert entry.main(["evaluate", "--workdir", str(place), "--diagnose"]) == 0
    return place


@pytest.fixture(scope="module")
def reported(diagnosed) -> dict:
    findings = json.loads((diagnosed / "eval" / "diagnosis.json").read_text())["findings"]
    return {f"{one['part']}.{one['name']}": one for one in findings}


@pytest.fixture(scope="module")
def ranking(finished, micro_config) -> RankingDiagnostics:
    return RankingDiagnostics(System.open(finished, micro_config), micro_config, MEAN)


@pytest.fixture(scope="module")
def retrieval(finished, micro_config) -> RetrievalDiagnostics:
    return RetrievalDiagnostics(System.open(finished, micro_config), micro_config, MEAN)


@pytest.fixture
def heard(monkeypatch):
    """`heard(place, name)`: a list of every later call of that function: its arguments, and what came of it."""

    def listen(place, name):
        calls, real = [], getattr(place, name)

        def spy(*args, **named):
            out = real(*args, **named)
            calls.append((args, named, out))
            return out

        monkeypatch.setattr(place, name, spy)
        return calls

    return listen


def test_every_check_is_reported_in_both_files(diagnosed, reported):
    shown = (diagnosed / "eval" / "diagnosis.txt").read_text()
    keys = {check.key for check in checks("quantile")}
    assert reported.keys() == keys
    assert all(f" {key} " in shown for key in keys)
    ill = sum(one["verdict"] == LOOK for one in reported.values())
    assert f"{ill or 'None'} of {len(keys)} checks" in " ".join(shown.split())
    known = [one for one in reported.values() if one["verdict"] != UNKNOWN]
    assert len(known) > 10, "too little of the tiny log can be measured to test by"


def test_the_rest_of_the_evaluation_stays_as_it_was(diagnosed, finished, micro_config):
    for path in (finished / "eval").iterdir():
        assert (diagnosed / "eval" / path.name).read_bytes() == path.read_bytes()
    System.open(diagnosed, micro_config).fitted.require("eval")


def test_the_filter_s_own_seeds_are_counted(reported, finished, micro_config):
    system = System.open(finished, micro_config)
    retrieval = RetrievalDiagnostics(system, micro_config, MEAN)
    requests = retrieval.day.requests
    told = np.any(system.space.queries(requests.words_BxQ), axis=1)
    past = (system.log.reader.engaged(requests.user_B, requests.time_ms_B, 1_000)["history_BxH"] > 0).any(1)
    seeds = (system.seeds(requests).strength_BxK > 0)[told & past]
    assert reported["qrcf.coverage"]["measured"]["mean"] == pytest.approx(seeds.any(1).mean())


def test_the_ranker_looked_into_is_the_one_that_serves(ranking, finished, micro_config):
    """Logits of the validation day are the searcher's; gates are shares; the unknown position adds nothing."""
    system, slates = System.open(finished, micro_config), ranking._slates
    searcher = Searcher.open(system, system.fitted.snapshot(system.store.cuts.validation_ms), "pr2")
    want = searcher.score(system.encode(system.log.requests_of(slates)), slates.video_NxS)
    logit, added, gates = ranking._own
    real = slates.video_NxS > 0
    np.testing.assert_allclose(logit[real], want[real], atol=1e-4)
    np.testing.assert_allclose(gates.sum(-1), 1, atol=1e-5)
    assert (added[slates.position_NxS < 0] == 0).all()


def test_a_lent_history_is_the_other_person_s_and_nothing_else(ranking, micro_config, heard):
    slates, system = ranking._slates, ranking._system
    reader = SlateReader(system.log.reader, system.fitted.query_vectors_NqxD, micro_config.qin, micro_config.data)
    told = reader(slates.user_N, slates.time_ms_N, slates.query_N)
    assert {
        name for name in told if "history" in name or "recent" in name or "gap" in name or "signals" in name
    } == set(HISTORY)
    own, *_ = ranking._outputs(slates, ranking._features)
    same, *_ = ranking._outputs(slates, ranking._features, past_of_N=slates.user_N)
    np.testing.assert_array_equal(own, same)
    batches = heard(ranking_diagnostics, "in_blocks")
    other_N = np.roll(slates.user_N, 1)
    ranking._outputs(slates, ranking._features)
    ranking._outputs(slates, ranking._features, past_of_N=other_N)
    half = len(batches) // 2
    mine, lent = ([args[1] for args, *_ in calls] for calls in (batches[:half], batches[half:]))
    theirs = reader(other_N, slates.time_ms_N, slates.query_N)
    assert {name for name in told if (told[name] != theirs[name]).any()} > set(HISTORY), "people must differ elsewhere"
    assert mine[0].keys() == lent[0].keys()
    for name in mine[0]:
        before, after = (np.concatenate([batch[name] for batch in batches]) for batches in (mine, lent))
        np.testing.assert_array_equal(after, theirs[name] if name in HISTORY else before, err_msg=name)


def test_two_askers_beside_the_person(ranking, heard):
    """The ranker with another's history and own numbers; another altogether, whose numbers are theirs too."""
    calls, slates = heard(ranking, "_outputs"), ranking._slates
    moved, lost = heard(ranking_diagnostics, "history_moves"), heard(ranking_diagnostics, "person_worth")
    own, _, _ = ranking._own
    calls.clear()
    ranking.histories()
    lent, stranger = calls
    other_N = slates.user_N[another(slates.user_N)]
    (asked, features), named, _ = lent
    np.testing.assert_array_equal(asked.user_N, slates.user_N)
    np.testing.assert_array_equal(features, ranking._features)
    np.testing.assert_array_equal(named["past_of_N"], other_N)
    (asked, features), named, _ = stranger
    theirs = dataclasses.replace(slates, user_N=other_N)
    np.testing.assert_array_equal(asked.user_N, other_N)
    np.testing.assert_array_equal(features, ranking._features_of(theirs, ranking._system.store.cuts.validation_ms))
    assert not named
    assert (features != ranking._features).any()
    for ((args, _, _),), other in ((moved, lent), (lost, stranger)):
        np.testing.assert_array_equal(args[1], own[..., 0])
        np.testing.assert_array_equal(args[2], other[2][0][..., 0])


def _lies_in(time_ms_N, start_ms, stop_ms):
    assert len(time_ms_N) > 5
    assert start_ms <= time_ms_N.min() <= time_ms_N.max() < stop_ms


def test_calibration_is_of_the_probabilities_that_are_served(ranking, finished, micro_config, heard):
    measured = heard(ranking_diagnostics, "pcoc")
    ranking.calibration()
    (((probability_N, label_N), _, _),) = measured
    system, cuts = System.open(finished, micro_config), ranking._system.store.cuts
    slates = ranking._of_day(cuts.test_ms, cuts.end_ms)
    _lies_in(slates.time_ms_N, cuts.test_ms, cuts.end_ms)
    searcher = Searcher.open(system, system.fitted.snapshot(cuts.test_ms), "pr2")
    requests, real = system.log.requests_of(slates), slates.video_NxS > 0
    logits = searcher.score(system.encode(requests), slates.video_NxS)
    want = searcher.probabilities(requests, logits)[..., 0][real]
    np.testing.assert_allclose(probability_N, want, atol=1e-5)
    np.testing.assert_array_equal(label_N, slates.label("click")[real] > 0)


def test_each_head_s_own_gates_on_the_rows_that_it_is_asked_about(ranking, heard, reported):
    """Clicks: search results; long play and like: feed views."""
    _, _, of_search = ranking._own
    calls, measured = heard(ranking, "_outputs"), heard(ranking_diagnostics, "most_used_expert")
    ranking.experts()
    ((feed, _), _, (_, _, of_feed)) = calls[0]
    gates = [args[0] for args, *_ in measured]
    assert (feed.session_N < 0).all()
    want = {
        "click": of_search[ranking._slates.video_NxS > 0][:, 0],
        "long_play": of_feed[feed.video_NxS > 0][:, 1],
        "like": of_feed[feed.video_NxS > 0][:, 2],
    }
    for got, gate in zip(gates, want.values(), strict=True):
        np.testing.assert_array_equal(got, gate)
    notes = {task: reported[f"qin.expert_{task}"]["note"] for task in want}
    assert len({note.split(";")[0] for note in notes.values()}) == 3
    assert [note.split(" ", 1)[1] for note in (note.rsplit("; ", 1)[1] for note in notes.values())] == [
        "search results", "feed views", "feed views",
    ]  # fmt: skip


def test_nobody_is_somebody_else(reported):
    assert reported["pdr.without_person"]["measured"]["mean"] < 1


def test_recall_is_of_the_last_training_day_against_the_validation_day(retrieval, heard):
    listed, measured = heard(retrieval_diagnostics, "catalogue_metrics"), heard(retrieval_diagnostics, "gap")
    gaps = [retrieval.recall_gap(channel) for channel in ("pdr", "dr")]
    cuts = retrieval._system.store.cuts
    bounds = (cuts.validation_ms - DAY_MS, cuts.validation_ms), (cuts.validation_ms, cuts.test_ms)
    for ((day, *_), _, _), (start_ms, stop_ms) in zip(listed, bounds * 2, strict=True):
        _lies_in(day.requests.time_ms_B, start_ms, stop_ms)
    for (args, _, _), found in zip(measured, (listed[:2], listed[2:]), strict=True):
        assert list(args) == [MEAN(metrics["recall@100"], args[0].requests.user_B) for args, _, (metrics, _) in found]
    assert all(gap.value.mean != 0 for gap in gaps)


def test_a_day_without_slates_says_nothing(ranking):
    none = ranking._of_day(0, 1)
    features = ranking._features_of(none, ranking._system.store.cuts.validation_ms)
    logit, added, gates = ranking._outputs(none, features)
    assert len(none) == len(features) == len(logit) == len(added) == len(gates) == 0
    assert np.isnan(position_lean(Slate.of(none), logit[..., 0], MEAN).value.mean)


def test_a_search_is_compared_with_one_of_another_query(rng):
    query_N = rng.integers(0, 4, 41)
    other = another(query_N)
    assert sorted(other) == list(range(41))
    assert (query_N[other] != query_N).mean() > 0.8
    assert (another(np.repeat([3, 5], 20)) >= 20).sum() == 20


def test_a_threshold_too_high_is_named(diagnosed, micro_config):
    path = diagnosed / "index" / "fitted.json"
    sound = path.read_text()
    path.write_text(json.dumps(json.loads(sound) | {"epsilon": 0.999}))
    found = RetrievalDiagnostics(System.open(diagnosed, micro_config), micro_config, MEAN).coverage()
    path.write_text(sound)
    assert _verdict("qrcf.coverage", found) == LOOK


def _verdict(key, found):
    return judge([check for check in checks("quantile") if check.key == key], {key: found})[0].verdict


def test_an_adaptive_threshold_is_measured_by_its_own_cuts(finished, micro_config, monkeypatch):
    config = override(micro_config, ["--config.retrieval.qrcf.threshold=adaptive"])
    monkeypatch.setattr(FittedArtifacts, "require", lambda self, stage: None)  # the index was made with one epsilon
    system = System.open(finished, config)
    sample_N = cosine_sample(system.store, system.store.cuts.validation_ms, 64)
    made = Choices(2.0, sample_N.tolist(), "withhold")
    system = dataclasses.replace(system, fitted=dataclasses.replace(system.fitted, made=made))
    assert RetrievalDiagnostics(system, config, MEAN).coverage().value.mean > 0


def test_collapsed_vectors_are_named(diagnosed, micro_config):
    path = diagnosed / "index" / "pdr" / "vectors.npy"
    sound = np.load(path)
    rng = np.random.default_rng(0)
    noisy = sound[1:2] + 1e-3 * rng.normal(size=sound.shape)
    np.save(path, (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32))
    found = RetrievalDiagnostics(System.open(diagnosed, micro_config), micro_config, MEAN).rank()
    np.save(path, sound)
    assert _verdict("pdr.rank", found) == LOOK


def test_an_unfinished_work_directory_is_named(diagnosed, micro_config, capsys):
    (diagnosed / "eval" / "manifest.json").rename(diagnosed / "kept.json")
    with pytest.raises(StaleArtifact, match="pr2 evaluate"):
        diagnose.run(diagnosed, micro_config)
    (diagnosed / "kept.json").rename(diagnosed / "eval" / "manifest.json")


@pytest.mark.parametrize("name", ["qin/scaler.npz", "qin/pr2.json"])
def test_a_damaged_file_ends_in_one_line(diagnosed, capsys, monkeypatch, name):
    """Whatever is measured before: that is left out here."""
    monkeypatch.setattr(RetrievalDiagnostics, "all", lambda self: {})
    monkeypatch.setattr(RankingDiagnostics, "all", lambda self: {})
    path = diagnosed / name
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) - 10])
    try:
        assert entry.main(["evaluate", "--workdir", str(diagnosed), "--diagnose"]) == 2
    finally:
        path.write_bytes(sound)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"pr2: error: {path.parent} is damaged (")
    assert f"remove {diagnosed / name.split('/')[0]} and make it anew with `pr2 run`" in last


def test_the_json_comes_last(diagnosed, micro_config, monkeypatch):
    """Where it is there, so is the text."""
    none = {check.key: Diagnostic(np.nan) for check in checks("quantile")}
    monkeypatch.setattr(RetrievalDiagnostics, "all", lambda self: none)
    monkeypatch.setattr(RankingDiagnostics, "all", lambda self: {})
    text = diagnosed / "eval" / "diagnosis.txt"
    text.unlink()
    written = []
    monkeypatch.setattr(diagnose.artifacts, "write_json", lambda path, value: written.append((path, text.exists())))
    diagnose.run(diagnosed, micro_config)
    assert written == [(diagnosed / "eval" / "diagnosis.json", True)]


@pytest.mark.parametrize("other", [["--sweep", "qrcf"], ["--ablations", "setup.py"], ["--seeds", "2"]])
def test_one_study_at_a_time(finished_alone, capsys, monkeypatch, repository, other):
    monkeypatch.chdir(repository)
    assert entry.main(["evaluate", "--workdir", str(finished_alone), "--diagnose", *other]) == 2
    assert capsys.readouterr().err.startswith("pr2: error: ")
