"""QRCF against plain NumPy: the filter, the walk by both of its ways, and what seeds weigh."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import QrcfConfig
from pr2_jax.models import qrcf_arithmetic
from pr2_jax.models.qrcf_arithmetic import adaptive_epsilon, filter_ids, walk
from pr2_jax.retrieval.channels import QrcfChannel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import ROUNDING, SeedFilter, cosine_sample, fit_epsilon
from pr2_jax.types import Requests

NOBODY = np.iinfo(np.int32).max
VIDEOS = 25


def plain_filter(query_D, history_HxD, weight_H, epsilon, gamma, k) -> dict[int, float]:
    """position -> strength of the seeds kept."""
    cosine_H = history_HxD @ query_D if query_D.any() else np.ones(len(weight_H))
    real = [at for at in range(len(weight_H)) if weight_H[at] > 0]
    best = sorted(real, key=lambda at: -cosine_H[at])[:k]
    return {at: weight_H[at] * cosine_H[at] ** gamma for at in best if cosine_H[at] >= epsilon and cosine_H[at] > 0}


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def filter_seeds(query_BxD, history_BxHxD, *rest):
    """`filter_ids` of histories given as vectors."""
    ids = np.arange(history_BxHxD[..., 0].size, dtype=np.int32).reshape(history_BxHxD.shape[:2])
    return filter_ids(history_BxHxD.reshape(ids.size, -1), query_BxD, ids, *rest)


@pytest.mark.parametrize("k", [1, 4, 12, 50])
@pytest.mark.parametrize(("epsilon", "gamma"), [(0.1, 2.0), (-1.0, 1.0), (0.99, 2.0)])
def test_filter_is_a_sort(epsilon, gamma, k, rng):
    """Rows: full, padded in front, two views, none. At epsilon .99 all are filtered; K may exceed what is there."""
    query_BxD, history_BxHxD = unit(rng.normal(size=(4, 3))), unit(rng.normal(size=(4, 12, 3)))
    weight_BxH = (rng.random((4, 12)) + 0.1) * (np.arange(12)[None, :] >= np.array([[0], [5], [10], [12]]))
    inputs = query_BxD, history_BxHxD, weight_BxH.astype(np.float32), np.float32(epsilon), np.float32(gamma)
    position, strength, relevance = (np.asarray(x) for x in filter_seeds(*inputs, k))
    assert position.shape == (4, min(k, 12))
    for b in range(4):
        want = plain_filter(query_BxD[b], history_BxHxD[b], weight_BxH[b], epsilon, gamma, k)
        kept = strength[b] > 0
        assert set(position[b][kept]) == set(want)
        np.testing.assert_allclose(strength[b][kept], [want[at] for at in position[b][kept]], rtol=1e-4)
        np.testing.assert_allclose(relevance[b][kept], (history_BxHxD[b] @ query_BxD[b])[position[b][kept]], rtol=1e-4)
        assert (np.diff(relevance[b][kept]) <= 0).all()
        assert not relevance[b][~kept].any()


def test_a_silent_query_keeps_as_many_as_it_may():
    """All views are then equally relevant, and as strong as they weigh; padding stays out."""
    weight = np.array([[0, 0, 3, 2, 5, 7]], np.float32)
    position, strength, relevance = filter_seeds(
        np.zeros((1, 3), np.float32), np.ones((1, 6, 3), np.float32), weight, np.float32(0.9), np.float32(2.0), 3
    )
    assert len(set(np.asarray(position[0]))) == 3
    np.testing.assert_allclose(strength[0], weight[0, np.asarray(position[0])])
    assert relevance.tolist() == [[1, 1, 1]]


def plain_walk(seeds, strengths, neighbour_VxM, similarity_VxM, seen, k) -> list[tuple[int, float]]:
    total = np.zeros(len(neighbour_VxM))
    for seed, strength in zip(seeds, strengths, strict=True):
        for video, similarity in zip(neighbour_VxM[seed], similarity_VxM[seed], strict=True):
            total[video] += strength * similarity
    total[0] = 0
    total[[video for video in seen if video < len(total)]] = 0
    best = sorted(np.flatnonzero(total > 0), key=lambda video: -total[video])[:k]
    return [(int(video), total[video]) for video in best]


@pytest.fixture
def graph(rng) -> tuple[np.ndarray, np.ndarray]:
    """Neighbour lists of uneven length, padded with row 0 and weight 0; nobody lists itself."""
    neighbour = np.stack([rng.permutation(np.delete(np.arange(VIDEOS), [0, v]))[:5] for v in range(VIDEOS)])
    real = (np.arange(5)[None, :] < rng.integers(0, 6, VIDEOS)[:, None]) & (np.arange(VIDEOS) > 0)[:, None]
    weight = np.sort(rng.random((VIDEOS, 5)), axis=1)[:, ::-1]
    return np.where(real, neighbour, 0).astype(np.int32), np.where(real, weight, 0).astype(np.float32)


@pytest.fixture(params=["by_cell", "by_sort"])
def way(request, monkeypatch) -> str:
    """Forces one of the walk's two ways of adding up; a jitted function remembers the shape's way otherwise."""
    monkeypatch.setattr(qrcf_arithmetic, "DENSE_SHARE", 1_000 if request.param == "by_cell" else 0)
    walk.clear_cache()
    yield request.param
    walk.clear_cache()


@pytest.mark.parametrize("k", [1, 6, 40])
def test_walk_against_a_loop(k, way, graph, rng):
    """Rows: four seeds, one of them twice; one seed; seeds without strength; none."""
    seed = np.array([[1, 2, 3, 2], [7, 0, 0, 0], [4, 5, 6, 0], [0, 0, 0, 0]], np.int32)
    strength = rng.random((4, 4)).astype(np.float32) * (seed > 0) * np.array([[1], [1], [0], [1]], np.float32)
    seen = np.full((4, 4), NOBODY, np.int32)
    seen[0, :3] = np.sort(graph[0][[1, 2, 3], 0])
    ids, scores = (np.asarray(x) for x in walk(seed, strength, *graph, seen, k))
    for b in range(4):
        want = plain_walk(seed[b], strength[b], *graph, seen[b], k)
        assert ids[b][: len(want)].tolist() == [video for video, _ in want]
        np.testing.assert_allclose(scores[b][: len(want)], [score for _, score in want], rtol=1e-5)
        assert (ids[b][len(want) :] == -1).all()
        assert (scores[b][len(want) :] == -np.inf).all()
    assert (ids[2:] == -1).all()
    assert not set(ids[0]) & set(seen[0])


def test_where_nothing_is_told_of_videos_every_past_view_counts(reader, space):
    silent = SimpleNamespace(videos_VxD=np.zeros_like(space.videos_VxD), queries=space.queries)
    asked = requests_of([1, 2, 0], [1, 2, 1])
    filtered = SeedFilter(reader, silent, CONFIG, 0.3)
    by_query, latest = filtered.both(asked)
    for one, other in zip(dataclasses.astuple(by_query), dataclasses.astuple(latest), strict=True):
        np.testing.assert_array_equal(one, other)
    assert by_query.strength_BxK.any()


def test_everything_seen_leaves_nothing(way, graph):
    seen = np.arange(1, VIDEOS, dtype=np.int32)[None, :]
    ids, scores = walk(np.array([[3, 4]], np.int32), np.ones((1, 2), np.float32), *graph, seen, 5)
    assert (np.asarray(ids) == -1).all()
    assert (np.asarray(scores) == -np.inf).all()


class Reader:
    """Histories written out: `engaged` keeps the n latest, padded in front."""

    def __init__(self, videos: list[list[int]], gaps_days: list[list[float]], signals: np.ndarray) -> None:
        self._videos, self._gaps, self._signals = videos, gaps_days, signals

    def engaged(self, user_B, time_ms_B, n):
        video, gap = np.zeros((len(user_B), n), np.int32), np.zeros((len(user_B), n), np.float32)
        signals = np.zeros((len(user_B), n, 8), np.float32)
        for row, user in enumerate(user_B):
            past = self._videos[user][-n:]
            if past:
                video[row, -len(past) :] = past
                gap[row, -len(past) :] = np.array(self._gaps[user][-n:]) * 86_400
                signals[row, -len(past) :] = self._signals[past]
        return {"history_BxH": video, "signals_BxHxG": signals, "gap_seconds_BxH": gap}


CONFIG = QrcfConfig(history=6, k=3, gamma=2.0, age_half_life_days=10.0)


@pytest.fixture
def reader(rng) -> Reader:
    signals = np.zeros((VIDEOS, 8), np.float32)
    signals[:, 0] = 1
    signals[5, :5] = 1
    return Reader([[], [3, 4, 5, 6, 7], [9, 10]], [[], [20, 10, 10, 5, 0], [1, 0.5]], signals)


@pytest.fixture
def space(rng) -> SimpleNamespace:
    vectors = unit(rng.normal(size=(VIDEOS, 4)))
    vectors[0] = 0
    words = unit(rng.normal(size=(5, 4)))
    words[0] = 0
    return SimpleNamespace(videos_VxD=vectors, queries=lambda words_BxQ: words[words_BxQ[:, 0]])


def requests_of(users, words=None, seen=()) -> Requests:
    users = np.array(users, np.int32)
    words = np.ones(len(users), np.int32) if words is None else np.array(words, np.int32)
    return Requests(users, np.zeros(len(users), np.int64), words[:, None], seen)


def encoders_of(reader, space) -> SimpleNamespace:
    return SimpleNamespace(space=space, seeds=SeedFilter(reader, space, CONFIG, 0.0))


def test_weights_are_engagement_and_age(reader, space):
    weight = SeedFilter(reader, space, CONFIG, 0.0).weights(reader.engaged([1, 0], None, 6))
    engagement = np.log1p(np.array([1, 1, 4.5, 1, 1]))
    np.testing.assert_allclose(weight[0], [0, *(engagement * 0.5 ** np.array([2, 1, 1, 0.5, 0]))], rtol=1e-5)
    assert not weight[1].any()


def test_seeds_are_the_relevant_views(reader, space):
    seeds = SeedFilter(reader, space, CONFIG, -0.2)(requests_of([1, 2, 0, 1], [1, 2, 1, 3]))
    assert seeds.video_BxK.shape == (4, 3)
    for row, (past, word) in enumerate([([3, 4, 5, 6, 7], 1), ([9, 10], 2), ([], 1), ([3, 4, 5, 6, 7], 3)]):
        query_D = space.queries(np.array([[word]]))[0]
        cosine = {video: float(space.videos_VxD[video] @ query_D) for video in past}
        want = [video for video in sorted(past, key=lambda video: -cosine[video])[:3] if cosine[video] > 0]
        kept = seeds.strength_BxK[row] > 0
        assert seeds.video_BxK[row][kept].tolist() == want
        assert not seeds.video_BxK[row][~kept].any()
        np.testing.assert_allclose(seeds.relevance_BxK[row][kept], [cosine[video] for video in want], rtol=1e-5)
    assert seeds.coverage == (seeds.strength_BxK > 0).any(1).mean()


def test_without_the_query_the_latest_are_seeds(reader, space):
    seeds = SeedFilter(reader, space, CONFIG, 0.5).both(requests_of([1, 2]))[1]
    assert seeds.video_BxK.tolist() == [[7, 6, 5], [10, 9, 0]]


def test_epsilon_is_a_quantile_of_real_views_of_queries_with_words(reader, space):
    config = dataclasses.replace(CONFIG, epsilon_quantile=0.3)
    got = fit_epsilon(reader, space, config, requests_of([1, 2, 0, 1], [1, 2, 1, 0]))
    cosine = [space.videos_VxD[video] @ space.queries(np.array([[1]]))[0] for video in (3, 4, 5, 6, 7)]
    cosine += [space.videos_VxD[video] @ space.queries(np.array([[2]]))[0] for video in (9, 10)]
    assert got == pytest.approx(np.quantile(cosine, 0.3), abs=1e-6)
    assert fit_epsilon(reader, space, config, requests_of([0])) == 0


ADAPTIVE = dataclasses.replace(CONFIG, k=5, threshold="adaptive", adaptive_quantile=0.7)
SAMPLE = np.arange(1, VIDEOS)


def plain_cut(space, word: int, quantile: float) -> float:
    """The cosine that the best `1 - quantile` of the sample reach."""
    cosine = sorted(float(space.videos_VxD[video] @ space.queries(np.array([[word]]))[0]) for video in SAMPLE)[::-1]
    return cosine[max(round((1 - quantile) * len(SAMPLE)), 1) - 1]


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.7, 0.95, 1.0])
def test_the_adaptive_cut_is_a_quantile_of_each_query_s_own_cosines(quantile, reader, space):
    """Rows: two users with a past, nobody; words 1 to 4."""
    config = dataclasses.replace(ADAPTIVE, adaptive_quantile=quantile)
    seeds_of = SeedFilter(reader, space, config, 0.99, SAMPLE)
    seeds = seeds_of(requests_of([1, 2, 0, 1, 1], [1, 2, 1, 3, 4]))
    cuts = set()
    for row, (past, word) in enumerate(
        [([3, 4, 5, 6, 7], 1), ([9, 10], 2), ([], 1), ([3, 4, 5, 6, 7], 3), ([3, 4, 5, 6, 7], 4)]
    ):
        query_D, cut = space.queries(np.array([[word]]))[0], plain_cut(space, word, quantile)
        cuts.add(round(cut, 4))
        got = seeds_of.cuts(query_D[None])
        np.testing.assert_allclose(got, [[cut - ROUNDING]], rtol=1e-5)
        cosine = {video: float(space.videos_VxD[video] @ query_D) for video in past}
        want = [v for v in sorted(past, key=lambda v: -cosine[v]) if cosine[v] >= cut - 1e-6 and cosine[v] > 0]
        kept = seeds.strength_BxK[row] > 0
        assert seeds.video_BxK[row][kept].tolist() == want
        assert not seeds.video_BxK[row][~kept].any()
    assert len(cuts) == 4


def test_a_silent_query_s_cut_is_nothing(reader, space):
    seeds = SeedFilter(reader, space, ADAPTIVE, 0.99, SAMPLE)(requests_of([1, 2], [0, 0]))
    assert [(row > 0).sum() for row in seeds.strength_BxK] == [5, 2]


@pytest.mark.parametrize("epsilon", [-1.0, -5.0])
def test_padding_never_wins_however_low_the_cut(epsilon, reader, space):
    """Also where a query's cosines are all below 0: the cut is then below padding's weight of 0."""
    query_BxD = -np.ones((2, 3), np.float32)
    _, strength, relevance = filter_seeds(
        query_BxD, np.ones((2, 4, 3), np.float32), np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.float32),
        np.full((2, 1), epsilon, np.float32), np.float32(2.0), 4,
    )  # fmt: skip
    assert not np.asarray(strength).any()
    assert not np.asarray(relevance).any()
    assert np.asarray(adaptive_epsilon(query_BxD, np.ones((5, 3), np.float32), 2)).tolist() == [[-3.0], [-3.0]]


@pytest.mark.parametrize("threshold", ["quantile", "adaptive"])
def test_a_stricter_cut_keeps_some_of_the_same_seeds(threshold, reader, space):
    """Nested sets: coverage and the number of seeds can only fall with epsilon, and K cuts from behind."""
    requests = requests_of([1, 2, 1, 2, 1], [1, 2, 3, 4, 2])

    def seeds_at(cut, k):
        config = dataclasses.replace(ADAPTIVE, threshold=threshold, adaptive_quantile=cut, k=k)
        return SeedFilter(reader, space, config, 2 * cut - 1, SAMPLE)(requests)

    for k in (1, 3, 5):
        last = None
        for cut in (0.0, 0.3, 0.5, 0.7, 0.9, 0.99):
            seeds = seeds_at(cut, k)
            kept = [set(row[row > 0]) for row in seeds.video_BxK]
            wide = seeds_at(cut, 5)
            assert all(set(row[:k][row[:k] > 0]) == mine for row, mine in zip(wide.video_BxK, kept, strict=True))
            if last is not None:
                assert all(now <= then for now, then in zip(kept, last[0], strict=True))
                assert seeds.coverage <= last[1]
            last = kept, seeds.coverage
        assert last[1] < 1


def test_adaptive_blocks_are_single_requests(reader, space, graph):
    users, words = np.arange(300) % 3, np.arange(300) % 5
    seeds_of = SeedFilter(reader, space, ADAPTIVE, 0.0, SAMPLE)
    together = seeds_of(requests_of(users, words))
    for n in (0, 4, 255, 256, 299):
        alone = seeds_of(requests_of(users[n : n + 1], words[n : n + 1]))
        assert np.array_equal(alone.video_BxK[0], together.video_BxK[n])


def test_adaptive_without_its_sample_is_a_mistake(reader, space):
    with pytest.raises(ValueError, match="needs the sample"):
        SeedFilter(reader, space, ADAPTIVE, 0.0)


def test_the_sample_is_of_videos_engaged_with_before():
    """Each once, however often viewed; events at or after the cut, views without engagement and row 0 do not count."""
    events = SimpleNamespace(video=np.array([4, 4, 9, 0, 7, 8, 3, 6], np.int32))
    index = SimpleNamespace(rows=np.array([0, 1, 2, 3, 7, 4, 5]), known_ms=np.array([1, 1, 2, 3, 4, 5, 6]))
    store = SimpleNamespace(events=events, engaged_index=index)
    assert cosine_sample(store, 5, 100).tolist() == [4, 6, 9]
    assert cosine_sample(store, 6, 100).tolist() == [4, 6, 7, 9]
    assert set(cosine_sample(store, 5, 2)) < {4, 6, 9}
    assert cosine_sample(store, 5, 2).tolist() == cosine_sample(store, 5, 2).tolist()
    assert cosine_sample(store, 0, 2).tolist() == [0]


def test_one_compilation_a_padded_shape(reader, space, graph):
    channel, encoders = QrcfChannel(ItemSimilarity(*graph)), encoders_of(reader, space)
    channel.retrieve(EncodedRequests(requests_of([1] * 8), encoders), 5)
    sizes = filter_ids._cache_size(), walk._cache_size()
    for n in (5, 6, 7, 8):
        channel.retrieve(EncodedRequests(requests_of([1] * n), encoders), 5)
    assert (filter_ids._cache_size(), walk._cache_size()) == sizes
