"""Hard negatives: from the wanted ranks, and never what the person clicks or has clicked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from pr2_jax.config import Config, PdrConfig
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


def mined(sessions, videos, seen: dict[int, list[int]], **fields) -> np.ndarray:
    config = Config(pdr=PdrConfig(**fields))

    def requests(rows, *, withhold):
        gone = tuple(np.array(seen.get(int(r), []), np.int32) for r in rows)
        return SimpleNamespace(seen=gone, time_ms_B=np.full(len(rows), 100))

    system = SimpleNamespace(
        store=SimpleNamespace(counts=SimpleNamespace(videos=VIDEOS), videos=SimpleNamespace(upload_ms=UPLOAD_MS)),
        log=SimpleNamespace(requests=requests),
        encode=lambda requests: requests,
    )
    positives = SimpleNamespace(session_S=np.array(sessions), video_P=np.array(videos), searches=len(videos))
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
