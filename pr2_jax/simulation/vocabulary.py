"""Vocabulary of the simulated platform: topics, subtopics and the words that these own; some words have two owners."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from pr2_jax.config import WorldConfig
from pr2_jax.simulation.topic_words import SHARED_WORDS, TOPIC_WORDS

ZIPF = 1.0
"""Exponent of how often a subtopic's words are used, by their rank."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Word rows start at 1; 0 is no word. T topics, G subtopics, N words owned by a subtopic."""

    text: list[str]  # by row, text[0] = ""
    topic_T: np.ndarray  # int32 word row of each topic's name
    owned_GxN: np.ndarray  # int32 word rows, column 0 = the subtopic's name, then by falling frequency
    shared_W: np.ndarray  # int32 topicless words
    misspelt_W: np.ndarray  # int32, by row: a misspelling that no caption holds
    topic_of_G: np.ndarray  # int32

    @property
    def subtopics(self) -> int:
        return len(self.owned_GxN)

    @property
    def width(self) -> int:
        return self.owned_GxN.shape[1]

    def frequency_N(self) -> np.ndarray:
        weight_N = (1.0 + np.arange(self.width)) ** -ZIPF
        return weight_N / weight_N.sum()


def build_vocabulary(config: WorldConfig, rng: np.random.Generator) -> Vocabulary:
    """Builds the topic tree and its words."""
    topics, table = _tree(config)
    groups = len(table)
    texts_GxN = np.array(_share_words(table, config, rng), dtype=object)
    shared = _shared_texts(config, taken=set(topics) | set(texts_GxN.ravel()))
    ordered = list(dict.fromkeys([*topics, *texts_GxN.ravel(), *shared]))
    misspelt = _misspell(ordered)
    text = ["", *ordered, *misspelt]
    row = {word: index for index, word in enumerate(text)}
    misspelt_W = np.zeros(len(text), np.int32)
    misspelt_W[1 : len(ordered) + 1] = len(ordered) + 1 + np.arange(len(ordered))
    return Vocabulary(
        text=text,
        topic_T=np.array([row[t] for t in topics], np.int32),
        owned_GxN=np.array([[row[w] for w in words] for words in texts_GxN], np.int32),
        shared_W=np.array([row[w] for w in shared], np.int32),
        misspelt_W=misspelt_W,
        topic_of_G=np.repeat(np.arange(len(topics), dtype=np.int32), groups // len(topics)),
    )


def _tree(config: WorldConfig) -> tuple[list[str], list[list[str]]]:
    """Topic names and each subtopic's words; sizes beyond the built-in lists get numbered variants."""
    names, table = [], []
    built_in = list(TOPIC_WORDS)
    for t in range(config.topics):
        round_t, name = t // len(built_in), built_in[t % len(built_in)]
        names.append(_numbered(name, round_t))
        lines = [part.split() for part in TOPIC_WORDS[name].replace("\n", "|").split("|")]
        for g in range(config.subtopics):
            base, turn = lines[g % len(lines)], round_t + g // len(lines) * (1 + config.topics // len(built_in))
            offset = turn * (1 + config.words_per_subtopic // len(base))
            table.append(
                [_numbered(base[n % len(base)], offset + n // len(base)) for n in range(config.words_per_subtopic)]
            )
    return names, table


def _numbered(word: str, turn: int) -> str:
    return word if turn == 0 else f"{word}{turn + 1}"


def _share_words(table: list[list[str]], config: WorldConfig, rng: np.random.Generator) -> list[list[str]]:
    """Gives `ambiguous_share` of the words a second owner: another topic's subtopic, at the same rank."""
    groups, width = len(table), config.words_per_subtopic
    ranks = np.arange(1, width)  # names stay their own
    owners = collections.Counter(word for words in table for word in words)
    shared = sum(count > 1 for count in owners.values())  # by nature
    lent = max(0, round(config.ambiguous_share * len(owners) - shared))
    if config.topics < 2:
        return table
    # Drawn by frequency, so that ambiguity occurs in queries and not only in the tail.
    weight = np.tile(-ZIPF * np.log1p(ranks), groups) + rng.gumbel(size=groups * len(ranks))
    slots = np.argsort(-weight, kind="stable")
    leap = config.subtopics * rng.integers(1, config.topics, len(slots)) + rng.integers(0, config.subtopics, len(slots))
    out, used = [list(words) for words in table], set()
    for slot, jump in zip(slots.tolist(), leap.tolist(), strict=True):
        taker, n = slot // len(ranks), int(ranks[slot % len(ranks)])
        giver = (taker // config.subtopics * config.subtopics + jump) % groups
        given, lost = table[giver][n], table[taker][n]
        if len(used) >= 2 * lent:
            break
        if {(taker, n), (giver, n)} & used or owners[given] > 1 or owners[lost] > 1 or given in out[taker]:
            continue
        used |= {(taker, n), (giver, n)}
        out[taker][n] = given
    return out


def _shared_texts(config: WorldConfig, taken: set[str]) -> list[str]:
    plain = [word for word in SHARED_WORDS if word not in taken]
    turns = -(-config.shared_words // len(plain))
    return [_numbered(word, turn) for turn in range(turns) for word in plain][: config.shared_words]


def _misspell(words: list[str]) -> list[str]:
    """Drops each word's second letter, then repeats the last letter until the result is no word."""
    taken, out = set(words), []
    for word in words:
        wrong = word[0] + word[2:]
        while wrong in taken:
            wrong += wrong[-1]
        taken.add(wrong)
        out.append(wrong)
    return out
