"""Postings against the library bm25s bit for bit; blocks; files; memory that does not grow with the captions."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import RetrievalConfig
from pr2_jax.errors import StaleArtifact
from pr2_jax.retrieval import postings
from pr2_jax.retrieval.postings import FILES, Postings
from tests.retrieval.conftest import store_of

CONFIG = RetrievalConfig()
WORDS = 40


def by_library(captions: list[list[int]], config: RetrievalConfig) -> dict[tuple[int, int], bytes]:
    """The float32 score of every (word, video), from bm25s."""
    import bm25s  # not above: it runs JAX when it is imported, which settles the devices

    logging.getLogger("bm25s").setLevel(logging.ERROR)  # it sets itself to DEBUG
    bm25 = bm25s.BM25(k1=config.bm25_k1, b=config.bm25_b, method="lucene", backend="numpy", csc_backend="scipy")
    documents = [[word for word in caption if word > 0] for caption in captions[1:]]
    vocabulary = {word: word for word in range(WORDS)}
    bm25.index((documents, vocabulary), create_empty_token=False, show_progress=False)
    word = np.repeat(np.arange(WORDS), np.diff(bm25.scores["indptr"]))
    video, score = bm25.scores["indices"] + 1, np.asarray(bm25.scores["data"], np.float32)
    return {(int(w), int(v)): s.tobytes() for w, v, s in zip(word, video, score, strict=True)}


def drawn(rng: np.random.Generator, videos: int) -> list[list[int]]:
    """Captions of 0 to 30 words, common ones and rare ones, some unknown and many repeated; row 0 has words too."""
    return [np.minimum(rng.geometric(0.1, rng.integers(0, 30)) - 1, WORDS - 2).tolist() for _ in range(videos)]


@pytest.mark.parametrize("block", [1, 13, 1 << 20])
@pytest.mark.parametrize("config", [CONFIG, RetrievalConfig(bm25_k1=0.9, bm25_b=0.3)])
def test_scores_are_the_bits_of_bm25s(rng, monkeypatch, tmp_path, block, config):
    monkeypatch.setattr(postings, "BLOCK", block)
    captions = drawn(rng, 300)
    want = by_library(captions, config)
    made = postings.fit(store_of(captions, WORDS), config)
    word = np.repeat(np.arange(WORDS), np.diff(made.first))
    got = {(int(w), int(v)): s.tobytes() for w, v, s in zip(word, made.video, made.score, strict=True)}
    assert got == want
    assert list(got) == sorted(got)
    assert (made.score > 0).all()
    assert len(made.of(0)[0]) == len(made.of(WORDS - 1)[0]) == len(made.of(WORDS)[0]) == len(made.of(-1)[0]) == 0
    saved = postings.fit(store_of(captions, WORDS), config, tmp_path / "bm25")
    for name in FILES:
        ours, theirs = getattr(saved, name), getattr(made, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("captions", [[[]], [[3], []], [[], [0]]])
def test_no_captions(captions, tmp_path):
    made = postings.fit(store_of(captions, 4), CONFIG, tmp_path / "bm25")
    assert made.first.tolist() == [0] * 5
    assert len(made.video) == len(made.score) == 0


def test_files_that_do_not_belong_together(tmp_path):
    postings.fit(store_of([[], [1, 2], [2]], 4), CONFIG, tmp_path / "bm25")
    np.save(tmp_path / "bm25" / "video.npy", np.zeros(2, np.int32))
    with pytest.raises(StaleArtifact, match=r"first.npy ends at 3, video.npy has 2 rows, score.npy 3; .*\(pr2 index\)"):
        Postings.open(tmp_path / "bm25")


def peak(work) -> int:
    """Bytes at the peak; what is mapped does not count."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def mapped_store(rng: np.random.Generator, videos: int, directory: Path) -> SimpleNamespace:
    """Ten words a caption, as columns on disk."""
    directory.mkdir()
    np.save(directory / "first.npy", np.arange(0, 10 * (videos + 1), 10))
    np.save(directory / "words.npy", rng.integers(0, 500, 10 * videos, np.int32))
    first, words = (np.load(directory / f"{name}.npy", mmap_mode="r") for name in ("first", "words"))
    return SimpleNamespace(videos=SimpleNamespace(first_word=first, words=words), counts=SimpleNamespace(words=500))


def test_memory_holds_a_block_whatever_the_catalogue(rng, monkeypatch, tmp_path):
    monkeypatch.setattr(postings, "BLOCK", 1 << 13)
    used, sizes = [], (4_000, 64_000)
    for videos in sizes:
        store, place = mapped_store(rng, videos, tmp_path / str(videos)), tmp_path / f"bm25_{videos}"
        used.append(peak(lambda store=store, place=place: postings.fit(store, CONFIG, place)))
        assert peak(lambda place=place: Postings.open(place)) < 100_000
    assert (tmp_path / "bm25_64000" / "video.npy").stat().st_size > 2_000_000
    assert used[1] < 1.2 * used[0] + 50_000
