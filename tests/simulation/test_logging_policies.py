import dataclasses

import numpy as np
import pytest

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.counter_rng import sample_in_groups
from pr2_jax.simulation.logging_policies import SearchRequests, bm25_weights, is_member, top_of_rows
from pr2_jax.simulation.world import World

SMALL = WorldConfig(users=60, videos=600, creators=60, topics=4, subtopics=4, words_per_subtopic=12)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


def requests_of(world: World, count: int, engaged: np.ndarray | None = None) -> SearchRequests:
    words_BxQ = np.zeros((count, 4), np.int32)
    words_BxQ[:, 0] = world.vocabulary.owned_GxN[np.arange(count) % 16, 0]
    return SearchRequests(
        day=0,
        user_B=np.arange(count, dtype=np.int32) % 60,
        words_BxQ=words_BxQ,
        time_ms_B=np.zeros(count, np.int64),
        popularity_V=world.start().popularity_V,
        engaged=np.zeros(0, np.int64) if engaged is None else engaged,
    )


def test_top_of_rows_against_a_plain_sort():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((7, 40)) < 0.3, rng.integers(1, 5, (7, 40)), 0)  # few values: many ties
    dense[3] = 0  # a row that nothing matches
    row, video = np.nonzero(dense)
    top, score = top_of_rows(row, video, dense[row, video].astype(np.float32), 7, 8)
    for r in range(7):
        found = sorted(np.flatnonzero(dense[r]), key=lambda v: (-dense[r, v], v))[:8]
        assert top[r].tolist() == found + [-1] * (8 - len(found))
        assert score[r].tolist() == [*dense[r, found], *[-np.inf] * (8 - len(found))]


def test_bm25_weights_against_the_formula():
    captions = np.array([[1, 2, 0], [2, 0, 0], [3, 2, 1]])
    vocabulary = dataclasses.replace(World.build(SMALL).vocabulary, text=["", "a", "b", "c"])
    weights = bm25_weights(vocabulary, captions).toarray()
    idf_a = np.log1p((3 - 2 + 0.5) / (2 + 0.5))
    long = 1.2 * (1 - 0.75 + 0.75 * 3 / 2)
    assert weights[1, 2] == pytest.approx(idf_a * 2.2 / (1 + long), rel=1e-5)
    assert weights[3, 0] == 0
    assert weights[1, 0] > weights[1, 2]  # the shorter text


def test_slates_are_full_distinct_and_mostly_about_the_query(world):
    slates = world.logging.search(requests_of(world, 64), 10, np.random.default_rng(0))
    assert slates.shape == (64, 10)
    assert slates.dtype == np.int32
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in slates)
    assert (slates >= 0).mean() > 0.98
    about = world.catalogue.subtopic_V[slates] == (np.arange(64) % 16)[:, None]
    assert about.mean() > 0.6


def test_videos_to_come_are_not_shown(world):
    slates = world.logging.search(requests_of(world, 64), 10, np.random.default_rng(0))
    assert (world.catalogue.upload_day_V > 0).any()
    assert (world.catalogue.upload_day_V[slates[slates >= 0]] <= 0).all()


def test_what_was_clicked_before_gives_way(world):
    first = world.logging.search(requests_of(world, 16), 10, np.random.default_rng(0))
    keys = np.sort(np.arange(16)[:, None] * 600 + first[:, :3]).ravel()
    again = world.logging.search(requests_of(world, 16, np.sort(keys)), 10, np.random.default_rng(0))
    assert np.isin(np.arange(16)[:, None] * 600 + again, keys).mean() < 0.05


def test_popular_videos_are_shown_more(world):
    count_V = np.zeros(600)
    for seed in range(20):
        slates = world.logging.search(requests_of(world, 64), 10, np.random.default_rng(seed))
        count_V += np.bincount(slates[slates >= 0], minlength=600)
    fame = np.argsort(world.catalogue.fame_V)
    shown = world.catalogue.upload_day_V <= 0
    low, high = (np.intersect1d(part, np.flatnonzero(shown)) for part in (fame[:200], fame[-200:]))
    assert count_V[high].mean() > 1.5 * count_V[low].mean()


def test_a_query_without_a_known_word_gets_popular_videos(world):
    requests = dataclasses.replace(requests_of(world, 4), words_BxQ=np.zeros((4, 4), np.int32))
    slates = world.logging.search(requests, 10, np.random.default_rng(0))
    assert (slates >= 0).sum(axis=1).min() >= 8


def test_sampling_within_groups_follows_weights_and_skips_empty_groups():
    group_V = np.array([2, 0, 0, 2, 3])
    weight_V = np.array([1.0, 1.0, 3.0, 0.0, 0.0])
    wanted = np.tile(np.array([0, 1, 2, 3]), 4_000)
    drawn = sample_in_groups(group_V, wanted, np.random.default_rng(0).random(16_000), weight_V)
    assert (drawn[wanted == 1] == -1).all()
    assert (drawn[wanted == 3] == -1).all()
    assert (drawn[wanted == 2] == 0).all()
    assert set(drawn[wanted == 0]) == {1, 2}
    assert (drawn[wanted == 0] == 2).mean() == pytest.approx(0.75, abs=0.03)


def test_membership_in_sorted_keys():
    assert is_member(np.array([2, 5, 9]), np.array([1, 2, 9, 10])).tolist() == [False, True, True, False]
    assert is_member(np.zeros(0, np.int64), np.array([1])).tolist() == [False]
