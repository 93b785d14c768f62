"""Queries of the simulated people: intent and typed words."""

from __future__ import annotations

import dataclasses

import numpy as np

from pr2_jax.simulation.counter_rng import choose
from pr2_jax.simulation.row_records import RowRecord
from pr2_jax.simulation.vocabulary import Vocabulary

QUERY_WORDS = 4
NO_INTENT = -1
# Shares of the query patterns: name | topic alone | facet | name facet | topic facet | facet facet
_PATTERN_SHARES = (0.26, 0.14, 0.3, 0.18, 0.05, 0.07)
_NAME, _TOPIC, _FACET, _NAME_FACET, _TOPIC_FACET, _TWO_FACETS = range(6)
_FILLER_SHARE, _FILLER_FALLS = 0.12, 0.06  # queries with a topicless word; parameter of its geometric rank


@dataclasses.dataclass(frozen=True)
class Queries(RowRecord):
    """B searches. A serving system sees the words only; intent and needs are hidden."""

    words_BxQ: np.ndarray  # int32 word rows as typed, 0 = none
    intent_B: np.ndarray  # int32 subtopic, NO_INTENT = none
    needs_BxQ: np.ndarray  # int32 facets meant, 0 = none


QUERY_DRAWS = 6
"""Random draws of one query."""


def compose_queries(
    vocabulary: Vocabulary, intent_B: np.ndarray, misspelt_share: float, draw_BxQ: np.ndarray
) -> Queries:
    """Composes the typed words of each intent: subtopic name, topic name or facets, at times a topicless or misspelt
    word.

    A topic's name and a word with two owners are ambiguous: only the person's interests tell the subtopic.
    """
    facet_weight_N = vocabulary.frequency_N()[1:]
    pattern_B = choose(np.array(_PATTERN_SHARES), draw_BxQ[:, 0])
    rank_Bx2 = 1 + choose(facet_weight_N / facet_weight_N.sum(), draw_BxQ[:, 1:3])
    twice_B = rank_Bx2[:, 1] == rank_Bx2[:, 0]
    rank_Bx2[twice_B, 1] = rank_Bx2[twice_B, 1] % (vocabulary.width - 1) + 1
    facet_Bx2 = vocabulary.owned_GxN[intent_B[:, None], rank_Bx2]
    words_BxQ = np.zeros((len(intent_B), QUERY_WORDS), np.int32)
    named_B, topical_B = np.isin(pattern_B, (_NAME, _NAME_FACET)), np.isin(pattern_B, (_TOPIC, _TOPIC_FACET))
    topic_B = vocabulary.topic_T[vocabulary.topic_of_G[intent_B]]
    words_BxQ[:, 0] = np.select([named_B, topical_B], [vocabulary.owned_GxN[intent_B, 0], topic_B])
    words_BxQ[:, 1] = np.where(np.isin(pattern_B, (_NAME, _TOPIC)), 0, facet_Bx2[:, 0])
    words_BxQ[:, 2] = np.where(pattern_B == _TWO_FACETS, facet_Bx2[:, 1], 0)
    needs_BxQ = np.where(np.arange(QUERY_WORDS) > 0, words_BxQ, 0)
    rank_B = np.log1p(-draw_BxQ[:, 3]) // np.log1p(-_FILLER_FALLS)  # geometric
    filler_B = vocabulary.shared_W[np.minimum(rank_B, len(vocabulary.shared_W) - 1).astype(np.int64)]
    words_BxQ[:, 3] = np.where(draw_BxQ[:, 4] < _FILLER_SHARE, filler_B, 0)
    first_B = np.argmax(words_BxQ > 0, axis=1)
    rows = np.flatnonzero(draw_BxQ[:, 5] < misspelt_share)
    words_BxQ[rows, first_B[rows]] = vocabulary.misspelt_W[words_BxQ[rows, first_B[rows]]]
    packed_BxQ = np.take_along_axis(words_BxQ, np.argsort(words_BxQ == 0, axis=1, kind="stable"), axis=1)
    return Queries(packed_BxQ, intent_B.astype(np.int32), needs_BxQ)


def interpret(vocabulary: Vocabulary, words_BxQ: np.ndarray, interest_BxG: np.ndarray) -> Queries:
    """Infers the intent of typed words: the subtopic that owns most of them; ties go to the person's stronger interest.
    Words without an owner give NO_INTENT."""
    groups = vocabulary.subtopics
    owns_WxG = np.zeros((len(vocabulary.text), groups), np.float32)
    owns_WxG[vocabulary.owned_GxN, np.arange(groups)[:, None]] = 1.0
    named = vocabulary.topic_T[vocabulary.topic_of_G], np.arange(groups)
    owns_WxG[named] = np.maximum(owns_WxG[named], 0.5)
    owns_WxG[0] = 0.0
    votes_BxG = owns_WxG[words_BxQ].sum(axis=1)
    intent_B = np.argmax(votes_BxG + 0.4 * interest_BxG, axis=1)
    found_B = votes_BxG.max(axis=1) > 0
    facet_BxQ = (vocabulary.owned_GxN[intent_B][:, None, 1:] == words_BxQ[:, :, None]).any(axis=2) & (words_BxQ > 0)
    needs_BxQ = np.where(facet_BxQ & found_B[:, None], words_BxQ, 0)
    return Queries(words_BxQ, np.where(found_B, intent_B, NO_INTENT).astype(np.int32), needs_BxQ)
