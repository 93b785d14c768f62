"""Whether people find again what they clicked: decided by the log, obeyed by everything that retrieves or judges."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pr2_jax import pipeline
from pr2_jax.config.loader import override
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.batches.slates import search_slates
from pr2_jax.data.history.histories import found_before, found_before_share, seen
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.evaluation.rankings import rank_day, session_metrics
from pr2_jax.retrieval import postings
from pr2_jax.search.system import System
from pr2_jax.stages import mine_negatives, refinding_policy

WORLDS = {"new finds": 0.0, "old finds": 0.6}
CHANNELS = ("bm25", "dr", "qrcf", "pdr")


@pytest.fixture(scope="module", params=WORLDS)
def world(request, micro_config, tmp_path_factory) -> tuple[str, System]:
    """A log without a model, and its words, as the index stage has them. The second's people look again for what they
    found."""
    place = tmp_path_factory.mktemp("clicked")
    share = f"--config.world.refind_share={WORLDS[request.param]}"
    config = override(micro_config, [share, "--config.search.clicked=auto"])
    pipeline.ingest(place, config, None)
    system = System.open(place, config)
    fitted = dataclasses.replace(system.fitted, made_postings=postings.fit(system.store, config.retrieval))
    return request.param, dataclasses.replace(system, fitted=fitted)


def test_found_before_by_brute_force(world):
    _, system = world
    store = system.store
    e, s, i = store.events, store.sessions, store.impressions
    got = found_before(store)
    assert got.shape == i.video.shape
    for row in range(0, store.counts.sessions, 5):
        mine = (e.user == s.user[row]) & e.click & (e.time_ms < s.time_ms[row])
        shown = slice(s.first_impression[row], s.first_impression[row + 1])
        assert got[shown].tolist() == np.isin(i.video[shown], e.video[mine]).tolist()
    share = got[np.asarray(i.clicks) > 0].mean()
    assert found_before_share(store) == pytest.approx(share)
    report = json.loads((system.workdir / "store" / "report.json").read_text())
    assert report["found_before_share"] == pytest.approx(share)


def test_the_log_decides(world):
    """By words alone, which every channel here goes by."""
    name, system = world
    found = refinding_policy.decide(system, dict.fromkeys(CHANNELS, system.fitted.bm25))
    by = found["clicked_by"]
    assert by["gain"] == pytest.approx(by["ndcg@10"]["show"] - by["ndcg@10"]["withhold"])
    assert (by["gain"] > by["standard_error"] > 0) == (found["clicked"] == "show") == (name == "old finds")
    assert (found["clicked_by"]["share"] > 0.15) == (name == "old finds")
    if name == "old finds":
        assert by["gain"] > 0.02


def test_where_nobody_wants_old_finds_they_are_in_the_way(world):
    _, system = world
    impressions = system.store.impressions
    clicks = np.where(found_before(system.store), 0, impressions.clicks)
    store = dataclasses.replace(system.store, impressions=dataclasses.replace(impressions, clicks=clicks))
    other = system.over(store)
    cuts, channels = store.cuts, dict.fromkeys(CHANNELS, other.fitted.bm25)
    found = [
        refinding_policy._ndcg(other, day_of(other, cuts.validation_ms, cuts.test_ms, withhold=w), channels)
        for w in (0, 1)
    ]
    assert found[1].mean() > found[0].mean() > 0
    assert refinding_policy.decide(other, channels)["clicked"] == "withhold"


def test_nobody_found_anything_again(world, monkeypatch):
    """Then nothing is retrieved to decide, and all is as if there were no choice."""
    _, system = world
    monkeypatch.setattr(refinding_policy, "_ndcg", lambda *rest: pytest.fail("retrieved"))
    monkeypatch.setattr("pr2_jax.evaluation.judged_day._again", lambda store, rows, session_P, video_P: video_P < 0)
    assert refinding_policy.decide(system, {}) == {"clicked": "withhold", "clicked_by": {"share": 0.0}}


@pytest.mark.parametrize("rule", ["show", "withhold"])
def test_who_says_so_is_obeyed(world, rule):
    _, system = world
    asked = override(system.config, [f"--config.search.clicked={rule}"])
    assert refinding_policy.decide(System.open(system.workdir, asked), {}) == {"clicked": rule}


@pytest.mark.parametrize("withhold", [True, False])
def test_a_day_is_judged_by_what_may_be_found(world, withhold):
    _, system = world
    store, cuts = system.store, system.store.cuts
    day, before = day_of(system, cuts.test_ms, cuts.end_ms, withhold=withhold), found_before(store)
    s, i = store.sessions, store.impressions
    want, again = {}, 0
    for row in np.flatnonzero(np.asarray(s.time_ms) >= cuts.test_ms):
        shown = np.arange(s.first_impression[row], s.first_impression[row + 1])
        hit = shown[np.asarray(i.clicks)[shown] > 0]
        again += int(before[hit].sum())
        if len(kept := hit[~before[hit]] if withhold else hit):
            want[row] = sorted(np.asarray(i.video)[kept].tolist())
    assert dict(zip(day.sessions.tolist(), map(np.ndarray.tolist, day.clicked), strict=True)) == want
    assert (day.refinding.again, day.refinding.withheld) == (again, withhold)
    assert day.refinding.nothing_new == len(day.clicked_sessions) - len(set(day.sessions) if withhold else want) or (
        not withhold
    )
    assert len(day.requests.seen) == (len(day.sessions) if withhold else 0)


@pytest.fixture(scope="module")
def shown(finished, micro_config, tmp_path_factory) -> System:
    """The finished directory's log and models with another index: everything may be found again."""
    place = shutil.copytree(finished, tmp_path_factory.mktemp("shown") / "w")
    config = override(micro_config, ["--config.search.clicked=auto"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            refinding_policy,
            "_ndcg",
            lambda system, day, channels: np.full(len(day.sessions), 0.5 if day.requests.seen else 0.75),
        )
        pipeline.index(place, config)
    return System.open(place, config)


def test_the_index_keeps_what_was_decided(finished, micro_config, shown):
    told = System.open(finished, micro_config)
    assert told.fitted.choices.withholds_clicked
    assert told.fitted.choices.clicked_by is None
    assert not shown.fitted.choices.withholds_clicked
    assert shown.fitted.choices.clicked_by["ndcg@10"] == {"show": 0.75, "withhold": 0.5}
    assert 0 < shown.fitted.choices.clicked_by["share"] < 0.15


def test_shown_again_all_clicks_count_and_old_finds_are_found(shown):
    cuts = shown.store.cuts
    day = day_of(shown, cuts.test_ms, cuts.end_ms)
    rankings = rank_day(shown, shown.config, day, ())
    metrics, past = session_metrics(shown, rankings), seen(shown.store, day.requests.user_B, day.requests.time_ms_B)
    for name, ranking in rankings.by_name.items():
        assert np.array_equal(metrics[name].session_N, day.clicked_sessions)
        old = [np.isin(ids[ids > 0], mine).any() for ids, mine in zip(ranking.ids_SxK, past, strict=True)]
        assert any(old), name
        each = [
            np.isin(ids[ids > 0], videos).sum() / len(videos)
            for ids, videos in zip(ranking.ids_SxK[:, :100], day.clicked_videos, strict=True)
        ]
        if name == "retrieval.random":  # no two scores alike
            assert metrics[name]["recall@100"] == pytest.approx(np.array(each))


def test_rankers_learn_about_what_serving_shows(shown, finished, micro_config):
    """Sampled negatives may be old finds, but for those of the session; and their clicks are told."""
    for system, allowed in ((shown, True), (System.open(finished, micro_config), False)):
        slates = search_slates(system.store, training_sessions(system.store), 3)
        found_NxK = np.tile(np.arange(1, system.store.counts.videos), (len(slates), 1))
        free_NxK = mine_negatives._allowed(system, slates, np.arange(len(slates)), found_NxK)
        past = seen(system.store, slates.user_N, slates.time_ms_N)
        old = [free_K[videos - 1].any() for free_K, videos in zip(free_NxK, past, strict=True) if len(videos)]
        assert any(old) == allowed
        assert len(system.columns(system.config.qin)) - len(system.columns(system.config.base)) == 15 + allowed


def test_negatives_of_a_session_are_nothing_that_it_shows(shown):
    store = shown.store
    slates = search_slates(store, training_sessions(store), 3)
    video_NxK = slates.video_NxS
    assert not mine_negatives._allowed(shown, slates, np.arange(len(slates)), video_NxK).any()


def test_what_is_found_again_is_marked(finished, micro_config, monkeypatch):
    from pr2_jax.search.engine import SearchEngine

    engine = SearchEngine.load(finished, micro_config)
    store = engine.system.store
    clicks_U = np.bincount(np.asarray(store.events.user)[np.asarray(store.events.click)])
    person = int(store.users.raw_id[clicks_U.argmax()])
    withheld = engine.search(person, "", 50).results
    monkeypatch.setattr(System, "withheld", lambda *rest: ())
    results = engine.search(person, "", 50).results
    mine = (np.asarray(store.events.user) == clicks_U.argmax()) & np.asarray(store.events.click)
    clicked_before = set(np.asarray(store.videos.raw_id)[np.asarray(store.events.video)[mine]].tolist())
    assert [one.clicked_before for one in results] == [one.video_id in clicked_before for one in results]
    assert any(one.clicked_before for one in results)
    assert not any(one.clicked_before for one in withheld)


def test_variants_are_judged_by_one_rule(shown):
    """A day is read by the rule that is given, whatever the index of a variant decided."""
    cuts = shown.store.cuts
    day = day_of(shown, cuts.test_ms, cuts.end_ms, withhold=True)
    assert day.refinding.withheld
    assert len(day.requests.seen) == len(day.sessions) < len(day.clicked_sessions)
    assert dataclasses.replace(day.refinding, withheld=False) == day_of(shown, cuts.test_ms, cuts.end_ms).refinding
