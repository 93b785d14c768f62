"""Hard negatives: from the wanted ranks, and never what the person clicks or has clicked."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np

from pr2_jax.config import Config, OptimConfig, PdrConfig
from pr2_jax.data.batches.training_batches import HardNegatives
from pr2_jax.stages import train_pdr

VIDEOS = 40
UPLOAD_MS = np.where(np.arange(VIDEOS) == 33, 101, 100)
"""Video 33 comes a moment after the searches."""


class Encoder:
    """Video v is at place v on a line; every search likes the far end most."""

    def videos(self) -> np.ndarray:
        return np.arange(VIDEOS, dtype=np.float32)[:, None]

    def __call__(self, requests) -> np.ndarray:
        return np.ones((len(requests.seen), 1), np.float32)


def chosen(positives, config: Config) -> tuple[np.ndarray, np.ndarray]:
    return train_pdr.chosen_searches(positives, config.pdr)


def positives_of(sessions, videos) -> SimpleNamespace:
    return SimpleNamespace(session_S=np.array(sessions), video_P=np.array(videos), searches=len(videos))


def mined(sessions, videos, seen: dict[int, list[int]], **fields) -> np.ndarray:
    """Hard negatives of each clicked result."""
    config, positives = Config(pdr=PdrConfig(**fields)), positives_of(sessions, videos)
    rows_MxK, (_, row_S) = mine(config, positives, seen), chosen(positives, config)
    assert not rows_MxK[0].any()
    return HardNegatives(rows_MxK, row_S).of(np.arange(len(videos)))


def mine(config: Config, positives, seen: dict[int, list[int]]) -> np.ndarray:

    def requests(rows, *, withhold):
        gone = tuple(np.array(seen.get(int(r), []), np.int32) for r in rows)
        return SimpleNamespace(seen=gone, time_ms_B=np.full(len(rows), 100))

    system = SimpleNamespace(
        store=SimpleNamespace(counts=SimpleNamespace(videos=VIDEOS), videos=SimpleNamespace(upload_ms=UPLOAD_MS)),
        log=SimpleNamespace(requests=requests),
        encode=lambda requests: requests,
    )
    return train_pdr.mine(system, config, Encoder(), positives)


def test_ranks_without_what_was_clicked():
    """Session 3 clicks 39 and 36, session 5 clicks 20 and has clicked 38; ranks 2 to 5 of what is left, 0 for 33."""
    got = mined([3, 3, 5], [39, 36, 20], {5: [38]}, hard_rank_from=2, hard_rank_to=6)
    assert got.tolist() == [[35, 34, 0, 32], [35, 34, 0, 32], [36, 35, 34, 0]]
    assert got.dtype == np.int32


def test_positives_in_any_order_and_in_blocks(monkeypatch):
    monkeypatch.setattr(train_pdr, "MINE_BLOCK", 1)
    got = mined([5, 3, 3], [20, 36, 39], {5: [38]}, hard_rank_from=2, hard_rank_to=6)
    assert got.tolist() == [[36, 35, 34, 0], [35, 34, 0, 32], [35, 34, 0, 32]]


def test_a_catalogue_smaller_than_the_ranks():
    got = mined([0], [39], {}, hard_rank_from=100, hard_rank_to=500)
    assert (got[0][got[0] > 0] < 39).all()
    assert (got > 0).any()


def test_an_even_sample_of_the_searches_is_mined(capsys):
    """Each as it would be among all; the others have none."""
    sessions, videos = [9, 3, 3, 7, 5, 1], [20, 36, 39, 38, 37, 35]
    whole = mined(sessions, videos, {5: [38]}, hard_rank_from=2, hard_rank_to=6)
    assert whole.any(1).all()
    assert "5 of 5 training searches with a click are mined" in capsys.readouterr().err
    some = mined(sessions, videos, {5: [38]}, hard_rank_from=2, hard_rank_to=6, hard_searches=2)
    assert "2 of 5 training searches with a click are mined" in capsys.readouterr().err
    has = some.any(1)
    assert len(np.unique(np.array(sessions)[has])) == 2
    assert np.array_equal(some[has], whole[has])


def test_the_seed_draws_which_searches():
    positives = SimpleNamespace(session_S=np.arange(300).repeat(2))

    def sessions(seed: int) -> list[int]:
        rows, row_S = chosen(positives, Config(pdr=PdrConfig(hard_searches=9, optim=OptimConfig(seed=seed))))
        assert np.array_equal(positives.session_S[row_S > 0], rows.repeat(2))
        return rows.tolist()

    assert sessions(1) == sessions(1)
    assert sessions(1) != sessions(2)


def test_memory_grows_with_the_searches_mined_and_not_with_those_of_the_log():
    """Of a search that is not mined only a few numbers a click are held, a while."""
    config = Config(pdr=PdrConfig(hard_rank_from=2, hard_rank_to=38, hard_searches=200))

    def peak(searches: int) -> int:
        positives = positives_of(range(searches), [39] * searches)
        mine(config, positives_of(range(200), [39] * 200), {})  # compiles
        tracemalloc.start()
        mine(config, positives, {})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(20_000), peak(120_000)
    assert (many - few) / 100_000 < 100  # bytes a search; its negatives alone would be 144
