"""Captions and queries as lists of word ids, from lists in the log or from text."""

from __future__ import annotations

import polars as pl

from pr2_jax.data.logs.parsing import WORD_LIST, parse_words
from pr2_jax.data.logs.text import normalise, tokens_of
from pr2_jax.errors import BadInput


def read_word_lists(
    words: pl.DataFrame, captions: pl.Series, captions_as_text: bool, queries: pl.Series, queries_as_text: bool
) -> tuple[pl.Series, pl.Series, pl.DataFrame]:
    """Captions and queries as lists of int64, and all words that have a text. An unreadable query is an empty list.

    `words` has `word` (id) and `text`. Text gets the ids of these words; other words get new, higher ids in order of
    spelling. So words keep their order, and their rows, when further words come later.
    BadInput where one column is text, the other word ids, and no words.csv connects the two.
    """
    ids: dict[str, int] = {}
    for word, text in words.sort("word", descending=True).iter_rows():
        ids[normalise(text)] = word  # the lowest id of a text wins
    ids.pop("", None)
    if captions_as_text != queries_as_text and not ids and len(captions):
        text, listed = ("caption", "keyword") if captions_as_text else ("keyword", "caption")
        raise BadInput(
            f"{text} is text and {listed} is word ids, but no words.csv says which word is which: bring words.csv "
            f"(word_id, word), or give {listed} as text too"
        )
    if not captions_as_text and not queries_as_text:
        return parse_words(captions), _readable(queries), words
    caption_tokens = tokens_of(captions.fill_null(""), ids) if captions_as_text else None
    query_tokens = tokens_of(queries.fill_null(""), ids) if queries_as_text else None
    flat = [lists.explode(empty_as_null=False) for lists in (caption_tokens, query_tokens) if lists is not None]
    new = sorted(set(pl.concat(flat).unique().to_list()) - ids.keys())
    start = max(words["word"].max() or 0, 0) + 1
    more = pl.DataFrame({"word": range(start, start + len(new)), "text": new}, schema=words.schema)
    numbers = ids | dict(zip(new, more["word"], strict=True))
    caption_lists = parse_words(captions) if caption_tokens is None else _numbered(caption_tokens, numbers)
    query_lists = _readable(queries) if query_tokens is None else _numbered(query_tokens, numbers)
    return caption_lists, query_lists, pl.concat([words, more])


def _readable(texts: pl.Series) -> pl.Series:
    """As `parse_words`. A text that is no list is empty: cells of result types that are left out are not checked."""
    frame = pl.DataFrame({"text": texts})
    return parse_words(frame.select(pl.when(pl.col("text").str.contains(WORD_LIST)).then("text")).to_series())


def _numbered(lists: pl.Series, numbers: dict[str, int]) -> pl.Series:
    texts, words = pl.Series(list(numbers), dtype=pl.String), pl.Series(list(numbers.values()), dtype=pl.Int64)
    number = pl.element().replace_strict(texts, words, return_dtype=pl.Int64)
    return lists.list.eval(number).cast(pl.List(pl.Int64))
