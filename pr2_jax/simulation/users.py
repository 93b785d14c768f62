"""People of the simulated platform: interests and latent tastes, their drift, and the click model.

The click model is position-based: P(click) = P(examined at this position) x attraction of the video.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from pr2_jax.config import LoyaltyConfig, PeopleConfig, WorldConfig
from pr2_jax.simulation.queries import NO_INTENT, Queries
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.vocabulary import Vocabulary
from pr2_jax.simulation.world_catalogue import Catalogue, distinct_ids, unit

SLAB = 16_384
"""Rows of a people x subtopics table worked on at once: bounds memory, changes no result."""

MUCH_WATCHING_MS = 600_000.0
"""Time constant of the daily watch time, after which its pull on interests saturates."""

RESPONSE_DRAWS = 6
"""Random draws of the response to one result."""

QUALITY_FLOOR = 0.5
"""Factor of the lowest quality on attraction."""

_NEEDED = 0.35  # share of relevance that depends on the facets meant
_OTHER_SUBTOPIC, _SIBLING, _SECOND = 0.05, 0.3, 0.7  # relevance outside the subtopic meant, before facets


@dataclasses.dataclass(frozen=True)
class Users(RowRecord):
    """U people, or one a request; G subtopics, L latent tastes, A favourite creators."""

    raw_id_U: np.ndarray  # int64 ascending
    search_rate_U: np.ndarray  # float64 searches a day
    feed_rate_U: np.ndarray  # float64 feed views a day
    visit_U: np.ndarray  # float64, P(opens the app on a day) without surprise and habit
    length_taste_U: np.ndarray  # float32, correlation of liking with standardised log duration
    favourites_UxA: np.ndarray  # int32 creator rows
    profile_UxP: np.ndarray  # int64: search_active_level rec_active_level onehot_feat1 onehot_feat2
    interest_UxG: np.ndarray  # float32, rows sum to 1; drifts
    taste_UxL: np.ndarray  # float32 unit rows; drifts
    mood_U: np.ndarray  # int32 subtopic of the day


@dataclasses.dataclass(frozen=True)
class Responses(RowRecord):
    """Responses of B people to S results each. In search, only clicked videos are played."""

    examined_BxS: np.ndarray  # bool
    click_BxS: np.ndarray  # bool
    play_ms_BxS: np.ndarray  # int64
    like_BxS: np.ndarray  # bool
    follow_BxS: np.ndarray  # bool
    forward_BxS: np.ndarray  # bool


def build_users(
    config: WorldConfig, catalogue: Catalogue, vocabulary: Vocabulary, seed: np.random.SeedSequence
) -> Users:
    """People on the first day; each group of fields draws from its own stream."""
    rate_rng, interest_rng, taste_rng, favourite_rng, profile_rng, id_rng = (
        np.random.default_rng(s) for s in seed.spawn(6)
    )
    people, count, groups = config.people, config.users, vocabulary.subtopics
    search_U, feed_U, visit_U = _rates(config, rate_rng)
    appeal_G = np.bincount(catalogue.subtopic_V, minlength=groups) + 1.0
    interest_UxG = draw_interests(appeal_G, count, people.interests, interest_rng)
    community_U = taste_rng.integers(0, people.communities, count)
    centre_KxL = unit(taste_rng.normal(size=(people.communities, people.taste_width)))
    taste_UxL = unit(centre_KxL[community_U] + 0.7 * unit(taste_rng.normal(size=(count, people.taste_width))))
    length_U = taste_rng.normal(size=count)
    told_U = np.where(profile_rng.random(count) < 0.8, community_U, profile_rng.integers(0, people.communities, count))
    tercile_U = np.digitize(length_U + 0.6 * profile_rng.normal(size=count), (-0.5, 0.5))
    return Users(
        raw_id_U=distinct_ids(count, 1, id_rng),
        search_rate_U=search_U,
        feed_rate_U=feed_U,
        visit_U=visit_U,
        length_taste_U=length_U.astype(np.float32),
        favourites_UxA=_favourites(config, catalogue, interest_UxG, taste_UxL, favourite_rng),
        profile_UxP=np.stack([_level(search_U), _level(feed_U), tercile_U, told_U % 8], axis=1).astype(np.int64),
        interest_UxG=interest_UxG,
        taste_UxL=taste_UxL,
        mood_U=sample_rows(interest_UxG, interest_rng.random(count)),
    )


def _rates(config: WorldConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Searches and views a day (correlated log-normals with the configured means), and the visit probability, which
    grows with them."""
    both_Ux1 = rng.normal(size=(config.users, 1))
    log_Ux2 = 0.5 * both_Ux1 + 0.5 * rng.normal(size=(config.users, 2))
    rate_Ux2 = np.exp(log_Ux2) / np.exp(log_Ux2).mean(axis=0)
    spread_U = config.loyalty.visit_spread * (0.8 * both_Ux1[:, 0] + 0.6 * rng.normal(size=config.users))
    share = config.loyalty.visit_share
    # The offset gives the configured mean over people.
    offset = brentq(lambda at: expit(at + spread_U).mean() - share, -30.0, 30.0)
    visit_U = expit(offset + spread_U)
    return config.sessions_per_day * rate_Ux2[:, 0], config.views_per_day * rate_Ux2[:, 1], visit_U


def _level(rate_U: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(rate_U, (0.2, 0.4, 0.6, 0.8)), rate_U)


def draw_interests(appeal_G: np.ndarray, count: int, kept: int, rng: np.random.Generator) -> np.ndarray:
    """Returns [count, G] interest shares: most on `kept` subtopics sampled by appeal, a trace on all others."""
    keys_UxG = np.log(appeal_G) + rng.gumbel(size=(count, len(appeal_G)))
    chosen_UxK = np.argsort(-keys_UxG, axis=1, kind="stable")[:, :kept]
    share_UxK = 0.9 * rng.dirichlet(np.full(kept, 2.0), count)
    interest_UxG = np.repeat((0.1 * appeal_G / appeal_G.sum())[None], count, axis=0)
    interest_UxG[np.arange(count)[:, None], chosen_UxK] += share_UxK
    return interest_UxG.astype(np.float32)


def sample_rows(weight_NxG: np.ndarray, point_N: np.ndarray) -> np.ndarray:
    """Returns int32 [N]: one column of each row, sampled by weight from a draw in [0, 1)."""
    column_N = np.empty(len(weight_NxG), np.int32)
    for first in range(0, len(weight_NxG), SLAB):
        part = slice(first, first + SLAB)
        total_NxG = np.cumsum(weight_NxG[part], axis=1, dtype=np.float64)
        below_N = (total_NxG <= point_N[part, None] * total_NxG[:, -1:]).sum(axis=1)
        column_N[part] = np.minimum(below_N, weight_NxG.shape[1] - 1)
    return column_N


def _favourites(config, catalogue, interest_UxG, taste_UxL, rng) -> np.ndarray:
    """Returns favourite creators: famous ones within the person's interests and close to their taste."""
    creators = len(catalogue.creator_home_C)
    videos_C = np.bincount(catalogue.creator_V, minlength=creators)
    style_CxL = np.zeros((creators, taste_UxL.shape[1]))
    np.add.at(style_CxL, catalogue.creator_V, catalogue.taste_VxL)
    style_CxL /= np.maximum(videos_C, 1)[:, None]
    chosen = []
    kept = min(config.people.favourites, creators)
    for first in range(0, len(taste_UxL), 1024):  # bounds the memory of the U x C scores
        part = slice(first, first + 1024)
        score_UxC = np.log(interest_UxG[part][:, catalogue.creator_home_C] + 1e-9) + 2.0 * taste_UxL[part] @ style_CxL.T
        score_UxC += 0.5 * catalogue.creator_fame_C + 0.4 * np.log(videos_C + 0.1) + rng.gumbel(size=score_UxC.shape)
        chosen.append(np.argsort(-score_UxC, axis=1, kind="stable")[:, :kept])
    return np.concatenate(chosen).astype(np.int32)


def drift(users: Users, config: PeopleConfig, appeal_G: np.ndarray, rng: np.random.Generator) -> Users:
    """A day's drift: some people replace an interest, tastes move a little, moods change."""
    count = len(users)
    traded_U = rng.random(count) < config.interest_drift
    strongest_U = np.argmax(users.interest_UxG + 0.3 * rng.random(users.interest_UxG.shape), axis=1)
    newcomer_U = rng.choice(len(appeal_G), count, p=appeal_G / appeal_G.sum())
    rows = np.flatnonzero(traded_U & (newcomer_U != strongest_U))
    interest_UxG = users.interest_UxG.copy()
    moved = 0.9 * interest_UxG[rows, strongest_U[rows]]
    interest_UxG[rows, strongest_U[rows]] -= moved
    interest_UxG[rows, newcomer_U[rows]] += moved
    step_UxL = unit(rng.normal(size=users.taste_UxL.shape))
    taste_UxL = unit((1 - config.taste_drift) * users.taste_UxL + config.taste_drift * step_UxL)
    fresh_U = sample_rows(interest_UxG, rng.random(count))
    mood_U = np.where(rng.random(count) < config.mood_persistence, users.mood_U, fresh_U).astype(np.int32)
    return dataclasses.replace(users, interest_UxG=interest_UxG, taste_UxL=taste_UxL, mood_U=mood_U)


def feedback(
    users: Users, config: LoyaltyConfig, catalogue: Catalogue, user_E: np.ndarray, video_E: np.ndarray, ms_E: np.ndarray
) -> Users:
    """The feedback of a day on interests and tastes: `user_E` watched `video_E` for `ms_E`.

    A system that shows a narrow selection narrows people's interests.
    """
    people, groups = users.interest_UxG.shape
    total_U = np.bincount(user_E, ms_E, people)
    part_E = ms_E / np.maximum(total_U[user_E], 1.0)
    much_U = (1 - np.exp(-total_U / MUCH_WATCHING_MS))[:, None]
    cell_E = user_E.astype(np.int64) * groups + catalogue.subtopic_V[video_E]
    watched_UxG = np.bincount(cell_E, part_E, people * groups).reshape(people, groups)
    pull_Ux1 = config.interest_pull * much_U
    interest_UxG = (1 - pull_Ux1) * users.interest_UxG + pull_Ux1 * watched_UxG
    style_UxL = np.zeros(users.taste_UxL.shape)
    np.add.at(style_UxL, user_E, part_E[:, None] * catalogue.taste_VxL[video_E])
    pull_Ux1 = config.taste_pull * much_U
    taste_UxL = unit((1 - pull_Ux1) * users.taste_UxL + pull_Ux1 * style_UxL)
    return dataclasses.replace(users, interest_UxG=interest_UxG.astype(np.float32), taste_UxL=taste_UxL)


@dataclasses.dataclass(frozen=True)
class ClickModel:
    """What people think of slates and how they respond, whichever system serves. Row b: person, query and slate b."""

    config: WorldConfig
    vocabulary: Vocabulary
    catalogue: Catalogue

    def true_relevance(self, queries: Queries, slates_BxS: np.ndarray) -> np.ndarray:
        """Returns float32 [B, S] in [0, 1]: relevance of each video to the intent; 1 without an intent, 0 for padding.

        It depends on the subtopic (the video's own, its second one, a sibling, another) and on the share of facets met.
        """
        subtopic_BxS, intent_Bx1 = self.catalogue.subtopic_V[slates_BxS], queries.intent_B[:, None]
        topic_of_G = self.vocabulary.topic_of_G
        cases = (
            subtopic_BxS == intent_Bx1,
            self.catalogue.second_V[slates_BxS] == intent_Bx1,
            topic_of_G[subtopic_BxS] == topic_of_G[intent_Bx1],
        )
        subject_BxS = np.select(cases, (1.0, _SECOND, _SIBLING), _OTHER_SUBTOPIC)
        facets_BxSxA, asked_BxQ = self.catalogue.facets_VxA[slates_BxS], queries.needs_BxQ > 0
        met_BxSxQ = (facets_BxSxA[:, :, None, :] == queries.needs_BxQ[:, None, :, None]).any(axis=3)
        met_BxS = (met_BxSxQ & asked_BxQ[:, None]).sum(axis=2) / np.maximum(asked_BxQ.sum(axis=1), 1)[:, None]
        met_BxS = np.where(asked_BxQ.any(axis=1)[:, None], met_BxS, 1.0)
        relevance_BxS = subject_BxS * self.catalogue.on_topic_V[slates_BxS] * (1 - _NEEDED + _NEEDED * met_BxS)
        relevance_BxS = np.where(intent_Bx1 == NO_INTENT, 1.0, relevance_BxS)
        return np.where(slates_BxS >= 0, relevance_BxS, 0.0).astype(np.float32)

    def true_affinity(self, users: Users, slates_BxS: np.ndarray, intent_B: np.ndarray | None = None) -> np.ndarray:
        """Returns float32 [B, S] in (0, 1): affinity by interest, taste, favourite creator and length; 0 for padding.
        `intent_B` None means a feed view, with another offset.

        Within a subtopic it is nearly all taste, which no caption shows and only collaborative signals reveal.
        """
        config, catalogue = self.config.people, self.catalogue
        subtopic_BxS = catalogue.subtopic_V[slates_BxS]
        share_BxS = np.take_along_axis(users.interest_UxG, subtopic_BxS, axis=1)
        interest_BxS = share_BxS / (share_BxS + 0.05)
        if intent_B is not None:
            floor_BxS = np.maximum(interest_BxS, config.intent_floor)
            interest_BxS = np.where(subtopic_BxS == intent_B[:, None], floor_BxS, interest_BxS)
        width = users.taste_UxL.shape[1]
        taste_BxS = np.einsum("bl,bsl->bs", users.taste_UxL, catalogue.taste_VxL[slates_BxS]) * np.sqrt(width)
        loved_BxS = (catalogue.creator_V[slates_BxS][:, :, None] == users.favourites_UxA[:, None, :]).any(axis=2)
        logits_BxS = (
            config.interest_weight * interest_BxS
            + config.taste_weight * taste_BxS
            + config.favourite_weight * loved_BxS
            + config.duration_weight * (users.length_taste_U[:, None] * catalogue.length_V[slates_BxS])
        ).astype(np.float32)
        offset = config.feed_offset if intent_B is None else config.search_offset
        affinity_BxS = 1.0 / (1.0 + np.exp(-config.affinity_slope * (logits_BxS - offset)))
        return np.where(slates_BxS >= 0, affinity_BxS, 0.0).astype(np.float32)

    def attraction(self, users: Users, queries: Queries | None, slates_BxS: np.ndarray) -> np.ndarray:
        """Returns float32 [B, S]: P(click | examined) = relevance x affinity x quality; no relevance in the feed."""
        quality_BxS = QUALITY_FLOOR + (1 - QUALITY_FLOOR) * self.catalogue.quality_V[slates_BxS]
        if queries is None:
            return self.true_affinity(users, slates_BxS) * quality_BxS
        affinity_BxS = self.true_affinity(users, slates_BxS, queries.intent_B)
        return self.true_relevance(queries, slates_BxS) * affinity_BxS * quality_BxS

    def respond(self, users: Users, queries: Queries | None, slates_BxS: np.ndarray, draw_BxD: np.ndarray) -> Responses:
        """Responses to the slates; padding (-1) gets none.

        In search a result is examined with falling probability by position, clicked by attraction, and played when
        clicked. In the feed (`queries` None) every video starts by itself, and a click means that the person stayed.
        `draw_BxD`: RESPONSE_DRAWS draws in [0, 1) a position. They belong to the position, not to the video, so that
        two systems can be compared with common random numbers.
        """
        config, searched, shown_BxS = self.config.people, queries is not None, slates_BxS >= 0
        draw_6xBxS = np.moveaxis(draw_BxD.reshape(*slates_BxS.shape, RESPONSE_DRAWS), -1, 0)
        wanted_BxS = self.true_affinity(users, slates_BxS, queries.intent_B if searched else None)
        glance_S = (1.0 + np.arange(slates_BxS.shape[1])) ** -config.position_decay if searched else 1.0
        examined_BxS = shown_BxS & (draw_6xBxS[0] < glance_S)
        click_BxS = examined_BxS & (draw_6xBxS[1] < self.attraction(users, queries, slates_BxS))
        stayed_BxS = 0.25 + 0.55 * wanted_BxS + 0.4 * draw_6xBxS[2] * (0.5 + wanted_BxS)  # above 1: loops
        left_BxS = 0.0 if searched else 0.02 + 0.25 * draw_6xBxS[2] ** 2
        play_ms_BxS = self.catalogue.duration_ms_V[slates_BxS] * np.where(click_BxS, stayed_BxS, left_BxS)
        # Likes, follows and forwards.
        rates, eager_BxS = (config.like_rate, config.follow_rate, config.forward_rate), click_BxS * wanted_BxS**2
        reactions = (draw_BxS < rate * eager_BxS for draw_BxS, rate in zip(draw_6xBxS[3:], rates, strict=True))
        return Responses(examined_BxS, click_BxS, np.where(shown_BxS, play_ms_BxS, 0).astype(np.int64), *reactions)
