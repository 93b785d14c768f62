"""The oracle's probabilities equal the click rates of many simulated responses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.oracle import oracle_of, requests_of
from pr2_jax.simulation.users import RESPONSE_DRAWS
from pr2_jax.simulation.world import World

SMALL = WorldConfig(
    users=60, videos=600, creators=60, topics=3, subtopics=3, words_per_subtopic=12, days=3, sessions_per_day=1.0
)
DRAWS = 400


def draws(slates_BxS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random((len(slates_BxS), slates_BxS.shape[1] * RESPONSE_DRAWS))


@pytest.fixture(scope="module")
def day():
    """The world, what its second day began with, and that day."""
    world = World.build(SMALL)
    state, _ = world.step_day(world.start())
    return world, state, world.step_day(state)[1]


def test_chances_are_the_shares_of_many_days(day):
    """Each search is served and answered 400 times: click rates against the oracle's probabilities."""
    world, state, log = day
    s, oracle = log.searches, oracle_of(world, state, log)
    requests = requests_of(state, log)
    clicks = np.zeros((len(s.user_B), len(world.catalogue)))
    rng = np.random.default_rng(5)
    for _ in range(DRAWS):
        slates = world.logging.search(requests, SMALL.slate, rng)
        answer = world.respond(log.users.take(s.user_B), s.queries, slates, draws(slates, rng))
        row, column = np.nonzero(answer.click_BxS)
        clicks[row, slates[row, column]] += 1 / DRAWS
    row_of = {raw: row for row, raw in enumerate(world.catalogue.raw_id_V.tolist())}
    row, column = np.nonzero(oracle.video_BxK >= 0)
    said = oracle.chance_BxK[row, column]
    seen = clicks[row, [row_of[raw] for raw in oracle.video_BxK[row, column].tolist()]]
    assert said.sum() == pytest.approx(seen.sum(), rel=0.03)
    error = (seen - said) / np.sqrt(np.maximum(said * (1 - said), 1e-3) * (2 / DRAWS))  # both sides are draws
    assert np.abs(error).mean() < 1
    assert np.corrcoef(said, seen)[0, 1] > 0.98


def test_what_was_shown_is_judged_by_attraction(day):
    world, state, log = day
    oracle, s = oracle_of(world, state, log), log.searches
    shown = s.slates_BxS >= 0
    assert np.array_equal(oracle.shown_BxS[shown], world.catalogue.raw_id_V[s.slates_BxS[shown]])
    answers = [
        world.respond(log.users.take(s.user_B), s.queries, s.slates_BxS, draws(s.slates_BxS, np.random.default_rng(n)))
        for n in range(200)
    ]
    examined = sum(answer.examined_BxS for answer in answers)[shown]
    clicked = sum(answer.click_BxS for answer in answers)[shown]
    assert clicked.sum() == pytest.approx((examined * oracle.attraction_BxS[shown]).sum(), rel=0.03)


def test_expected_is_the_search_without_noise(day):
    world, state, log = day
    quiet = dataclasses.replace(world.logging, config=dataclasses.replace(world.config.logging, noise=0.0))
    requests = requests_of(state, log)
    found = quiet.search(requests, SMALL.slate, np.random.default_rng(0))
    expected, score = quiet.expected(requests, SMALL.slate)
    whole = (expected >= 0).all(1)
    assert whole.mean() > 0.5
    assert np.array_equal(found[whole], expected[whole])
    assert (np.diff(score[whole], axis=1) <= 0).all()
