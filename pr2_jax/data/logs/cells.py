"""How cells of logs and of requests files are read: whole numbers, and lists of word ids."""

from __future__ import annotations

import polars as pl

_NUMBER = r"-?\d{1,18}(?:\.0*)?"
WORD_LIST = rf"^\[\s*(?:{_NUMBER}(?:(?:\s*,\s*|\s+){_NUMBER})*\s*)?\]$"
"""[20, 34, 3] as logs write it, [20 34 3] and [20. 34. 3.] as arrays are printed, [] for none."""
LARGEST_EXACT = 2.0**53  # of whole numbers written as floats


def is_textual(dtype: pl.DataType) -> bool:
    """Whether the cells are text."""
    return dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)


def whole(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """int64; a float is taken where it is whole (KuaiSAR writes some ids as 12.0); null for anything else."""
    if not is_textual(dtype) and not dtype.is_float() and not dtype.is_decimal():
        return raw.cast(pl.Int64, strict=False)
    number = raw.cast(pl.Float64, strict=False)
    exact = pl.when((number == number.floor()) & (number.abs() <= LARGEST_EXACT)).then(number)
    return (
        pl.coalesce(raw.cast(pl.Int64, strict=False), exact.cast(pl.Int64, strict=False))
        if is_textual(dtype)
        else exact.cast(pl.Int64, strict=False)
    )


def parse_words(texts: pl.Series) -> pl.Series:
    """`"[20, 34, 3]"` → list of int64; missing → empty list. Every text must already match WORD_LIST."""
    if texts.str.contains(".", literal=True).any():
        texts = texts.str.replace_all(r"\.0*", "")
    return texts.fill_null("[]").str.extract_all(r"-?\d+").cast(pl.List(pl.Int64))
