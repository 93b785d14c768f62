"""Captions and queries as lists of word ids, from lists in the log or from text."""

from __future__ import annotations

import polars as pl

from pr2_jax.data.logs.parsing import WORD_LIST, parse_words
from pr2_jax.data.logs.text import normalise, tokens_of
from pr2_jax.errors import BadInput


class WordLists:
    """Reads captions and queries. Text gets the ids of words.csv; words that it lacks get new ids, by spelling.

    An id says nothing but which word it is: rows of words are numbered by id, and all words known at a time keep their
    order whatever words come later.
    """

    def __init__(self, words: pl.DataFrame) -> None:
        """`words` has `word` (id) and `text`."""
        self._words = words
        self._ids: dict[str, int] = {}
        for word, text in words.sort("word", descending=True).iter_rows():
            self._ids[normalise(text)] = word  # the lowest id of a text wins
        self._ids.pop("", None)

    def read(
        self, captions: pl.Series, captions_as_text: bool, queries: pl.Series, queries_as_text: bool
    ) -> tuple[pl.Series, pl.Series, pl.DataFrame]:
        """Lists of int64 for both, and all words that have a text. A list that cannot be read is empty.

        BadInput where one is text, the other word ids, and no words.csv says which word is which.
        """
        if captions_as_text != queries_as_text and not self._ids and len(captions):
            text, ids = ("caption", "keyword") if captions_as_text else ("keyword", "caption")
            raise BadInput(
                f"{text} is text and {ids} is word ids, but no words.csv says which word is which: bring words.csv "
                f"(word_id, word), or give {ids} as text too"
            )
        if not captions_as_text and not queries_as_text:
            return parse_words(captions), _readable(queries), self._words
        tokens = {
            "captions": tokens_of(captions.fill_null(""), self._ids) if captions_as_text else None,
            "queries": tokens_of(queries.fill_null(""), self._ids) if queries_as_text else None,
        }
        flat = [lists.explode(empty_as_null=False) for lists in tokens.values() if lists is not None]
        new = sorted(set(pl.concat(flat).unique().to_list()) - self._ids.keys())
        start = max(self._words["word"].max() or 0, 0) + 1
        numbers = self._ids | dict(zip(new, range(start, start + len(new)), strict=True))
        more = pl.DataFrame({"word": range(start, start + len(new)), "text": new}, schema=self._words.schema)
        read_captions = parse_words(captions) if tokens["captions"] is None else _numbered(tokens["captions"], numbers)
        read_queries = _readable(queries) if tokens["queries"] is None else _numbered(tokens["queries"], numbers)
        return read_captions, read_queries, pl.concat([self._words, more])


def _readable(texts: pl.Series) -> pl.Series:
    """As `parse_words`; what is no list (of a result of a type left out, where nobody looked) is empty."""
    frame = pl.DataFrame({"text": texts})
    fine = frame.select(pl.when(pl.col("text").str.contains(WORD_LIST)).then("text")).to_series()
    return parse_words(fine)


def _numbered(lists: pl.Series, numbers: dict[str, int]) -> pl.Series:
    rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "text": lists}).explode(
        "text", empty_as_null=False
    )
    known = pl.DataFrame(
        {"text": list(numbers), "word": list(numbers.values())}, schema={"text": pl.String, "word": pl.Int64}
    )
    found = rows.join(known, on="text", how="left", maintain_order="left")
    grouped = found.group_by("row", maintain_order=True).agg("word")
    every = pl.DataFrame({"row": pl.int_range(len(lists), eager=True)}).join(
        grouped, on="row", how="left", maintain_order="left"
    )
    return every["word"].fill_null(pl.lit(pl.Series([[]], dtype=pl.List(pl.Int64))))
