"""Whole numbers and lists of word ids as files write them."""

from __future__ import annotations

import polars as pl
import pytest

from pr2_jax.data.logs.parsing import WORD_LIST, parse_words, whole


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        ("[20, 34, 3]", [20, 34, 3]),
        ("[20,34]", [20, 34]),
        ("[ 20 , -34 ]", [20, -34]),
        ("[]", []),
        ("[ ]", []),
        ("[20.0, 34.0]", [20, 34]),
        ("[20 34\n  3]", [20, 34, 3]),
        ("[ 20. 34.]", [20, 34]),
        ("[1.5]", None),
        ("[20, 34", None),
        ("[20,,34]", None),
        ("[20-34]", None),
        ("[a]", None),
        ("20 34", None),
        (f"[{'9' * 19}]", None),
    ],
)
def test_lists(written, ids):
    assert pl.Series([written]).str.contains(WORD_LIST).to_list() == [ids is not None]
    if ids is not None:
        assert parse_words(pl.Series([written, None])).to_list() == [ids, []]


def test_a_missing_list_is_empty():
    assert parse_words(pl.Series([None, "[7]"], dtype=pl.String)).to_list() == [[], [7]]


def test_whole_numbers():
    def read(values, dtype):
        frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
        return frame.select(whole(pl.col("x"), dtype))["x"].to_list()

    assert read(["12", "12.0", "-3", "1.5", "x", None, str(2**63), str(2**62 + 1)], pl.String) == [
        *(12, 12, -3, None, None, None, None),
        2**62 + 1,
    ]
    assert read([12.0, 1.5, float("nan"), float("inf"), 2.0**60], pl.Float64) == [12, None, None, None, None]
    assert read([2**63, 5], pl.UInt64) == [None, 5]
