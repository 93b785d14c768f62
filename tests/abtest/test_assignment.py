from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pr2_jax.abtest.experiment import SampleRatioMismatch, assign_arms, check_sample_ratio

PEOPLE = 100_000 + 37 * np.arange(20_000)


def test_a_person_s_arm_depends_on_nobody_else():
    whole = assign_arms(PEOPLE, "first", (0.5, 0.5))
    some = np.random.default_rng(0).permutation(20_000)[:100]
    np.testing.assert_array_equal(assign_arms(PEOPLE[some], "first", (0.5, 0.5)), whole[some])


def test_arms_have_their_shares():
    counts = np.bincount(assign_arms(PEOPLE, "salt", (0.2, 0.5, 0.3)))
    assert stats.chisquare(counts, 20_000 * np.array([0.2, 0.5, 0.3])).pvalue > 1e-3


def test_another_salt_splits_independently():
    one, other = assign_arms(PEOPLE, "a", (0.5, 0.5)), assign_arms(PEOPLE, "b", (0.5, 0.5))
    table = np.histogram2d(one, other, bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_sample_ratio_mismatch_is_raised():
    assert check_sample_ratio((5_000, 5_050), (0.5, 0.5), "people") > 0.5
    assert check_sample_ratio((2_010, 8_000), (0.2, 0.8), "people") > 0.5
    with pytest.raises(SampleRatioMismatch, match=r"people by arm are 5,000 \(expected 4,800\), 4,600 \(.*p = "):
        check_sample_ratio((5_000, 4_600), (0.5, 0.5), "people")
