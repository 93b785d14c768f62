"""Sampled negatives: found by retrieval, never shown in the session, never clicked before, never from the future."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import OptimConfig, QinConfig
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.batches.slates import search_slates
from pr2_jax.data.history.histories import seen
from pr2_jax.search.system import System
from pr2_jax.stages import mine_negatives

COUNT = 6


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture(scope="module")
def slates(system):
    """Small ones, so that a session becomes several."""
    made = search_slates(system.store, training_sessions(system.store), 3)
    assert len(made) > len(np.unique(made.session_N))
    return made


@pytest.fixture(scope="module")
def widened(system, slates):
    return _widened(system, slates, 5)


def _widened(system, slates, seed):
    return mine_negatives.joined(slates, mine_negatives.sampled(system, slates, config_of(seed)))


def config_of(seed: int, **fields) -> QinConfig:
    return QinConfig(sampled_negatives=COUNT, optim=OptimConfig(seed=seed), **fields)


def _forbidden(system, slates, row: int) -> dict[str, np.ndarray]:
    store, time_ms = system.store, slates.time_ms_N[row]
    first = store.sessions.first_impression[slates.session_N[row] :][:2]
    return {
        "shown": store.impressions.video[slice(*first)],
        "clicked before": seen(store, slates.user_N[row : row + 1], slates.time_ms_N[row : row + 1])[0],
        "of the future": np.flatnonzero(np.asarray(store.videos.upload_ms) > time_ms),
    }


def test_what_was_there_stays(slates, widened):
    size = slates.video_NxS.shape[1]
    for field in dataclasses.fields(slates):
        before, after = getattr(slates, field.name), getattr(widened, field.name)
        assert np.array_equal(after[:, :size] if after.ndim > 1 else after, before)
        assert after.dtype == before.dtype


def test_negatives_are_not_clicked_and_padding_does_not_count(slates, widened):
    size = slates.video_NxS.shape[1]
    added = widened.video_NxS[:, size:]
    assert added.shape == (len(slates), COUNT)
    assert (added > 0).mean() > 0.7
    assert not widened.label_NxSxY[:, size:].any()
    assert np.array_equal(widened.told_NxSxY[:, size:, 0], added > 0)
    assert not widened.told_NxSxY[:, size:, 1:].any()
    assert (widened.position_NxS[:, size:] == -1).all()
    assert (widened.impression_NxS[:, size:] == -1).all()


def test_negatives_are_retrieved_distinct_and_allowed(system, slates, widened):
    queries, at = np.unique(slates.query_N, return_inverse=True)
    found_QxK = mine_negatives._retrieved(system, queries, system.config.search.candidates)
    for row, added in enumerate(widened.video_NxS[:, slates.video_NxS.shape[1] :]):
        added = added[added > 0]
        assert len(np.unique(added)) == len(added)
        assert np.isin(added, found_QxK[at[row]]).all()
        for why, videos in _forbidden(system, slates, row).items():
            assert not np.isin(added, videos).any(), why


@pytest.mark.parametrize("why", ["shown", "clicked before", "of the future"])
def test_each_rule_is_needed(system, slates, monkeypatch, why):
    """Without the rules, what each forbids is drawn: the test above can fail."""
    monkeypatch.setattr(mine_negatives, "_allowed", lambda store, slates, rows, video_NxK: video_NxK > 0)
    free = _widened(system, slates, 5).video_NxS[:, slates.video_NxS.shape[1] :]
    assert any(np.isin(added, _forbidden(system, slates, row)[why]).any() for row, added in enumerate(free))


def test_negatives_come_from_the_whole_depth_and_exact_search(system, slates, widened, monkeypatch):
    queries, at = np.unique(slates.query_N, return_inverse=True)
    depth = system.config.search.candidates
    found_QxK = mine_negatives._retrieved(system, queries, depth)
    assert found_QxK.shape == (len(queries), depth)
    added = widened.video_NxS[:, slates.video_NxS.shape[1] :]
    ranks = (found_QxK[at][:, None, :] == added[..., None]).argmax(-1)[added > 0]
    assert ranks.max() > 0.9 * depth
    assert ranks.mean() == pytest.approx(depth / 2, rel=0.15)
    real, asked = System.channels, []
    monkeypatch.setattr(System, "channels", lambda *a, exact=False: asked.append(exact) or real(*a, exact=exact))
    mine_negatives._retrieved(system, queries[:3], depth)
    assert asked == [True]


def test_where_nothing_is_retrieved_they_are_drawn_as_they_are_clicked(system, slates, monkeypatch):
    """Also where nothing is known of any video: a ranker needs what it can tell the clicked ones from."""
    monkeypatch.setattr(mine_negatives, "_retrieved", lambda system, queries, depth: np.full((len(queries), depth), -1))
    added = _widened(system, slates, 5).video_NxS[:, slates.video_NxS.shape[1] :]
    clicks_V = np.asarray(system.fitted.snapshot(system.store.cuts.validation_ms).popularity_V)
    assert (added > 0).mean() > 0.9
    assert (clicks_V[added[added > 0]] > 0).all()
    assert not any(np.isin(row, _forbidden(system, slates, n)["shown"]).any() for n, row in enumerate(added))
    drawn = mine_negatives._by_clicks(system, (400, 12), 5)
    assert all(len(set(row[row > 0])) == (row > 0).sum() for row in drawn)
    often = clicks_V >= np.quantile(clicks_V[clicks_V > 0], 0.9)
    assert often[drawn[drawn > 0]].mean() > 1.5 * often[clicks_V > 0].mean()


def test_drawn_by_the_seed(system, slates, widened):
    assert np.array_equal(_widened(system, slates, 5).video_NxS, widened.video_NxS)
    assert not np.array_equal(_widened(system, slates, 6).video_NxS, widened.video_NxS)


def test_no_slates(system):
    nothing = search_slates(system.store, np.zeros(0, np.int64), 3)
    assert _widened(system, nothing, 5).video_NxS.shape == (0, 3 + COUNT)


def test_draw_is_uniform_over_what_is_not_banned(rng):
    video_NxK = np.tile(np.arange(1, 9), (4_000, 1))
    banned_NxK = video_NxK % 2 == 0
    picked = mine_negatives._draw(video_NxK, banned_NxK, 3, rng)
    assert set(np.unique(picked)) == {1, 3, 5, 7}
    np.testing.assert_allclose(np.bincount(picked.ravel(), minlength=8)[1::2] / picked.size, 0.25, atol=0.02)
    assert mine_negatives._draw(video_NxK[:1], banned_NxK[:1], 6, rng)[0, 4:].tolist() == [0, 0]
    assert mine_negatives._draw(video_NxK[:1], banned_NxK[:1], 10, rng).shape == (1, 10)


def test_at_most_so_many_queries_are_retrieved(system, slates, capsys, monkeypatch):
    """Rather those that are searched more. Slates of the others have no negatives."""
    real, asked = mine_negatives._retrieved, []
    monkeypatch.setattr(mine_negatives, "_retrieved", lambda *a: asked.append(a[1]) or real(*a))
    added = mine_negatives.sampled(system, slates, config_of(5, negative_queries=40))
    queries, count = np.unique(slates.query_N, return_counts=True)
    assert len(asked[0]) == 40 < len(queries)
    assert np.array_equal((added > 0).any(1), np.isin(slates.query_N, asked[0]))
    covered = int(np.isin(slates.query_N, asked[0]).sum())
    told = (
        f"40 of {len(queries):,} queries are retrieved, which are those of {covered:,} of {len(slates):,} search slates"
    )
    assert told in capsys.readouterr().err
    assert count[np.isin(queries, asked[0])].mean() > 1.2 * count.mean()
    mine_negatives.sampled(system, slates, config_of(6, negative_queries=40))
    assert asked[0].tolist() != asked[1].tolist()


def test_a_bound_that_all_queries_keep_changes_nothing(system, slates):
    queries = len(np.unique(slates.query_N))
    bounds = (queries, 10 * queries)
    exact, lax = (mine_negatives.sampled(system, slates, config_of(5, negative_queries=most)) for most in bounds)
    assert np.array_equal(exact, lax)
