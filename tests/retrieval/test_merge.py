"""Merging channels against a plain twin; scales, scorers, and the choice of weights."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.retrieval import merge
from pr2_jax.types import Candidates


def candidates_of(rows: list[dict[int, float]], k: int) -> Candidates:
    """One dict (video: score) a request, best first."""
    ids, scores = np.full((len(rows), k), -1, np.int32), np.full((len(rows), k), -np.inf, np.float32)
    for b, row in enumerate(rows):
        for at, (video, score) in enumerate(sorted(row.items(), key=lambda item: (-item[1], item[0]))):
            ids[b, at], scores[b, at] = video, score
    return Candidates(ids, scores)


def plain_merge(channels: dict[str, list[dict[int, float]]], weights: dict[str, float]) -> list[dict[int, float]]:
    out: list[dict[int, float]] = []
    for b in range(len(next(iter(channels.values())))):
        total: dict[int, float] = {}
        for name, rows in channels.items():
            found = rows[b]
            if not found:
                continue
            floor = 0.0 if name in ("bm25", "qrcf") else min(found.values())
            span = max(found.values()) - floor
            for video, score in found.items():
                scaled = min(max((score - floor) / span, 1e-6), 1.0) if span > 0 else 1.0
                total[video] = total.get(video, 0.0) + weights[name] * scaled
        out.append(total)
    return out


@pytest.fixture
def channels(rng: np.random.Generator) -> dict[str, list[dict[int, float]]]:
    """Two kinds of channels over 12 requests, lists of 0 to 20 results."""

    def drawn() -> dict[int, float]:
        videos = rng.choice(np.arange(1, 40), rng.integers(0, 21), False)
        return {int(v): float(np.float32(rng.random() + 0.1)) for v in videos}

    return {name: [drawn() for _ in range(12)] for name in ("bm25", "dr", "pdr")}


WEIGHTS = {"bm25": 0.5, "dr": 0.2, "pdr": 0.3}


def test_merge_is_the_plain_twin(channels: dict) -> None:
    got = merge.merge({n: candidates_of(rows, 20) for n, rows in channels.items()}, WEIGHTS, 50)
    for b, want in enumerate(plain_merge(channels, WEIGHTS)):
        found = got.ids_BxK[b] > 0
        assert set(got.ids_BxK[b][found]) == set(want)
        np.testing.assert_allclose(
            got.scores_BxK[b][found], [want[v] for v in got.ids_BxK[b][found]], rtol=1e-5, atol=1e-6
        )
        for c, name in enumerate(got.channels):
            returned = [v in channels[name][b] for v in got.ids_BxK[b][found]]
            np.testing.assert_array_equal(got.found_BxKxC[b, found, c], returned)
            np.testing.assert_array_equal(got.sources_BxKxC[b, found, c] > 0, returned)
    assert (np.diff(np.where(np.isfinite(got.scores_BxK), got.scores_BxK, -9), axis=1) <= 0).all()
    assert (got.sources_BxKxC[got.ids_BxK < 0] == 0).all()


def test_cut_to_k_and_single_requests(channels: dict) -> None:
    lists = {n: candidates_of(rows, 20) for n, rows in channels.items()}
    whole, few = merge.merge(lists, WEIGHTS, 50), merge.merge(lists, WEIGHTS, 7)
    np.testing.assert_array_equal(few.ids_BxK, whole.ids_BxK[:, :7])
    for b in range(12):
        one = {n: Candidates(c.ids_BxK[b : b + 1], c.scores_BxK[b : b + 1]) for n, c in lists.items()}
        np.testing.assert_array_equal(merge.merge(one, WEIGHTS, 7).ids_BxK[0], few.ids_BxK[b])


def test_ties_ascend_and_single_results_count_in_full() -> None:
    lists = {"bm25": candidates_of([{9: 2.0, 4: 2.0, 7: 2.0}], 3), "dr": candidates_of([{7: -0.3}], 3)}
    got = merge.merge(lists, {"bm25": 1.0, "dr": 1.0}, 3)
    assert got.ids_BxK.tolist() == [[7, 4, 9]]
    assert got.scores_BxK.tolist() == [[2.0, 1.0, 1.0]]


def test_scorer_fills_in_what_the_channel_cut_off() -> None:
    # BM25 returned two of its matches; the dense channel found a third and a video that does not match.
    full = np.array([0, 4.0, 3.0, 2.0, 0.0], np.float32)
    lists = {"bm25": candidates_of([{1: 4.0, 2: 3.0}], 2), "dr": candidates_of([{3: 0.9, 4: 0.8}], 2)}
    got = merge.pool(lists, {"bm25": lambda ids: np.where(ids > 0, full[np.maximum(ids, 0)], 7.0)})
    assert got.ids_BxN.tolist() == [[1, 2, 3, 4]]
    np.testing.assert_allclose(got.sources_BxNxC[0, :, 0], [1, 0.75, 0.5, 0])
    assert got.found_BxNxC[0, :, 0].tolist() == [True, True, False, False]


def test_weights_must_name_the_channels(channels: dict) -> None:
    lists = {n: candidates_of(rows, 20) for n, rows in channels.items()}
    with pytest.raises(ValueError, match="weights for"):
        merge.merge(lists, {"bm25": 1.0, "dr": 1.0}, 5)


def test_nothing_found() -> None:
    lists = {"bm25": candidates_of([{}, {}], 3), "dr": candidates_of([{}, {}], 3)}
    got = merge.merge(lists, {"bm25": 1.0, "dr": 1.0}, 4)
    assert (got.ids_BxK == -1).all()
    assert got.sources_BxKxC.shape == (2, 4, 2)


def test_chosen_weights_favour_the_channel_that_knows(rng: np.random.Generator) -> None:
    clicked = [rng.choice(np.arange(1, 300), 2, False) for _ in range(60)]
    noise = [{int(v): float(rng.random()) for v in rng.choice(np.arange(1, 300), 150, False)} for _ in range(60)]
    good = [
        {int(v): float(rng.random()) for v in rng.choice(np.arange(1, 300), 150, False)}
        | {int(v): 0.9 + 0.05 * rng.random() for v in c}
        for c in clicked
    ]
    lists = {"dr": candidates_of(noise, 160), "pdr": candidates_of(good, 160)}
    got = merge.choose_weights(lists, clicked)
    assert got["pdr"] > 0.8
    assert sum(got.values()) == pytest.approx(1.0)
    assert got == merge.choose_weights(lists, clicked)
    # A channel that finds nothing gets nothing, though ties are paid at chance.
    nothing = {"bm25": candidates_of([{}] * 60, 160)}
    assert merge.choose_weights(nothing | lists, clicked) == {"bm25": 0.0} | got
    assert merge.choose_weights(nothing, clicked) == {"bm25": 1.0}
    # Requests without a click say nothing.
    assert merge.choose_weights(lists, [np.zeros(0, np.int64)] * 60) == {"dr": 0.5, "pdr": 0.5}
