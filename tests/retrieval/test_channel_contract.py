"""The one contract of retrieval: every channel, over exact indices and over ScaNN's, on a log of its own.

Ties are planted: some videos have the vectors of others, and neighbours weigh one of three weights.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pr2_jax.config.schema import CHANNELS
from pr2_jax.retrieval import ann
from pr2_jax.retrieval.encoded_requests import Channel
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.system import System
from pr2_jax.types import Candidates, Requests

KINDS = [*((name, "exact") for name in CHANNELS), ("dr", "scann"), ("pdr", "scann")]
K, REQUESTS = 20, 300
"""More than a block of requests."""
TWINS = 40
"""Videos from row 1 on whose vectors the next so many share."""


def opened(system: System, snapshot: Snapshot, indices: Path) -> dict[str, Channel]:
    """All channels, with indices of their own for the dense ones."""
    return system.channels(snapshot, index=lambda name: ann.load_index(indices / name))


def found(system: System, channel: Channel, requests: Requests, k: int = K) -> Candidates:
    """What a channel of a system returns for requests: the only call of the contract."""
    return channel.retrieve(system.encode(requests), k)


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture(scope="module")
def snapshot(system) -> Snapshot:
    """The last one, its neighbours' weights made coarse."""
    kept = system.fitted.snapshot(system.store.cuts.end_ms)
    weight_VxM = np.asarray(kept.similarity.weight_VxM)
    levels = np.quantile(weight_VxM[weight_VxM > 0], [0.3, 0.7])
    coarse = np.where(weight_VxM > 0, 1 + (weight_VxM[..., None] > levels).sum(-1), 0).astype(np.float32)
    return dataclasses.replace(kept, similarity=ItemSimilarity(np.asarray(kept.similarity.neighbour_VxM), coarse))


@pytest.fixture(scope="module", params=KINDS, ids=["-".join(kind) for kind in KINDS])
def kind(request) -> tuple[str, str]:
    if request.param[1] == "scann":
        pytest.importorskip("scann")
    return request.param


@pytest.fixture(scope="module")
def indices(system, micro_config, tmp_path_factory) -> dict[str, Path]:
    """By kind, a folder with the indices of `dr` and `pdr`."""
    made = {}
    for name, least in (("exact", 10**6), ("scann", 100 if ann.scann else 10**6)):
        made[name] = tmp_path_factory.mktemp(name)
        for index in ("dr", "pdr"):
            vectors = np.array(ann.load_index(system.workdir / "index" / index).vectors_VxD)
            vectors[1 + TWINS : 1 + 2 * TWINS] = vectors[1 : 1 + TWINS]
            ann.build_index(
                vectors, made[name] / index, dataclasses.replace(micro_config.retrieval, ann_min_rows=least)
            )
    return made


@pytest.fixture(scope="module")
def channel(kind, system, snapshot, indices) -> Channel:
    return opened(system, snapshot, indices[kind[1]])[kind[0]]


@pytest.fixture(scope="module")
def requests(system) -> Requests:
    """The last searches of the log, nothing withheld, and of nobody in particular who asks nothing."""
    asked = system.log.requests(np.arange(system.store.counts.sessions)[1 - REQUESTS :], withhold=False)
    words = np.r_[asked.words_BxQ, np.zeros_like(asked.words_BxQ[:1])]
    return Requests(np.r_[asked.user_B, 0].astype(np.int32), np.r_[asked.time_ms_B, asked.time_ms_B[-1:]], words)


@pytest.fixture(scope="module")
def answered(system, channel, requests) -> Candidates:
    return found(system, channel, requests)


def _real(ids_K: np.ndarray) -> list[int]:
    return ids_K[ids_K > 0].tolist()


def test_lists_are_whole_and_in_order(kind, answered, system, requests):
    """Types, no video twice, scores descending, ties by ascending row, padding behind, and never row 0."""
    ids, scores = answered.ids_BxK, answered.scores_BxK
    assert (ids.dtype, scores.dtype, ids.shape) == (np.int32, np.float32, (REQUESTS, K))
    real = ids != -1
    assert real.any(1).mean() > 0.5
    assert not (np.diff(real.astype(int), axis=1) > 0).any(), "padding stands behind"
    assert np.isfinite(scores[real]).all()
    assert np.isneginf(scores[~real]).all()
    assert ((ids[real] > 0) & (ids[real] < system.store.counts.videos)).all()
    assert all(len(set(_real(row))) == len(_real(row)) for row in ids)
    both = real[:, 1:]
    falls, ties = scores[:, 1:] < scores[:, :-1], scores[:, 1:] == scores[:, :-1]
    assert (falls | ties)[both].all()
    assert (ids[:, 1:] > ids[:, :-1])[both & ties].all()
    assert (both & ties).sum() > 5, "or the order of ties is not looked at"


def test_who_asks_nothing_and_is_nobody_finds_nothing_but_by_pdr(kind, answered):
    assert bool(_real(answered.ids_BxK[-1])) == (kind[0] == "pdr")


def test_what_is_withheld_makes_room_for_what_comes_next(kind, system, channel, requests, answered):
    """Every other result, and in each second list nothing."""
    lists = [_real(row) for row in answered.ids_BxK]
    seen = tuple(np.sort(np.array(one[::2] * (n % 2), np.int32)) for n, one in enumerate(lists))
    got, more = found(system, channel, dataclasses.replace(requests, seen=seen)), 0
    for n, one in enumerate(lists):
        assert not set(_real(got.ids_BxK[n])) & set(seen[n].tolist())
        left = [video for video in one if video not in seen[n]]
        if kind[1] == "exact":
            assert _real(got.ids_BxK[n])[: len(left)] == left
        more += len(_real(got.ids_BxK[n])) > len(left)
    assert more > 50


def test_a_batch_is_its_single_requests(system, channel, requests, answered):
    for n in (0, 1, 100, 257, REQUESTS - 1):
        alone = found(system, channel, requests.slice(n, n + 1))
        np.testing.assert_allclose(alone.scores_BxK[0], answered.scores_BxK[n], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(alone.ids_BxK[0], answered.ids_BxK[n])
    assert found(system, channel, requests.slice(0, 0)).ids_BxK.shape == (0, K)


def test_fewer_than_asked_for_are_padded(system, channel, requests, answered):
    few = requests.slice(0, 3)
    videos = system.store.counts.videos
    got = found(system, channel, few, videos + 100)
    assert got.ids_BxK.shape == got.scores_BxK.shape == (3, videos + 100)
    assert (got.ids_BxK[:, videos - 1 :] == -1).all()
    assert np.isneginf(got.scores_BxK[got.ids_BxK == -1]).all()
    everything = tuple(np.arange(1, videos, dtype=np.int32) for _ in range(3))
    nothing = found(system, channel, dataclasses.replace(few, seen=everything))
    assert (nothing.ids_BxK == -1).all()
    assert np.isneginf(nothing.scores_BxK).all()


def test_the_same_bits_twice(kind, system, snapshot, indices, requests, answered):
    again = found(system, opened(system, snapshot, indices[kind[1]])[kind[0]], requests)
    assert again.ids_BxK.tobytes() == answered.ids_BxK.tobytes()
    assert again.scores_BxK.tobytes() == answered.scores_BxK.tobytes()


def test_no_look_at_later_events(kind, system, snapshot, indices, channel, requests):
    """A log that ends at the moment of the search gives the same bits."""
    for n in (3, 120, 250):
        one = requests.slice(n, n + 1)
        past = system.over(system.store.truncated(int(one.time_ms_B[0])))
        assert past.store.counts.events < system.store.counts.events
        now = found(system, channel, one)
        then = found(past, opened(past, snapshot, indices[kind[1]])[kind[0]], one)
        assert now.ids_BxK.tobytes() == then.ids_BxK.tobytes()
        assert now.scores_BxK.tobytes() == then.scores_BxK.tobytes()
