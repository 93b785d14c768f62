"""The Python door: who searches, for what, and what comes back."""

from __future__ import annotations

import dataclasses
import logging
import shutil

import jax
import numpy as np
import pytest

from pr2_jax.config import loader
from pr2_jax.errors import BadInput, StaleArtifact
from pr2_jax.ranking.calibration import Unlearned
from pr2_jax.search.engine import SearchEngine, SearchResults
from pr2_jax.search.searcher import Calibrated

NOBODY = 987_654_321
NONSENSE = "zzqqxx yyvvkk"


def _rows(engine, found: SearchResults) -> np.ndarray:
    return engine.system.store.video_rows(np.array([result.video_id for result in found.results]))


def _clicked(engine, raw_user: int) -> set[int]:
    store, row = engine.system.store, engine.system.store.user_row(raw_user)
    mine = (np.asarray(store.events.user) == row) & np.asarray(store.events.click)
    return set(np.asarray(store.videos.raw_id)[np.asarray(store.events.video)[mine]].tolist())


def _check(engine, found: SearchResults, raw_user: int | None, k: int) -> None:
    """What holds of every answer, whoever asks for whatever."""
    ids = [result.video_id for result in found.results]
    assert len(ids) == k == len(set(ids))
    assert (_rows(engine, found) > 0).all()
    scores = [result.score for result in found.results]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()
    for result in found.results:
        assert tuple(result.heads) == ("click", "long_play", "like")
        assert all(0 <= p <= 1 for p in result.heads.values())
        assert set(result.channels) <= set(engine.searcher.channels)
        assert all(0 < score <= 1 for score in result.channels.values())
        assert 0 <= result.relevance <= 1
    past = set() if raw_user is None else _clicked(engine, raw_user)
    assert not past & set(ids)
    assert all(because.video_id in past for result in found.results for because in result.because)


def test_heads_that_were_not_learned_are_left_out(engine, watcher, known_query, monkeypatch):
    calibrated = engine.searcher.calibrated
    heads = (calibrated.heads[0], Unlearned(), Unlearned())
    alone = dataclasses.replace(calibrated.fusion, alpha_T=(1.0, 0.0, 0.0))
    monkeypatch.setattr(engine, "searcher", dataclasses.replace(engine.searcher, calibrated=Calibrated(heads, alone)))
    found = engine.search(watcher, known_query, 5)
    assert [tuple(result.heads) for result in found.results] == [("click",)] * 5
    assert np.isfinite([result.score for result in found.results]).all()


def test_known_user_and_known_words(engine, watcher, known_query):
    found = engine.search(watcher, known_query, 20)
    _check(engine, found, watcher, 20)
    assert found.known_user
    assert found.unknown_words == ()
    assert max(result.relevance for result in found.results) > 0.5
    assert any("bm25" in result.channels for result in found.results)


def test_words_can_be_given_by_raw_id(engine, watcher, known_query):
    store = engine.system.store
    ids = [int(store.words.raw_id[row]) for row in store.word_rows(known_query.split())]
    assert engine.search(watcher, ids) == engine.search(watcher, known_query)


def test_words_are_found_as_people_type_them(engine, watcher, known_query):
    plain = engine.search(watcher, known_query)
    assert [word.text for word in plain.words] == known_query.split()
    wide = "".join(chr(ord(sign) + 0xFEE0) if sign.isalnum() else sign for sign in known_query)
    for typed in ("-".join(known_query.split()), f" {known_query.upper()} !", wide):
        assert engine.search(watcher, typed) == plain
    ids = [int(engine.system.store.words.raw_id[row]) for row in engine.system.store.word_rows(known_query)]
    assert engine.search(watcher, str(ids)) == plain


@pytest.mark.parametrize("user", [NOBODY, None])
def test_unknown_user_gets_relevance_without_a_past(engine, user, known_query):
    found = engine.search(user, known_query, 10)
    _check(engine, found, None, 10)
    assert not found.known_user
    assert all(result.because == () and "qrcf" not in result.channels for result in found.results)
    assert any("bm25" in result.channels for result in found.results)


def test_user_without_a_history(engine, known_query):
    """Known to the log, but never clicked anything: as if all of the past were taken away."""
    store = engine.system.store
    requests = engine.encode(np.array([1], np.int32), [store.word_rows(known_query.split())]).requests
    early = np.array([store.cuts.start_ms], np.int64)
    before = dataclasses.replace(requests, time_ms_B=early, seen=(np.zeros(0, np.int32),))
    ranked = engine.rank(engine.system.encode(before), 10)
    assert (ranked.ids_BxK[0, :10] > 0).all()
    assert not ranked.found_BxKxC[0, :, ranked.channels.index("qrcf")].any()


@pytest.mark.parametrize("query", [NONSENSE, "", []])
def test_without_a_known_word_preference_answers(engine, watcher, query):
    found = engine.search(watcher, query, 10)
    _check(engine, found, watcher, 10)
    assert found.unknown_words == (tuple(query.split()) if query else ())
    assert not any({"bm25", "dr"} & set(result.channels) for result in found.results)


def test_half_known_query_names_the_unknown_word(engine, watcher, known_query):
    first = known_query.split()[0]
    found = engine.search(watcher, f"{first} zzqqxx", 10)
    assert found.unknown_words == ("zzqqxx",)
    assert [(word.text, word.known) for word in found.words] == [(first, True), ("zzqqxx", False)]
    assert any("bm25" in result.channels for result in found.results)


@pytest.mark.parametrize("query", [NONSENSE, ""])
def test_nothing_known_at_all_is_answered(engine, query):
    _check(engine, engine.search(None, query, 10), None, 10)


def test_more_words_than_the_model_reads(engine, watcher, known_query):
    _check(engine, engine.search(watcher, " ".join([known_query] * 20), 5), watcher, 5)


def test_more_results_than_there_are_videos(engine, watcher, known_query):
    found = engine.search(watcher, known_query, 1_000)
    _check(engine, found, watcher, len(found.results))
    assert engine.system.config.search.candidates < len(found.results) < 400


def test_k_cuts_the_same_list(engine, watcher, known_query):
    long = engine.search(watcher, known_query, 30).results
    assert engine.search(watcher, known_query, 3).results == long[:3]


def test_because_names_past_views_by_share(engine, known_query):
    """Over all users, some results are explained, strongest seed first, by shares of one whole."""
    explained = 0
    for raw_user in np.asarray(engine.system.store.users.raw_id)[1:40].tolist():
        for result in engine.search(raw_user, known_query, 20).results:
            shares = [because.share for because in result.because]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1 + 1e-6
            assert "qrcf" not in result.channels or shares
            explained += bool(shares)
    assert explained


def test_because_is_the_sum_over_every_seed(engine, watcher, known_query):
    """Against a plain walk over seeds and their neighbours."""
    words = engine.system.store.word_rows(known_query.split())
    encoded = engine.encode(np.array([engine.system.store.user_row(watcher)], np.int32), [words])
    seeds, similarity = encoded.seeds, engine.searcher.snapshot.similarity
    explained = 0
    for result in engine.search(watcher, known_query, 40).results:
        (video,) = engine.system.store.video_rows(np.array([result.video_id]))
        part = []  # of each past view; a video may have been viewed more than once
        for seed, strength in zip(seeds.video_BxK[0], seeds.strength_BxK[0], strict=True):
            at = similarity.neighbour_VxM[seed].tolist().index(video) if video in similarity.neighbour_VxM[seed] else -1
            if strength > 0 and at >= 0 and (weight := float(similarity.weight_VxM[seed, at])) > 0:
                part.append((float(strength) * weight, int(engine.system.store.videos.raw_id[seed])))
        best = sorted(part, key=lambda one: -one[0])[:3]
        assert [because.video_id for because in result.because] == [raw for _, raw in best]
        shares = [because.share for because in result.because]
        assert shares == pytest.approx([one / sum(p for p, _ in part) for one, _ in best], rel=1e-4)
        explained += len(best) > 1
    assert explained


def test_a_batch_is_its_single_searches(engine, known_query):
    store = engine.system.store
    users = np.array([1, 0, 5, 9, 17, 30, 2], np.int32)
    text = [known_query, known_query, "", NONSENSE, known_query.split()[0], known_query, f"{known_query} zzqqxx"]
    words = [store.word_rows(one.split()) for one in text]
    together = engine.rank(engine.encode(users, words), 10)
    for row in range(len(users)):
        alone = engine.rank(engine.encode(users[row : row + 1], words[row : row + 1]), 10)
        np.testing.assert_array_equal(together.ids_BxK[row, :10], alone.ids_BxK[0, :10])
        np.testing.assert_allclose(together.scores_BxK[row, :10], alone.scores_BxK[0, :10], atol=1e-4)


def test_repeated_searches_compile_nothing(engine, watcher, known_query, caplog):
    """After one search, other users and other words of the same shapes are served by what is compiled."""
    engine.search(watcher, known_query, 10)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        for user in (watcher, NOBODY, None, *np.asarray(engine.system.store.users.raw_id)[1:9].tolist()):
            for query in (known_query, known_query.split()[0], NONSENSE, ""):
                engine.search(user, query, 10)
        assert not [r.getMessage()[:120] for r in caplog.records if "Compiling" in r.getMessage()]
        jax.jit(lambda x: x + 7)(1)
    assert any("Compiling" in r.getMessage() for r in caplog.records)  # so it would have been seen


def test_a_directory_that_is_none(tmp_path):
    with pytest.raises(StaleArtifact, match=r"not a work directory .* `pr2 run --config NAME`"):
        SearchEngine.load(tmp_path)


def test_missing_stage_is_named(finished, tmp_path):
    for name in ("store", "content", "preference", "pdr", "index"):
        shutil.copytree(finished / name, tmp_path / name)
    shutil.copy(finished / "config.json", tmp_path)
    with pytest.raises(StaleArtifact, match=r"/qin does not exist .* `pr2 train qin`"):
        SearchEngine.load(tmp_path)


def test_models_of_another_config_are_refused(finished, micro_config):
    other = loader.override(micro_config, ["--config.pdr.width=32"])
    with pytest.raises(StaleArtifact, match=r"config\.pdr\.width was 16, is now 32.*`pr2 train pdr`"):
        SearchEngine.load(finished, other)


@pytest.mark.parametrize(
    ("user", "k", "said"), [(3.7, 5, "user = 3.7"), ("12", 5, "user = '12'"), (1, 0, "k = 0"), (1, -1, "k = -1")]
)
def test_arguments_that_mean_nothing_are_refused(engine, known_query, user, k, said):
    with pytest.raises(BadInput, match=said):
        engine.search(user, known_query, k)


@pytest.mark.parametrize("query", [None, 3, b"ab", [1.5], [None], [True], {"a": 1}])
def test_queries_that_are_no_words_are_refused(engine, query):
    with pytest.raises(BadInput, match="query"):
        engine.search(1, query, 5)


def test_ids_beyond_64_bits_are_just_unknown(engine):
    found = engine.search(10**30, [10**30], 5)
    _check(engine, found, None, 5)
    assert not found.known_user
    assert found.unknown_words == (str(10**30),)


LOST = (
    "pdr/params",
    "qin/qin/params",
    "qin/scaler.npz",
    "preference/fit_vectors.npy",
    "index/as_of_{end}/popularity.npy",
)


@pytest.mark.parametrize("lost", [*LOST, "index/fitted.json", "index/dr/rows.npy", "index/bm25/score.npy"])
def test_a_damaged_artifact_is_one_line_with_the_remedy(finished, tmp_path, lost):
    directory = shutil.copytree(finished, tmp_path / "w")
    end = max(path.name for path in (directory / "index").glob("as_of_*")).removeprefix("as_of_")
    place = directory / lost.format(end=end)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    stage = directory / lost.split("/")[0]  # a part alone would be skipped as fresh
    with pytest.raises(StaleArtifact, match=rf"is damaged .* remove {stage} and make it anew with `pr2 run`"):
        SearchEngine.load(directory).search(1, "a", 5)
