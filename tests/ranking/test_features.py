"""Ranking features counted by hand on a log of nine events; the scaler and the choice of columns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import QinConfig, RetrievalConfig
from pr2_jax.data.history.counters import Counters
from pr2_jax.ranking import features
from pr2_jax.ranking.features import FEATURES, GROUPS, RankingFeatures, Scaler, columns
from pr2_jax.retrieval import postings
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import Seeds
from pr2_jax.types import Requests

HOUR = 3_600_000


@pytest.fixture
def similarity() -> ItemSimilarity:
    """1 -> 3 (.5), 4 (.2); 3 -> 1 (.4); 5 -> 3 (.9); the rest know nobody."""
    neighbour, weight = np.zeros((7, 2), np.int32), np.zeros((7, 2), np.float32)
    neighbour[1], weight[1] = (3, 4), (0.5, 0.2)
    neighbour[3, 0], weight[3, 0] = 1, 0.4
    neighbour[5, 0], weight[5, 0] = 3, 0.9
    return ItemSimilarity(neighbour, weight)


class SeedsByHand:
    """Videos 1 and 3 with strengths 2 and 1 for everybody; with a query only 1. Row 1 of a batch has none."""

    space = None  # not the one that the features are computed by

    def both(self, requests: Requests, query_BxD: np.ndarray | None = None) -> tuple[Seeds, Seeds]:
        return self._seeds(requests, [1, 0]), self._seeds(requests, [1, 3])

    def _seeds(self, requests: Requests, videos: list[int]) -> Seeds:
        video = np.tile(np.array([videos], np.int32), (len(requests), 1))
        strength = np.where(video == 1, 2.0, 1.0) * (video > 0)
        strength[1:2] = 0
        return Seeds(video, strength.astype(np.float32), strength.astype(np.float32))


class FitByHand:
    """Person u's own regression adds 7 u + hour to a video's duration, with the video as its doubt; for
    its author it adds 7 u + hour - video, for its categories 7 u + hour + 2 videos."""

    def people(self, user_N, time_ms_N):
        return 7 * np.asarray(user_N) + np.asarray(time_ms_N) // HOUR

    def logits(self, fits, video_NxS, duration_ms_NxS):
        return np.stack([fits[:, None] + duration_ms_NxS, np.broadcast_to(video_NxS, duration_ms_NxS.shape)], -1)

    def leanings(self, fits, video_NxS):
        return np.stack([fits[:, None] - video_NxS, fits[:, None] + 2 * video_NxS], -1)


class NumbersByHand:
    """Of video v at hour h: 4 v + 100 h and what follows; durations of 1000 v + h."""

    def __call__(self, video_NxS, time_ms_Nx1):
        return (4 * video_NxS + 100 * (time_ms_Nx1 // HOUR))[..., None] + np.arange(4)

    def durations(self, video_NxS, time_ms_Nx1):
        return 1_000 * video_NxS + time_ms_Nx1 // HOUR


class PreferenceByHand:
    """Person u adds 10 u + hour to video v's appeal v, task t times as much."""

    fit = FitByHand()

    def people(self, user_N, time_ms_N):
        return 10 * np.asarray(user_N) + np.asarray(time_ms_N) // HOUR

    def logits(self, people, video_NxS):
        times_T = np.arange(1, 4)
        shape = (*video_NxS.shape, 3)
        return np.broadcast_to(people[:, None, None] * times_T, shape), video_NxS[..., None] * times_T


@pytest.fixture
def compute(store, rng):
    vectors = rng.normal(size=(7, 3)).astype(np.float32)
    space = SimpleNamespace(videos_VxD=vectors, queries=lambda words_BxQ: vectors[words_BxQ[:, 0]])

    bm25 = Bm25Channel(postings.fit(store, RetrievalConfig()))
    features = RankingFeatures(Counters(store), NumbersByHand(), bm25, again=True)
    features.vectors = vectors
    features.encoders = SimpleNamespace(space=space, preference=PreferenceByHand(), seeds=SeedsByHand())
    return features


def asked(compute, user_B, hour_B, words_BxQ, query_B) -> EncodedRequests:
    parts = np.array(user_B), np.array(hour_B) * HOUR, np.array(words_BxQ, np.int32)
    return EncodedRequests(Requests(*parts, query_B=np.array(query_B)), compute.encoders)


VIDEOS_2xS = np.array([[1, 3, 4, 5, 0], [5, 3, 1, 6, 0]])


@pytest.fixture
def of(compute, similarity):
    """Features by name `[2, 5]`: user 1 at hour 9 with query 1, user 2 at hour 6 with an unknown query."""
    requests = asked(compute, [1, 2], [9, 6], [[1, 2], [3, 0]], [1, 0])
    got = compute(requests, VIDEOS_2xS, similarity)
    assert got.shape == (2, 5, len(FEATURES))
    assert got.dtype == np.float32
    return lambda name: got[..., FEATURES.index(name)]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("query_words", [2, 2, 2, 2], [1, 1, 1, 1]),
        ("query_searches", [2, 2, 2, 2], [0, 0, 0, 0]),  # hours 3 and 4; the one at 9 is the request's own
        ("query_video_clicks", [0, 1, 0, 1], [0, 0, 0, 0]),
        ("query_video_share", [0, 0.2, 0, 0.2], [0, 0, 0, 0]),
        ("clicks", [2, 2, 0, 2], [1, 2, 2, 0]),  # both channels, strictly before
        ("search_clicks", [0, 1, 0, 1], [1, 1, 0, 0]),
        ("shown", [1, 3, 0, 2], [2, 2, 1, 0]),
        ("search_ctr", [0, 1 / 6, 0, 1 / 5], [1 / 5, 1 / 5, 0, 0]),
        ("item_cf", [0.4, 1.0, 0.4, 0], [0, 0, 0, 0]),  # 2 x .5 for video 3, 2 x .2 for 4, 1 x .4 for 1
        ("item_cf_by_clicks", [0.4 / 5, 1 / 5, 0.4 / 3, 0], [0, 0, 0, 0]),
        ("qrcf", [0, 1.0, 0.4, 0], [0, 0, 0, 0]),
        ("user_clicks", [3, 3, 3, 3], [2, 2, 2, 2]),
        ("views_of_video", [2, 1, 0, 0], [1, 1, 0, 0]),
        ("clicks_of_video", [2, 1, 0, 0], [1, 1, 0, 0]),
        ("author_clicks", [2, 1, 1, 0], [0, 1, 0, 0]),  # of authors 1, 2, 2, none; user 2: none, 2, 1, 3
        ("author_share", [2 / 4, 1 / 4, 1 / 4, 0], [0, 1 / 3, 0, 0]),
        # user 1 clicked category 1 twice, 2 twice, 3 once; video 4 has 1 and 3: (2 + 1) / 2 / (3 + 1)
        ("category_share", [2 / 4, 1 / 4, 1.5 / 4, 0], [0, 1 / 3, 0, 0]),
        ("preference_fit", [1_025, 3_025, 4_025, 5_025], [5_026, 3_026, 1_026, 6_026]),  # 7 + 9 + 9; 14 + 6 + 6
        ("preference_fit_doubt", [1, 3, 4, 5], [5, 3, 1, 6]),
        ("preference_fit_author", [15, 13, 12, 11], [15, 17, 19, 14]),  # 7 + 9, 14 + 6
        ("preference_fit_category", [18, 22, 24, 26], [30, 26, 22, 32]),
    ],
)
def test_counted_by_hand(name, first, second, of):
    np.testing.assert_allclose(of(name)[:, :4], [first, second], rtol=1e-6)


def test_relevance_and_numbers_are_of_the_right_video(of, compute, store):
    query_2xD = compute.vectors[[1, 3]]
    cosine = np.einsum("nd,nsd->ns", query_2xD, compute.vectors[VIDEOS_2xS])
    np.testing.assert_allclose(of("content_cosine"), cosine, rtol=1e-5)
    bm25 = Bm25Channel(postings.fit(store, RetrievalConfig())).scores(np.array([[1, 2], [3, 0]]), VIDEOS_2xS)
    assert bm25.any(1).tolist() == [True, False]
    np.testing.assert_array_equal(of("bm25"), bm25)
    for place, name in enumerate(("log_duration", "has_duration", "log_age", "has_age")):
        assert np.array_equal(of(name), VIDEOS_2xS * 4 + place + np.array([[900], [600]]))


def test_preference_and_appeal_are_of_the_right_person_and_video(of):
    for place, task in enumerate(("click", "long_play", "like"), 1):
        assert np.array_equal(of(f"preference_{task}"), np.array([[19], [26]]) * place * np.ones((1, 5)))
        assert np.array_equal(of(f"appeal_{task}"), VIDEOS_2xS * place)


def test_the_future_is_not_looked_at(store, compute, similarity):
    """Removing everything at or after the request leaves every bit."""
    requests = asked(compute, [1], [5], [[1, 2]], [1])
    whole = compute(requests, VIDEOS_2xS[:1], similarity)
    early, first = store.events.time_ms < 5 * HOUR, store.sessions.first_impression[:3]
    store.events = SimpleNamespace(**{name: x[early] for name, x in vars(store.events).items()})
    store.sessions = SimpleNamespace(**{name: x[:2] for name, x in vars(store.sessions).items()})
    store.sessions.first_impression = first
    store.impressions = SimpleNamespace(**{name: x[: first[-1]] for name, x in vars(store.impressions).items()})
    bm25 = Bm25Channel(postings.fit(store, RetrievalConfig()))
    cut = RankingFeatures(Counters(store), compute._numbers, bm25, again=True)
    assert cut(requests, VIDEOS_2xS[:1], similarity).tobytes() == whole.tobytes()


def test_an_unknown_person_has_no_past(compute, similarity):
    requests = asked(compute, [0], [9], [[1, 2]], [1])
    got = compute(requests, VIDEOS_2xS[:1], similarity)[0]
    for name in ("category_share", "author_clicks", "author_share", "user_clicks", "views_of_video", "clicks_of_video"):
        assert not got[:, FEATURES.index(name)].any()


def test_who_needs_nothing_of_the_person_is_told_nothing_of_them(compute, similarity):
    requests = asked(compute, [1, 2], [9, 6], [[1, 2], [3, 0]], [1, 0])
    whole = compute(requests, VIDEOS_2xS, similarity)
    plain = compute(requests, VIDEOS_2xS, None, ("video", "relevance"))
    read = columns(QinConfig(personal=False))
    np.testing.assert_array_equal(plain[..., read], whole[..., read])
    assert not np.delete(plain, read, axis=-1).any()
    assert compute(requests, VIDEOS_2xS, similarity, ("video", "links")).tobytes() == whole.tobytes()


def test_own_clicks_are_counted_only_where_people_find_again(compute, similarity):
    """And nothing else changes by it."""
    requests = asked(compute, [1, 2], [9, 3], [[1, 2], [3, 0]], [1, 0])
    counted = compute(requests, VIDEOS_2xS, similarity)
    compute._again = False
    not_counted = compute(requests, VIDEOS_2xS, similarity)
    assert counted[..., :-1].tobytes() == not_counted[..., :-1].tobytes()
    assert counted[..., -1].tolist() == [[2, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert not not_counted[..., -1].any()


@pytest.mark.parametrize(("videos", "cells"), [(0, 1), (1_000_000, 1), (1_000_000, 8)])
def test_large_catalogues_are_read_alike(compute, similarity, monkeypatch, videos, cells):
    requests = asked(compute, [1, 2], [9, 6], [[1, 2], [3, 0]], [1, 0])
    whole = compute(requests, VIDEOS_2xS, similarity)
    monkeypatch.setattr(features, "DENSE_VIDEOS", videos)
    monkeypatch.setattr(features, "DENSE_CELLS", cells)
    assert compute(requests, VIDEOS_2xS, similarity).tobytes() == whole.tobytes()


def test_columns():
    assert len(set(FEATURES)) == len(FEATURES)
    assert columns(QinConfig(), again=True).tolist() == list(range(len(FEATURES)))
    assert columns(QinConfig()).tolist() == list(range(len(FEATURES) - 1))
    assert FEATURES[-1] == "clicks_of_video"
    assert columns(QinConfig(personal=False), again=True).tolist() == columns(QinConfig(personal=False)).tolist()
    assert (
        columns(QinConfig(inputs=("preference",)), again=True).tolist()
        == columns(QinConfig(inputs=("preference",))).tolist()
    )
    assert [FEATURES[at] for at in columns(QinConfig(personal=False))] == [*GROUPS["relevance"], *GROUPS["video"]]
    some = columns(QinConfig(inputs=("preference", "relevance")))
    assert [FEATURES[at] for at in some] == [*GROUPS["relevance"], *GROUPS["preference"]]


@pytest.fixture
def raw(rng) -> np.ndarray:
    """Heavy tails, a column that is always 0 and one that never changes."""
    made = np.exp(3 * rng.normal(size=(500, len(FEATURES)))) * (rng.random((500, len(FEATURES))) < 0.7)
    made[:, FEATURES.index("clicks")] = 0
    made[:, FEATURES.index("has_age")] = 1
    return made.astype(np.float32)


def test_scaler_standardises(raw):
    scaler = Scaler.fit(raw)
    bent = raw.astype(np.float64)
    at = FEATURES.index("bm25")
    bent[:, at] = np.log1p(raw[:, at] / np.median(raw[:, at][raw[:, at] > 0]))
    for column in (at, FEATURES.index("content_cosine")):
        want = (bent[:, column] - bent[:, column].mean()) / bent[:, column].std()
        np.testing.assert_allclose(scaler(raw)[:, column], np.clip(want, -5, 5), rtol=1e-3, atol=1e-4)
    constant = [FEATURES.index("clicks"), FEATURES.index("has_age")]
    assert np.abs(scaler(raw)[:, constant]).max() < 1e-5


def test_scaler_clips_what_the_training_days_never_had(raw):
    scaled = Scaler.fit(raw)(np.full((1, len(FEATURES)), 1e30, np.float32))
    assert np.isfinite(scaled).all()
    assert scaled.max() == 5


def test_scaler_is_the_same_on_any_shape_and_after_the_disk(raw, tmp_path):
    scaler = Scaler.fit(raw)
    scaler.save(tmp_path / "scaler.npz")
    loaded = Scaler.load(tmp_path / "scaler.npz")
    assert np.array_equal(loaded(raw), scaler(raw))
    assert np.array_equal(scaler(raw.reshape(50, 10, -1)).reshape(500, -1), scaler(raw))
    assert scaler(raw).dtype == np.float32
