"""Session metrics against a slow plain twin, probability metrics against hand cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.ranking_metrics import expected_gains


def plain_gains(scores: list[float], clicked: list[bool]) -> list[float]:
    """Relevance per rank, equal scores sharing the mean of their ranks: one session, plain Python."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    gains, start = [], 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        share = sum(clicked[i] for i in order[start:end]) / (end - start)
        gains += [share] * (end - start)
        start = end
    return gains


def plain_metrics(scores: list[float], clicked: list[bool], positives: int, ks=(10, 100)) -> dict[str, float]:
    """The published formulae, rank by rank."""
    gains = plain_gains(scores, clicked)
    out = {f"recall@{k}": sum(gains[:k]) / positives for k in ks}
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, positives) + 1))
    out["ndcg@10"] = sum(g / math.log2(rank + 1) for rank, g in enumerate(gains[:10], 1)) / ideal
    survive, mrr, before, average_precision = 1.0, 0.0, 0.0, 0.0
    for rank, g in enumerate(gains, 1):
        mrr += survive * g / rank
        survive *= 1 - g
        average_precision += g * (before + 1) / rank
        before += g
    out["mrr"], out["map"] = mrr, average_precision / positives
    won = [
        (s > t) + 0.5 * (s == t)
        for s, c in zip(scores, clicked, strict=True) if c
        for t, d in zip(scores, clicked, strict=True) if not d
    ]  # fmt: skip
    out["auc"] = sum(won) / len(won) if won else math.nan
    return out


@pytest.fixture
def sessions(rng: np.random.Generator):
    """Ragged sessions with many ties, some empty, some with clicked videos that were not retrieved."""
    valid = np.arange(37) < rng.integers(0, 38, 60)[:, None]
    scores = rng.integers(0, 9, (60, 37)).astype(np.float32) / 7
    clicked = rng.random((60, 37)) < 0.2
    positives = (clicked & valid).sum(1) + rng.integers(0, 3, 60)
    return scores, clicked, valid, positives


def test_equal_to_the_plain_twin(sessions) -> None:
    scores, clicked, valid, positives = sessions
    # What lies behind the mask must not matter.
    scores = np.where(valid, scores, np.nan)
    retrieval = ranking_metrics.retrieval_metrics(scores, clicked, valid, positives)
    slate = ranking_metrics.slate_metrics(scores, clicked, valid)
    for s in range(len(scores)):
        row, hit = scores[s][valid[s]].tolist(), clicked[s][valid[s]].tolist()
        if positives[s]:
            want = plain_metrics(row, hit, int(positives[s]))
            for name, values in retrieval.items():
                assert values[s] == pytest.approx(want[name], abs=1e-12), name
        else:
            assert all(np.isnan(values[s]) for values in retrieval.values())
        if any(hit):
            want = plain_metrics(row, hit, sum(hit))
            for name, values in slate.items():
                assert values[s] == pytest.approx(want[name], abs=1e-12, nan_ok=True), name


def test_permuting_results_changes_nothing(sessions, rng: np.random.Generator) -> None:
    scores, clicked, valid, positives = sessions
    order = rng.permuted(np.tile(np.arange(37), (60, 1)), axis=1)
    moved = (np.take_along_axis(x, order, 1) for x in (scores, clicked, valid))
    for name, values in ranking_metrics.retrieval_metrics(*moved, positives).items():
        np.testing.assert_allclose(values, ranking_metrics.retrieval_metrics(scores, clicked, valid, positives)[name])


def test_hand_cases() -> None:
    scores = np.array([[3.0, 2, 1], [3, 2, 1], [1, 1, 1], [5, 0, 0]], np.float32)
    clicked = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]], bool)
    valid = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]], bool)
    got = ranking_metrics.retrieval_metrics(scores, clicked, valid, np.array([1, 2, 1, 1]), ks=(1, 100))
    # Rank 2; clicked videos that were not found; a three-way tie; one item, with k beyond the list.
    np.testing.assert_allclose(got["recall@1"], [0, 0, 1 / 3, 1])
    np.testing.assert_allclose(got["recall@100"], [1, 0, 1, 1])
    np.testing.assert_allclose(got["ndcg@10"], [1 / math.log2(3), 0, (1 + 1 / math.log2(3) + 0.5) / 3, 1])
    np.testing.assert_allclose(got["mrr"], [0.5, 0, 1 / 3 + 2 / 3 / 3 / 2 + 4 / 9 / 3 / 3, 1])
    slate = ranking_metrics.slate_metrics(scores, clicked, valid)
    np.testing.assert_allclose(slate["auc"], [0.5, np.nan, 0.5, np.nan])
    assert np.isnan(slate["ndcg@10"][1])


def test_sessions_without_any_result_count_zero() -> None:
    nothing = np.zeros((2, 0))
    got = ranking_metrics.retrieval_metrics(nothing, nothing.astype(bool), nothing.astype(bool), np.array([1, 3]))
    assert all((values == 0).all() for values in got.values())


def test_constant_scorer_lands_at_chance(rng: np.random.Generator) -> None:
    clicked = np.zeros((400, 10), bool)
    clicked[np.arange(400), rng.integers(0, 10, 400)] = True
    valid = np.ones_like(clicked)
    constant = ranking_metrics.slate_metrics(np.zeros((400, 10)), clicked, valid)
    shuffled = [ranking_metrics.slate_metrics(rng.random((400, 10)), clicked, valid) for _ in range(20)]
    assert (constant["auc"] == 0.5).all()
    chance = np.mean([run["ndcg@10"].mean() for run in shuffled])
    assert constant["ndcg@10"].mean() == pytest.approx(chance, abs=0.01)


def test_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        expected_gains(np.array([[np.nan]]), np.array([[True]]), np.array([[True]]))


def test_auc_against_pairs(rng: np.random.Generator) -> None:
    labels, scores, users = rng.random(300) < 0.3, rng.integers(0, 20, 300) / 20, rng.integers(0, 15, 300)
    labels[users == 3] = True

    def pairs(y, s):
        d = s[y][:, None] - s[~y][None, :]
        return ((d > 0) + 0.5 * (d == 0)).mean() if d.size else np.nan

    assert ranking_metrics.auc(labels, scores) == pytest.approx(pairs(labels, scores))
    each = np.array([pairs(labels[users == u], scores[users == u]) for u in range(15)])
    np.testing.assert_allclose(ranking_metrics.grouped_auc(labels, scores, users, 15), each)
    count = np.bincount(users)
    known = np.isfinite(each)
    assert not known[3]
    assert ranking_metrics.gauc(labels, scores, users) == pytest.approx(np.average(each[known], weights=count[known]))
    assert np.isnan(ranking_metrics.auc(np.ones(3, bool), np.arange(3)))
    assert np.isnan(ranking_metrics.gauc(np.ones(3, bool), np.arange(3), np.zeros(3)))


def test_log_loss_and_bias() -> None:
    labels, p = np.array([1, 0, 1, 0]), np.array([0.5, 0.5, 1.0, 0.0])
    assert ranking_metrics.log_losses(labels, p).mean() == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert np.isfinite(ranking_metrics.log_losses(labels, 1 - p)).all()
    assert ranking_metrics.predicted_over_observed(labels, p) == pytest.approx(1.0)
    assert np.isnan(ranking_metrics.predicted_over_observed(np.zeros(2), np.ones(2)))


def test_calibration_error_by_hand() -> None:
    p = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
    y = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    # |0.25 - 0.1| and |0.75 - 0.9|, half the rows each.
    assert ranking_metrics.expected_calibration_error(y, p, bins=2) == pytest.approx(0.15)
    assert ranking_metrics.expected_calibration_error(y, np.full(8, 0.5)) == pytest.approx(0.0)


def test_calibration_error_ignores_the_order_of_rows(rng: np.random.Generator) -> None:
    p = rng.integers(0, 5, 200) / 5
    y, order = rng.random(200) < p, rng.permutation(200)
    moved = ranking_metrics.expected_calibration_error(y[order], p[order])
    assert ranking_metrics.expected_calibration_error(y, p) == pytest.approx(moved)
