from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pr2_jax.abtest.assignment import SplitFault, arms_of, check_split

PEOPLE = 100_000 + 37 * np.arange(20_000)


def test_the_same_person_is_always_in_the_same_arm():
    whole = arms_of(PEOPLE, "first", (0.5, 0.5))
    some = np.random.default_rng(0).permutation(20_000)[:100]
    np.testing.assert_array_equal(arms_of(PEOPLE[some], "first", (0.5, 0.5)), whole[some])


def test_arms_have_their_shares():
    counts = np.bincount(arms_of(PEOPLE, "salt", (0.2, 0.5, 0.3)))
    assert stats.chisquare(counts, 20_000 * np.array([0.2, 0.5, 0.3])).pvalue > 1e-3


def test_another_salt_splits_independently():
    one, other = arms_of(PEOPLE, "a", (0.5, 0.5)), arms_of(PEOPLE, "b", (0.5, 0.5))
    table = np.histogram2d(one, other, bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_lost_people_are_noticed():
    assert check_split((5_000, 5_050), (0.5, 0.5), "people") > 0.5
    assert check_split((2_010, 8_000), (0.2, 0.8), "people") > 0.5
    with pytest.raises(SplitFault, match=r"people by arm are 5,000 \(expected 4,800\), 4,600 \(.*p = "):
        check_split((5_000, 4_600), (0.5, 0.5), "people")
