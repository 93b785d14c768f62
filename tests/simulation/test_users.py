import dataclasses

import numpy as np
import pytest

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.queries import NO_INTENT, QUERY_DRAWS, Queries, compose_queries, interpret
from pr2_jax.simulation.users import RESPONSE_DRAWS, draw_interests, feedback, sample_rows
from pr2_jax.simulation.world import World

SMALL = WorldConfig(users=60, videos=600, creators=60, topics=4, subtopics=4, words_per_subtopic=12)


@pytest.fixture(scope="module")
def world() -> World:
    return World.build(SMALL)


@pytest.fixture(scope="module")
def searches(world):
    """60 people, each with a query about their mood and a slate of ten."""
    queries = compose_queries(
        world.vocabulary, world.users.mood_U, 0.0, np.random.default_rng(3).random((60, QUERY_DRAWS))
    )
    slates_BxS = np.random.default_rng(4).integers(0, 600, (60, 10)).astype(np.int32)
    return queries, slates_BxS


def draws(slates_BxS: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((len(slates_BxS), slates_BxS.shape[1] * RESPONSE_DRAWS))


def many(array: np.ndarray, times: int) -> np.ndarray:
    return np.repeat(np.arange(len(array)), times)


def test_clicks_are_relevance_times_affinity_times_quality(world, searches):
    """The click rate of each result, once examined, equals its attraction."""
    queries, slates_BxS = searches
    rows = many(slates_BxS, 400)
    answer = world.respond(world.users.take(rows), queries.take(rows), slates_BxS[rows], draws(slates_BxS[rows], 0))
    examined = answer.examined_BxS.reshape(60, 400, 10).sum(axis=1)
    clicked = answer.click_BxS.reshape(60, 400, 10).sum(axis=1)
    chance = world.attraction(world.users, queries, slates_BxS)
    error = (clicked - examined * chance) / np.sqrt(examined * chance * (1 - chance) + 1e-3)
    assert abs(error.mean()) < 0.15
    assert 0.8 < error.std() < 1.2


def test_examination_falls_with_position_and_not_in_the_feed(world, searches):
    queries, slates_BxS = searches
    rows = many(slates_BxS, 200)
    users, slates = world.users.take(rows), slates_BxS[rows]
    searched = world.respond(users, queries.take(rows), slates, draws(slates, 0)).examined_BxS.mean(axis=0)
    expected = (1.0 + np.arange(10)) ** -SMALL.people.position_decay
    np.testing.assert_allclose(searched, expected, atol=0.02)
    assert world.respond(users, None, slates, draws(slates, 0)).examined_BxS.all()


def test_padding_gets_no_response(world, searches):
    queries, slates_BxS = searches
    slates_BxS = slates_BxS.copy()
    slates_BxS[:, 6:] = -1
    for given in (queries, None):
        answer = world.respond(world.users, given, slates_BxS, draws(slates_BxS, 0))
        for field in dataclasses.fields(answer):
            assert not getattr(answer, field.name)[:, 6:].any(), field.name
    assert (world.true_relevance(queries, slates_BxS)[:, 6:] == 0).all()
    assert (world.true_affinity(world.users, slates_BxS)[:, 6:] == 0).all()


def test_common_draws_give_common_responses(world, searches):
    """Where two systems show the same video in the same place, the response is the same."""
    queries, slates_BxS = searches
    other_BxS = slates_BxS.copy()
    other_BxS[:, 1::2] = other_BxS[::-1, 1::2]
    first = world.respond(world.users, queries, slates_BxS, draws(slates_BxS, 7))
    second = world.respond(world.users, queries, other_BxS, draws(other_BxS, 7))
    assert (first.click_BxS[:, ::2] == second.click_BxS[:, ::2]).all()
    assert (first.play_ms_BxS[:, ::2] == second.play_ms_BxS[:, ::2]).all()


def test_watching_grows_with_affinity_and_likes_need_a_click(world, searches):
    _, slates_BxS = searches
    rows = many(slates_BxS, 50)
    users, slates = world.users.take(rows), slates_BxS[rows]
    answer = world.respond(users, None, slates, draws(slates, 0))
    affinity = world.true_affinity(users, slates)
    share = answer.play_ms_BxS / world.catalogue.duration_ms_V[slates]
    keen, cool = answer.click_BxS & (affinity > 0.8), answer.click_BxS & (affinity < 0.4)
    assert share[keen].mean() > share[cool].mean() + 0.2
    assert not (answer.like_BxS & ~answer.click_BxS).any()
    assert 0 < answer.follow_BxS.mean() < answer.like_BxS.mean() < answer.click_BxS.mean()


def test_favourite_creators_and_one_s_own_interests_are_wanted_more(world):
    users, catalogue = world.users, world.catalogue
    every_BxV = np.broadcast_to(np.arange(600, dtype=np.int32), (60, 600))
    affinity = world.true_affinity(users, every_BxV)
    loved = (catalogue.creator_V[None, :, None] == users.favourites_UxA[:, None, :]).any(axis=2)
    share = users.interest_UxG[:, catalogue.subtopic_V]
    assert affinity[loved].mean() > affinity[~loved].mean() + 0.2
    assert affinity[share > 0.2].mean() > affinity[share < 0.02].mean() + 0.2


def test_relevance_falls_from_subtopic_to_sibling_to_elsewhere(world):
    catalogue, topic_of = world.catalogue, world.vocabulary.topic_of_G
    intent = int(catalogue.subtopic_V[0])
    plain = Queries(np.zeros((1, 4), np.int32), np.array([intent], np.int32), np.zeros((1, 4), np.int32))
    every = np.arange(600, dtype=np.int32)[None]
    relevance = world.true_relevance(plain, every)[0]
    own = catalogue.subtopic_V == intent
    apart = catalogue.second_V != intent
    sibling = ~own & apart & (topic_of[catalogue.subtopic_V] == topic_of[intent])
    elsewhere = ~own & apart & ~sibling & (topic_of[catalogue.subtopic_V] != topic_of[intent])
    assert relevance[own].min() > relevance[sibling].max() > relevance[elsewhere].max() > 0
    needs = np.zeros((1, 4), np.int32)
    needs[0, 0] = catalogue.facets_VxA[0, 0]
    faceted = world.true_relevance(dataclasses.replace(plain, needs_BxQ=needs), every)[0]
    has = (catalogue.facets_VxA == needs[0, 0]).any(axis=1)
    np.testing.assert_array_equal(faceted[has], relevance[has])
    assert (faceted[~has] < relevance[~has]).all()


def test_the_same_ambiguous_word_means_to_each_what_they_care_for(world):
    vocabulary = world.vocabulary
    word = int(np.flatnonzero(np.bincount(vocabulary.owned_GxN.ravel()) == 2)[0])
    owners = np.flatnonzero((vocabulary.owned_GxN == word).any(axis=1))
    interest = np.full((2, vocabulary.subtopics), 0.01, np.float32)
    interest[0, owners[0]] = interest[1, owners[1]] = 0.8
    words = np.zeros((2, 4), np.int32)
    words[:, 0] = word
    assert interpret(vocabulary, words, interest).intent_B.tolist() == owners.tolist()
    topic = np.zeros((2, 4), np.int32)
    topic[:, 0] = vocabulary.topic_T[vocabulary.topic_of_G[owners]]
    assert interpret(vocabulary, topic, interest).intent_B.tolist() == owners.tolist()


def test_words_that_nobody_owns_leave_the_intent_open(world):
    words = np.zeros((1, 4), np.int32)
    words[0, 0] = world.vocabulary.shared_W[0]
    queries = interpret(world.vocabulary, words, world.users.interest_UxG[:1])
    assert queries.intent_B.tolist() == [NO_INTENT]
    assert (world.true_relevance(queries, np.array([[0, 1]])) == 1.0).all()


def test_misspelt_words_stand_in_no_caption(world):
    queries = compose_queries(
        world.vocabulary, np.zeros(200, np.int32), 1.0, np.random.default_rng(0).random((200, QUERY_DRAWS))
    )
    typed = np.unique(queries.words_BxQ)
    unseen = ~np.isin(queries.words_BxQ, world.catalogue.captions_VxN) & (queries.words_BxQ > 0)
    assert unseen.any(axis=1).all()
    assert len({world.vocabulary.text[word] for word in typed}) == len(typed)


def test_interests_are_shares_of_a_few_subtopics():
    interest = draw_interests(np.ones(50), 40, 5, np.random.default_rng(0))
    np.testing.assert_allclose(interest.sum(axis=1), 1.0, atol=1e-6)
    assert ((interest > 0.01).sum(axis=1) <= 5).all()


def test_rows_are_sampled_by_weight():
    weights = np.tile(np.array([[0.0, 1.0, 3.0, 0.0]]), (8_000, 1))
    counts = np.bincount(sample_rows(weights, np.random.default_rng(0).random(8_000)), minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[2] / counts[1] == pytest.approx(3.0, rel=0.1)


def test_people_are_drawn_towards_what_they_watch(world):
    """One watches an hour of one subtopic, one a second, and one nothing."""
    users, catalogue = world.users.take(np.arange(3)), world.catalogue
    video = int(np.argmin(users.interest_UxG[:2, catalogue.subtopic_V].sum(axis=0)))
    subtopic, style = catalogue.subtopic_V[video], catalogue.taste_VxL[video]
    watched = (np.array([0, 1]), np.array([video, video]), np.array([3_600_000, 1_000]))
    after = feedback(users, SMALL.loyalty, catalogue, *watched)
    gain = after.interest_UxG[:, subtopic] - users.interest_UxG[:, subtopic]
    closer = after.taste_UxL @ style - users.taste_UxL @ style
    full = SMALL.loyalty.interest_pull * (1 - users.interest_UxG[0, subtopic])
    assert gain[0] == pytest.approx(full, rel=0.01)
    assert 0 < gain[1] < 0.01 * gain[0]
    assert closer[0] > 100 * closer[1] > 0
    np.testing.assert_array_equal(after.interest_UxG[2], users.interest_UxG[2])
    np.testing.assert_allclose(after.taste_UxL[2], users.taste_UxL[2], atol=1e-6)
    np.testing.assert_allclose(after.interest_UxG.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(after.taste_UxL, axis=1), 1.0, atol=1e-5)
