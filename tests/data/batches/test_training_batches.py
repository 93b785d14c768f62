"""Batches: each row once a pass, nothing of the future in them, labels where they can be known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import ContentConfig, DataConfig, OptimConfig, PdrConfig, QinConfig
from pr2_jax.data.batches.sessions import impressions_of, training_sessions
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.batches.training_batches import (
    ContentBatches,
    EpochOrder,
    HardNegatives,
    PdrBatches,
    Positives,
    QinBatches,
    SlateReader,
)
from pr2_jax.data.history.video_attributes import catalogue_arrays, query_words
from pr2_jax.errors import BadInput

DATA, OPTIM = DataConfig(), OptimConfig(batch=10, seed=4)


@pytest.fixture
def queries(store, rng) -> np.ndarray:
    return rng.normal(size=(store.counts.queries, 3)).astype(np.float32)


def preference_of(user_B: np.ndarray, time_ms_B: np.ndarray) -> np.ndarray:
    """A preference that says whose it is and of when."""
    return np.stack([user_B, time_ms_B // 1000 % 1_000_000], axis=1).astype(np.float32)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def check_shares(batches, step: int) -> None:
    """Shares of several processes, also one whose rows do not lie together, are pieces of the very same batch."""
    whole = batches(step)
    for rows in (np.arange(5), np.arange(5, 10), np.array([0, 1, 6, 7]), np.array([9]), np.zeros(0, np.int64)):
        share = batches(step, rows)
        split = {name for name in whole if name.split("_")[-1].startswith("B")}
        assert split >= {"words_BxQ"}
        assert same(share, {name: array[rows] if name in split else array for name, array in whole.items()})


@pytest.mark.parametrize(("n", "batch"), [(23, 5), (20, 5), (3, 8), (1, 4), (7, 7)])
def test_each_row_once_a_pass(n, batch):
    """Across batch boundaries, also where a batch holds several passes."""
    order, steps = EpochOrder(n, batch, seed=2), 4 * n
    rows = np.concatenate([order.rows(step) for step in range(steps)])
    assert len(rows) == steps * batch
    passes = rows[: len(rows) // n * n].reshape(-1, n)
    assert np.array_equal(np.sort(passes, axis=1), np.tile(np.arange(n), (len(passes), 1)))
    assert n < 5 or len(np.unique(passes, axis=0)) == len(passes)


def test_a_step_needs_no_steps_before_it():
    order = EpochOrder(23, 5, seed=2)
    forward = [order.rows(step).tolist() for step in range(20)]
    assert [EpochOrder(23, 5, seed=2).rows(step).tolist() for step in range(20)] == forward
    assert [order.rows(step).tolist() for step in reversed(range(20))] == forward[::-1]
    assert [EpochOrder(23, 5, seed=3).rows(step).tolist() for step in range(20)] != forward


def test_content_batches(store):
    config = ContentConfig(caption_share=0.4, uniform_negatives=7, optim=OPTIM)
    caption = catalogue_arrays(store, store.cuts.validation_ms, DATA)["caption"]
    batches = ContentBatches(store, training_sessions(store), caption, config, DATA)
    rows, owner = impressions_of(store, training_sessions(store))
    hit = store.impressions.clicks[rows] > 0
    words_PxQ, video_P = query_words(store, store.sessions.query[owner[hit]], DATA), store.impressions.video[rows[hit]]
    clicked = set(zip(map(tuple, words_PxQ.tolist()), video_P.tolist(), strict=True))
    seen = set()
    for step in range(12):
        batch = batches(step)
        assert same(batch, batches(step))
        assert [batch[name].shape for name in ("words_BxQ", "video_B", "uniform_N")] == [(10, 8), (10,), (7,)]
        pairs = list(zip(map(tuple, batch["words_BxQ"].tolist()), batch["video_B"].tolist(), strict=True))
        assert set(pairs[:6]) <= clicked
        seen |= set(pairs[:6])
        for words, video in pairs[6:]:
            picked = [word for word in words if word]
            assert 1 <= len(picked) <= 3
            assert set(picked) <= set(caption[video].tolist())
        assert (batch["uniform_N"] > 0).all()
        check_shares(batches, step)
    assert seen == clicked
    assert not same(batches(0), batches(1))


def test_content_batches_without_clicks_or_captions(store):
    """Captions alone, clicks alone; neither is an error that says so."""
    config = ContentConfig(caption_share=0.4, uniform_negatives=7, optim=OPTIM)
    caption = catalogue_arrays(store, store.cuts.validation_ms, DATA)["caption"]
    nobody, everybody = np.zeros(0, np.int64), training_sessions(store)
    alone = ContentBatches(store, nobody, caption, config, DATA)
    assert alone.length.steps > 0
    assert alone(0)["video_B"].shape == (10,)
    assert set(alone.positives_N) == set(np.flatnonzero(caption.any(1)))
    clicks = ContentBatches(store, everybody, np.zeros_like(caption), config, DATA)
    assert clicks(0)["video_B"].shape == (10,)
    assert set(clicks.positives_N) <= set(store.impressions.video[store.impressions.clicks > 0])
    with pytest.raises(BadInput, match="no clicked search with words and no caption"):
        ContentBatches(store, nobody, np.zeros_like(caption), config, DATA)


def plain_histories(store, users, times, n, *, engaged: bool) -> list[list[int]]:
    e, out = store.events, []
    for user, time_ms in zip(users, times, strict=True):
        past = np.flatnonzero((e.user == user) & ((e.known_ms if engaged else e.time_ms) < time_ms) & (user > 0))
        if engaged:
            past = past[(e.click | e.like | e.follow | e.forward)[past]]
            past = past[np.argsort(e.known_ms[past], kind="stable")]
        out.append(e.video[past][-n:].tolist())
    return out


def pdr_batches(reader, queries, config, hard=None) -> tuple[Positives, PdrBatches]:
    positives = Positives.of(reader, config)
    people_PxD = preference_of(positives.user_P, positives.time_ms_P)
    return positives, PdrBatches(reader, positives, queries, people_PxD, config, DATA, hard)


def test_pdr_batches(store, reader, queries):
    """Positives are engaged events of the training days; histories hold nothing at or after them."""
    config = PdrConfig(history=8, uniform_negatives=6, feed_share=0.4, optim=OPTIM)
    positives, batches = pdr_batches(reader, queries, config)
    e, s, first = store.events, store.sessions, store.sessions.first_impression
    for step in range(15):
        batch = batches(step)
        assert same(batch, batches(step))
        session = batch["session_B"][:6]
        assert (s.time_ms[session] < store.cuts.validation_ms).all()
        for row, video, shown in zip(session, batch["video_B"], batch["shown_B"], strict=False):
            results = slice(first[row], first[row + 1])
            assert video in store.impressions.video[results][store.impressions.clicks[results] > 0]
            assert shown in store.impressions.video[results]
        assert np.array_equal(batch["words_BxQ"][:6], query_words(store, s.query[session], DATA))
        assert np.array_equal(batch["query_content_BxD"][:6], queries[s.query[session]])
        assert np.array_equal(batch["profile_BxP"][:6], store.users.profile[s.user[session]])
        assert np.array_equal(batch["preference_BxD"][:6], preference_of(s.user[session], s.time_ms[session]))
        assert (batch["feedback_BxT"][:6] == [1, 0, 0]).all()
        want = plain_histories(store, s.user[session], s.time_ms[session], 8, engaged=True)
        assert [[v for v in row if v] for row in batch["history_BxH"][:6].tolist()] == want
        feed = positives.event_F[batches._feed_order.rows(step)]
        want = plain_histories(store, e.user[feed], e.time_ms[feed], 8, engaged=True)
        assert [[v for v in row if v] for row in batch["history_BxH"][6:].tolist()] == want
        assert np.array_equal(batch["preference_BxD"][6:], preference_of(e.user[feed], e.time_ms[feed]))
        assert np.array_equal(batch["video_B"][6:], e.video[feed])
        assert (batch["gap_seconds_BxH"][batch["history_BxH"] > 0] > 0).all()
        assert len(np.unique(batch["session_B"][6:])) == 4
        assert (batch["session_B"][6:] < 0).all()
        assert not batch["words_BxQ"][6:].any()
        assert not batch["shown_B"][6:].any()
        assert batch["feedback_BxT"][6:].any(1).all()
        assert batch["hard_BxK"].shape == (10, 0)
        check_shares(batches, step)
    feed = (e.surface == 0) & (e.known_ms < store.cuts.validation_ms)
    assert feed[positives.event_F].all()
    assert np.isin(positives.video_P[positives.searches :], e.video[feed]).all()


def test_pdr_hard_negatives_are_the_row_s_own(reader, queries):
    config = PdrConfig(history=8, uniform_negatives=6, feed_share=0.4, hard_negatives=3, optim=OPTIM)
    positives, easy = pdr_batches(reader, queries, config)
    sessions, videos = positives.session_S, positives.video_P[: positives.searches]
    hard_SxK = 100 * np.arange(len(videos))[:, None] + np.arange(1, 6)[None, :]
    hard = HardNegatives(hard_SxK.astype(np.int32), np.arange(len(videos)))
    _, batches = pdr_batches(reader, queries, config, hard)
    for step in range(10):
        batch = batches(step)
        assert all(np.array_equal(batch[name], easy(step)[name]) for name in ("video_B", "session_B", "words_BxQ"))
        owner = batch["hard_BxK"][:6] // 100
        assert (owner == owner[:, :1]).all()
        assert np.array_equal(sessions[owner[:, 0]], batch["session_B"][:6])
        assert np.array_equal(videos[owner[:, 0]], batch["video_B"][:6])
        assert not batch["hard_BxK"][6:].any()
        check_shares(batches, step)


def test_pdr_rows_of_searches_that_were_not_mined_have_no_hard_negatives(reader, queries):
    """And the others the very ones that they have where all were mined."""
    config = PdrConfig(history=8, uniform_negatives=6, feed_share=0.4, hard_negatives=3, optim=OPTIM)
    positives, _ = pdr_batches(reader, queries, config)
    hard_SxK = (100 * np.arange(positives.searches)[:, None] + np.arange(1, 6)[None, :]).astype(np.int32)
    row_S = np.arange(positives.searches) + 1
    all_of_them = HardNegatives(np.concatenate([np.zeros((1, 5), np.int32), hard_SxK]), row_S)
    some = dataclasses.replace(all_of_them, row_S=np.where(row_S % 2, row_S, 0))
    whole, part = (pdr_batches(reader, queries, config, hard)[1] for hard in (all_of_them, some))
    mined = np.zeros(0, bool)
    for step in range(10):
        batch, other = whole(step), part(step)
        has_B = other["hard_BxK"].any(1)
        assert np.array_equal(other["hard_BxK"], np.where(has_B[:, None], batch["hard_BxK"], 0))
        assert all(np.array_equal(batch[name], other[name]) for name in batch if name != "hard_BxK")
        mined = np.concatenate([mined, has_B[:6]])
    assert mined.any()
    assert not mined.all()


@pytest.mark.parametrize("personal", [True, False])
def test_qin_batches(personal, store, reader, queries, rng):
    config = QinConfig(
        personal=personal, slate=4, history=8, keep_query=6, keep_video=2, realtime=5, feed_share=0.3, optim=OPTIM
    )
    search = search_slates(store, training_sessions(store), 4)
    feed = feed_slates(reader, 0, store.cuts.validation_ms, 4)
    features = [rng.normal(size=(*part.video_NxS.shape, 2)).astype(np.float32) for part in (search, feed)]
    batches = QinBatches(SlateReader(reader, queries, config, DATA), search, features[0], feed, features[1], config)
    order = EpochOrder(len(search), 7, OPTIM.seed), EpochOrder(len(feed), 3, OPTIM.seed + 1)
    for step in range(8):
        batch = batches(step)
        assert same(batch, batches(step))
        assert batch["is_feed_B"].tolist() == [0] * 7 + [1] * 3
        assert ("history_BxH" in batch) == personal
        for part, rows, at in zip((search, feed), order, (slice(0, 7), slice(7, 10)), strict=True):
            picked = rows.rows(step)
            assert np.array_equal(batch["video_BxS"][at], part.video_NxS[picked])
            assert np.array_equal(batch["label_BxSxT"][at], part.label_NxSxY[picked][..., :3])
            assert np.array_equal(batch["query_content_BxD"][at], queries[part.query_N[picked]])
            if not personal:
                continue
            for name, engaged, n in (("history_BxH", True, 8), ("recent_BxR", False, 5)):
                want = plain_histories(store, part.user_N[picked], part.time_ms_N[picked], n, engaged=engaged)
                assert [[v for v in row if v] for row in batch[name][at].tolist()] == want
        assert np.array_equal(batch["features_BxSxF"][:7], features[0][order[0].rows(step)])
        check_shares(batches, step)


def test_without_feed_all_rows_are_searches(store, reader, queries, rng):
    config = QinConfig(personal=False, slate=4, feed_share=0.3, optim=OPTIM)
    search = search_slates(store, training_sessions(store), 4)
    nothing = feed_slates(reader, 0, 0, 4)
    features = [rng.normal(size=(*part.video_NxS.shape, 2)).astype(np.float32) for part in (search, nothing)]
    reading = SlateReader(reader, queries, config, DATA)
    batch = QinBatches(reading, search, features[0], nothing, features[1], config)(0)
    assert batch["is_feed_B"].tolist() == [0] * 10
    check_shares(QinBatches(reading, search, features[0], nothing, features[1], config), 0)
    alone = dataclasses.replace(config, feed_share=0.0)
    feed = feed_slates(reader, 0, store.cuts.validation_ms, 4)
    other = QinBatches(reading, search, features[0], feed, np.zeros((*feed.video_NxS.shape, 2)), alone)(0)
    assert np.array_equal(other["video_BxS"], batch["video_BxS"])
