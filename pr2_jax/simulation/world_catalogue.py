"""Catalogue of the simulated platform: creators and videos, with hidden topics and visible features."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.vocabulary import Vocabulary

FACETS = 4
"""Hidden words that a video is about; its caption shows some of them."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """V videos, C creators, L latent tastes, G subtopics. Rows are the simulation's own, from 0."""

    raw_id_V: np.ndarray  # int64 ascending
    subtopic_V: np.ndarray  # int32, the truth
    second_V: np.ndarray  # int32, a second subtopic, or -1
    labelled_V: np.ndarray  # int32, the platform's category label: mostly the true subtopic, -1 = none
    creator_V: np.ndarray  # int32
    facets_VxA: np.ndarray  # int32 word rows
    on_topic_V: np.ndarray  # float32 in [0.7, 1], factor on relevance
    quality_V: np.ndarray  # float32 in (0, 1)
    taste_VxL: np.ndarray  # float32 unit rows: the style that tastes are matched with
    duration_ms_V: np.ndarray  # int64
    length_V: np.ndarray  # float32, standardised log duration
    upload_day_V: np.ndarray  # int32, days after the world's first day, mostly negative
    upload_type_V: np.ndarray  # int32, row of UPLOAD_TYPES
    fame_V: np.ndarray  # float32, log popularity before the first day
    captions_VxN: np.ndarray  # int32 word rows, 0 = none, packed to the front
    visual_VxF: np.ndarray  # float32, noisy view of subtopic and style
    creator_raw_C: np.ndarray  # int64
    creator_home_C: np.ndarray  # int32 subtopic
    creator_fame_C: np.ndarray  # float32

    def __len__(self) -> int:
        return len(self.raw_id_V)


UPLOAD_TYPES = ("ShortImport", "LongImport", "ShortCamera", "LongCamera", "PictureSet")
PICTURE_SET = UPLOAD_TYPES.index("PictureSet")
_UPLOAD_SHARES = (0.5, 0.27, 0.13, 0.06, 0.04)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def subtopic_weights(groups: int, rng: np.random.Generator) -> np.ndarray:
    """Returns P(subtopic), a Zipf law in random order."""
    weight_G = rng.permutation((1.0 + np.arange(groups)) ** -0.95)
    return weight_G / weight_G.sum()


def build_catalogue(config: WorldConfig, vocabulary: Vocabulary, seed: np.random.SeedSequence) -> Catalogue:
    """Each part draws from its own stream, so that resizing one leaves the others unchanged."""
    topic_rng, creator_rng, video_rng, facet_rng, caption_rng, visual_rng, id_rng = (
        np.random.default_rng(s) for s in seed.spawn(7)
    )
    groups, wide = vocabulary.subtopics, config.people.taste_width
    weight_G = subtopic_weights(groups, topic_rng)
    style_GxL = unit(topic_rng.normal(size=(groups, wide)))
    seconds_G = np.exp(topic_rng.normal(np.log(35.0), 0.5, groups))
    home_C = creator_rng.choice(groups, config.creators, p=weight_G).astype(np.int32)
    creator_fame_C = creator_rng.normal(0, 1, config.creators).astype(np.float32)
    creator_style_CxL = unit(creator_rng.normal(size=(config.creators, wide)))
    creator_quality_C = creator_rng.normal(0, 1, config.creators)

    creator_V, subtopic_V, second_V = _authorship(config, vocabulary, home_C, creator_fame_C, weight_G, video_rng)
    count = config.videos
    quality_V = 1 / (1 + np.exp(-(0.6 * creator_quality_C[creator_V] + 0.8 * video_rng.normal(size=count) + 0.5)))
    taste_VxL = unit(
        0.9 * creator_style_CxL[creator_V]
        + 0.35 * style_GxL[subtopic_V]
        + 0.6 * unit(video_rng.normal(size=(count, wide)))
    )
    seconds_V = np.clip(seconds_G[subtopic_V] * np.exp(video_rng.normal(0, 0.6, count)), 5, 600)
    length_V = (np.log(seconds_V) - np.log(35.0)) / 0.78
    new_V = video_rng.random(count) < 0.12
    age_V = np.minimum(video_rng.exponential(150.0, count), 900)
    upload_V = np.where(new_V, video_rng.integers(0, max(config.days, 1), count), -1 - age_V.astype(np.int64))
    fame_V = 0.7 * creator_fame_C[creator_V] + 1.2 * (quality_V - 0.6) / 0.2 * 0.5 + video_rng.normal(0, 0.8, count)
    facets_VxA = _facets(vocabulary, subtopic_V, facet_rng)
    types_V = video_rng.choice(len(UPLOAD_TYPES), count, p=_UPLOAD_SHARES)
    return Catalogue(
        raw_id_V=distinct_ids(count, 1_000_000, id_rng),
        subtopic_V=subtopic_V,
        second_V=second_V,
        labelled_V=_labels(config, subtopic_V, video_rng),
        creator_V=creator_V,
        facets_VxA=facets_VxA,
        on_topic_V=video_rng.uniform(0.7, 1.0, count).astype(np.float32),
        quality_V=quality_V.astype(np.float32),
        taste_VxL=taste_VxL,
        duration_ms_V=(seconds_V * 1000).astype(np.int64),
        length_V=length_V.astype(np.float32),
        upload_day_V=upload_V.astype(np.int32),
        upload_type_V=types_V.astype(np.int32),
        fame_V=np.where(new_V, fame_V - 1.0, fame_V).astype(np.float32),
        captions_VxN=_captions(vocabulary, subtopic_V, second_V, facets_VxA, caption_rng),
        visual_VxF=_visual(config, subtopic_V, taste_VxL, groups, visual_rng),
        creator_raw_C=distinct_ids(config.creators, 50_000, id_rng),
        creator_home_C=home_C,
        creator_fame_C=creator_fame_C,
    )


def distinct_ids(count: int, first: int, rng: np.random.Generator) -> np.ndarray:
    """Returns ascending int64 ids with gaps, like raw ids."""
    return first + np.cumsum(rng.integers(1, 60, count))


def _authorship(config, vocabulary, home_C, fame_C, weight_G, rng):
    """Returns creator, subtopic and second subtopic of every video; most are in the creator's home or a sibling."""
    count, groups = config.videos, vocabulary.subtopics
    productivity_C = np.exp(0.5 * fame_C + rng.normal(0, 0.6, len(fame_C)))
    creator_V = rng.choice(len(fame_C), count, p=productivity_C / productivity_C.sum()).astype(np.int32)
    home_V = home_C[creator_V]
    kind_V = rng.random(count)
    sibling_V = home_V // config.subtopics * config.subtopics + rng.integers(0, config.subtopics, count)
    anywhere_V = rng.choice(groups, count, p=weight_G)
    subtopic_V = np.where(kind_V < 0.7, home_V, np.where(kind_V < 0.88, sibling_V, anywhere_V)).astype(np.int32)
    second_V = np.where(rng.random(count) < 0.2, rng.choice(groups, count, p=weight_G), -1)
    return creator_V, subtopic_V, np.where(second_V == subtopic_V, -1, second_V).astype(np.int32)


def _labels(config: WorldConfig, subtopic_V: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    draw_V = rng.random(len(subtopic_V))
    first_V = subtopic_V // config.subtopics * config.subtopics
    sibling_V = first_V + rng.integers(0, config.subtopics, len(subtopic_V))
    return np.where(draw_V < 0.04, -1, np.where(draw_V < 0.14, sibling_V, subtopic_V)).astype(np.int32)


def _facets(vocabulary: Vocabulary, subtopic_V: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns FACETS distinct words of the subtopic, by frequency without replacement (Gumbel top-k)."""
    chance_N = np.log(vocabulary.frequency_N()[1:])
    keys_VxN = chance_N + rng.gumbel(size=(len(subtopic_V), len(chance_N)))
    rank_VxA = 1 + np.argsort(-keys_VxN, axis=1, kind="stable")[:, :FACETS]
    return vocabulary.owned_GxN[subtopic_V[:, None], rank_VxA]


def _captions(vocabulary, subtopic_V, second_V, facets_VxA, rng) -> np.ndarray:
    """Returns packed captions: some facets, sometimes the names, stray words and topicless words."""
    count, groups = len(subtopic_V), vocabulary.subtopics

    def ranked(groups_VxK):
        rank_VxK = rng.choice(vocabulary.width, groups_VxK.shape, p=vocabulary.frequency_N())
        return vocabulary.owned_GxN[groups_VxK, rank_VxK]

    name_Vx1 = vocabulary.owned_GxN[subtopic_V, :1]
    topic_Vx1 = vocabulary.topic_T[vocabulary.topic_of_G[subtopic_V]][:, None]
    second_Vx2 = np.where(second_V[:, None] >= 0, ranked(np.repeat(np.maximum(second_V, 0)[:, None], 2, 1)), 0)
    stray_Vx2 = ranked(rng.integers(0, groups, (count, 2)))
    frequency_W = (1.0 + np.arange(len(vocabulary.shared_W))) ** -0.6
    shared_Vx5 = rng.choice(vocabulary.shared_W, (count, 5), p=frequency_W / frequency_W.sum())
    shares = (
        (name_Vx1, 0.5),
        (topic_Vx1, 0.22),
        (facets_VxA, 0.55),
        (second_Vx2, 0.7),
        (stray_Vx2, 0.1),
        (shared_Vx5, 0.55),
    )
    words_VxN = np.concatenate([np.where(rng.random(w.shape) < share, w, 0) for w, share in shares], axis=1)
    words_VxN[:, -1] = np.where(words_VxN.any(axis=1), words_VxN[:, -1], shared_Vx5[:, -1])  # no empty caption
    words_VxN = np.sort(words_VxN, axis=1)
    words_VxN[:, 1:][words_VxN[:, 1:] == words_VxN[:, :-1]] = 0  # no word twice
    order_VxN = np.argsort(rng.random(words_VxN.shape) + 2.0 * (words_VxN == 0), axis=1, kind="stable")
    return np.take_along_axis(words_VxN, order_VxN, axis=1).astype(np.int32)


def _visual(config, subtopic_V, taste_VxL, groups, rng) -> np.ndarray:
    scene_GxF = rng.normal(size=(groups, config.content_width))
    style_LxF = rng.normal(size=(taste_VxL.shape[1], config.content_width))
    noise_VxF = rng.normal(size=(len(subtopic_V), config.content_width))
    return (0.8 * scene_GxF[subtopic_V] + 0.5 * taste_VxL @ style_LxF + 0.9 * noise_VxF).astype(np.float32)
