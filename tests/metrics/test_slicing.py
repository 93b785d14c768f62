"""Cutting sessions into slices, and comparing two rankings within each."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pr2_jax.metrics import slicing
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.metrics.slicing import Measure, Slicing, compare, compare_slices, least, quantiles, thirds

MEASURE = Measure("slate.qin", "slate.base", "ndcg@10")


def _named(counts: list[int]) -> dict[int, str]:
    """The slice of each count, one thing after the other, in exact arithmetic."""
    counted = sorted(count for count in counts if count > 0)
    named = {}
    for count in counted:
        share = Fraction(sum(other for other in counted if other >= count), sum(counted))
        named[count] = "head" if share <= Fraction(1, 3) else "torso" if share <= Fraction(2, 3) else "tail"
    if len(named) > 1:
        named[counted[-1]] = "head"
    return named


@pytest.mark.parametrize("seed", range(8))
def test_thirds_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.zipf(1.3 + seed / 8, 200), 500) * rng.integers(0, 2, 200)
    torso, head = thirds(counts)
    want = _named(counts.tolist())
    assert {count: "head" if count >= head else "torso" if count >= torso else "tail" for count in want} == want
    assert {"head", "tail"} <= set(want.values())
    assert ("torso" in want.values()) == (torso < head)


@pytest.mark.parametrize(
    ("counts", "torso", "head"),
    [
        ([3, 2, 2, 2], 3, 3),  # 3 of 9 are the first third to the unit; the rest ends beyond the second
        ([4, 2, 2, 2], 4, 4),  # 4 of 10 are more than a third, but the most frequent is head
        ([6, 5, 4, 3, 2, 1], 5, 6),  # 6, 11, 15 of 21
        ([1, 1, 1, 0], 2, 2),  # all alike: all tail
        ([7], 8, 8),
        ([0, 0], 1, 1),
        ([], 1, 1),
        ([2**62, 1], 2**62, 2**62),
    ],
)
def test_thirds_by_hand(counts, torso, head):
    assert thirds(np.array(counts, np.int64)) == (torso, head)


def test_parts_of_equal_size_end_with_a_number_that_occurs():
    numbers = np.array([9, 1, 5, 5, 3, 20])
    assert quantiles(numbers, 2) == (6,)  # 1 3 5 | 5 would divide the fives, which stay together
    assert quantiles(numbers, 3) == (4, 6)
    assert quantiles(np.zeros(0), 3) == (0, 0)


def test_the_least_of_each_group():
    assert least(np.array([4, 2, 9, 7, 7]), np.array([2, 1, 2])).tolist() == [2, 9, 7]
    assert least(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
    with pytest.raises(ValueError, match="without a clicked video"):
        least(np.array([4, 2]), np.array([2, 0]))


def test_every_number_is_in_one_slice():
    numbers = np.arange(-1, 12)
    slicing = Slicing("age", "days", ("unknown", "new", "middle", "old"), (-1, 0, 3, 3), numbers)
    inside = []
    for k in range(4):
        low, high = slicing.bounds(k)
        inside.append((numbers >= low) & (numbers <= (high if high is not None else 99)))
    assert (np.sum(inside, axis=0) == 1).all()
    assert np.array_equal(slicing.slice_N, np.argmax(inside, axis=0))
    labels = [slicing.label(k) for k in range(4)]
    assert labels == ["age unknown", "age new (0 to 2)", "age middle (no count)", "age old (3 or more)"]
    assert Slicing("query", "", ("unseen", "seen"), (0, 1), numbers).label(0) == "query unseen (0)"


@pytest.fixture
def worth(rng) -> dict[str, PerSession]:
    """60 sessions of 20 people; a metric is not known in every fifth."""
    session, user = np.arange(100, 160), np.repeat(np.arange(20), 3)
    found = {}
    for name in ("slate.qin", "slate.base"):
        value = rng.random(60)
        value[::5] = np.nan
        found[name] = PerSession(session, user, {"ndcg@10": value})
    return found


def test_slices_add_up_to_the_whole(worth, rng):
    """Over some of the sessions only, as slates are there also for those without a click."""
    sessions = np.arange(110, 150)
    slicing = Slicing("query", "", ("a", "b", "c"), (0, 2, 5), rng.integers(0, 9, 40))
    parts = [found[MEASURE.name] for found in compare_slices(worth, [MEASURE], slicing, sessions, 50, 0)]
    whole = compare(worth, MEASURE, sessions, 50, 0)
    counts = [part.difference.count for part in parts]
    assert sum(counts) == whole.difference.count == 32
    for of in (lambda c: c.against, lambda c: c.ranking, lambda c: c.difference.mean):
        assert np.dot([of(part) for part in parts], counts) / sum(counts) == pytest.approx(of(whole))
    assert whole.difference.mean == pytest.approx(whole.ranking - whole.against)
    assert whole.against == pytest.approx(np.nanmean(worth["slate.base"]["ndcg@10"][10:50]))


def test_few_people_have_no_interval(worth):
    many = compare(worth, MEASURE, np.arange(100, 100 + 3 * slicing.FEW_USERS), 50, 0)
    few = compare(worth, MEASURE, np.arange(100, 100 + 3 * slicing.FEW_USERS - 3), 50, 0)
    assert (many.users, few.users) == (slicing.FEW_USERS, slicing.FEW_USERS - 1)
    assert many.difference.low < many.difference.mean < many.difference.high
    assert np.isnan([few.difference.low, few.difference.high]).all()
    assert np.isfinite(few.difference.mean)


def test_nobody_at_all(worth):
    nobody = compare(worth, MEASURE, np.zeros(0, np.int64), 50, 0)
    assert (nobody.users, nobody.difference.count) == (0, 0)
    assert np.isnan([nobody.against, nobody.ranking, nobody.difference.mean]).all()
