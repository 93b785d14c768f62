"""BM25 postings: for every word of the captions, the videos that hold it and their scores. Built once, then mapped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pr2_jax.config import RetrievalConfig
from pr2_jax.data.history.histories import place_in_run
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import StaleArtifact

FILES = ("first", "video", "score")
BLOCK = 1 << 20
"""Captions, or words of captions, read at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Postings:
    """Postings in word-major order (CSR): W words, P pairs of a word and a video whose caption holds it."""

    first: np.ndarray  # int64 [W + 1]: where each word's pairs begin
    video: np.ndarray  # int32 [P], ascending within a word
    score: np.ndarray  # float32 [P]: BM25 of the word for the video, above 0

    @staticmethod
    def open(directory: Path) -> Postings:
        """Memory-mapped. StaleArtifact where the three files do not belong together; OSError where one is missing."""
        # As plain arrays over the mapped bytes: a slice of `np.memmap` costs more than reading a short posting.
        first, video, score = (np.asarray(np.load(directory / f"{name}.npy", mmap_mode="r")) for name in FILES)
        if not first[-1] == len(video) == len(score):
            raise StaleArtifact(
                f"{directory}: first.npy ends at {first[-1]:,}, video.npy has {len(video):,} rows, "
                f"score.npy {len(score):,}; build the index again (pr2 index)"
            )
        return Postings(first, video, score)

    def of(self, word: int) -> tuple[np.ndarray, np.ndarray]:
        """(video, score) of a word row; empty for row 0 and for words that no caption holds."""
        if not 0 < word < len(self.first) - 1:
            return self.video[:0], self.score[:0]
        pairs = slice(self.first[word], self.first[word + 1])
        return self.video[pairs], self.score[pairs]


class _Pairs(NamedTuple):
    """Words in the captions of some videos, by word, then video."""

    word: np.ndarray  # int64 [N]
    video: np.ndarray  # int64 [N]
    count: np.ndarray  # int64 [N]: how often the caption holds the word
    length: np.ndarray  # int64 [N]: known words of the caption


def fit(store: LogStore, config: RetrievalConfig, directory: Path | None = None) -> Postings:
    """Lucene's BM25 of every caption for each of its words, in memory or in new files of `directory`, mapped.

    Row 0 is no document and no word. Captions are read twice, block by block: once to count, once to score. Beside
    the result, memory holds a block and a few numbers a word.
    """
    words, captions = store.counts.words, max(len(store.videos.first_word) - 2, 0)
    frequency_W, total = np.zeros(words, np.int64), 0
    for pairs in _blocks(store):
        frequency_W += np.bincount(pairs.word, minlength=words)
        total += int(pairs.count.sum())
    out = _allocated(np.concatenate([[0], np.cumsum(frequency_W)]), directory)
    idf_W, mean_length = _idf(frequency_W, captions), total / max(captions, 1)
    k1, b, next_W = config.bm25_k1, config.bm25_b, out.first[:-1].copy()
    for pairs in _blocks(store):
        at = next_W[pairs.word] + place_in_run(pairs.word)
        norm = k1 * ((1 - b) + b * pairs.length / mean_length)
        out.video[at] = pairs.video
        out.score[at] = idf_W[pairs.word] * (pairs.count / (norm + pairs.count))
        next_W += np.bincount(pairs.word, minlength=words)
    if directory is None:
        return out
    for array in (out.video, out.score):
        array.flush()
    return Postings.open(directory)


def _blocks(store: LogStore) -> Iterator[_Pairs]:
    """Pairs of the videos from row 1 on, some `BLOCK` at a time; a longer caption is a block of its own."""
    first, words = store.videos.first_word, store.videos.words
    start, videos = 1, len(first) - 1
    while start < videos:
        begin = first[start : start + BLOCK + 1]
        held = max(int(np.searchsorted(begin, begin[0] + BLOCK, "right")) - 1, 1)
        word, begin = np.asarray(words[begin[0] : begin[held]]), np.asarray(begin[: held + 1])
        document = np.repeat(np.arange(held), np.diff(begin))[word > 0]
        key, count = np.unique(word[word > 0] * np.int64(held) + document, return_counts=True)
        word, document_N = np.divmod(key, held)
        yield _Pairs(word, start + document_N, count, np.bincount(document, minlength=held)[document_N])
        start += held


def _idf(frequency_W: np.ndarray, captions: int) -> np.ndarray:
    """Inverse document frequencies, float32 [W], from how many captions hold each word; 0 where none does."""
    distinct, of_W = np.unique(frequency_W, return_inverse=True)
    # math.log, as bm25s: NumPy's logarithm may differ in the last bit.
    idf = [math.log(1 + (captions - n + 0.5) / (n + 0.5)) if n else 0.0 for n in distinct.tolist()]
    return np.array(idf, np.float32)[of_W]


def _allocated(first: np.ndarray, directory: Path | None) -> Postings:
    """Postings to be filled."""
    size, types = int(first[-1]), {"video": np.int32, "score": np.float32}
    if directory is None:
        return Postings(first, *(np.zeros(size, dtype) for dtype in types.values()))
    directory.mkdir(parents=True)
    np.save(directory / "first.npy", first)
    opened = (
        np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, (size,)) for name, dtype in types.items()
    )
    return Postings(first, *opened)
