"""What a log does not hold, in words: nothing of a whole one, and one thing at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pr2_jax.config import DataConfig
from pr2_jax.data.ingest.log_coverage import labels_told, lacks
from pr2_jax.data.logs.log_tables import read_log
from pr2_jax.data.store.log_store import LogStore


def _without(name: str) -> Callable:
    return lambda log: log.tables.pop(name)


def _emptied(table: str, *columns: str) -> Callable:
    def empty(log) -> None:
        for column in columns:
            log.put_all(table, column, [""] * (len(log.tables[table]) - 1))

    return empty


def _clicked_only(log) -> None:
    rows = log.tables["src_inter"]
    log.tables["src_inter"] = rows[:1] + [row for row in rows[1:] if row[rows[0].index("click_cnt")] != "0"]


def _late_feed(log) -> None:
    """Views of the last day alone."""
    rows = log.tables["rec_inter"]
    time = rows[0].index("timestamp")
    late = max(float(row[time]) for row in rows[1:]) - 80_000_000
    log.tables["rec_inter"] = rows[:1] + [row for row in rows[1:] if float(row[time]) > late]


LEVELS = tuple(f"{level}_level_category_id" for level in ("first", "second", "third", "fourth"))
ONE: dict[str, tuple[Callable, list[str]]] = {
    "nothing": (lambda log: None, []),
    "no feed": (_without("rec_inter"), ["no feed views", "no long plays and no likes"]),
    "late feed": (_late_feed, ["no feed views on the training days", "no long plays and no likes"]),
    "no people": (_without("user_features"), ["no user features"]),
    "ids alone": (
        _without("item_features"),
        ["no captions, authors, categories or content vectors", "no upload times"],
    ),
    "no captions": (_emptied("item_features", "caption"), ["no captions: BM25 finds nothing"]),
    "no kinds": (_emptied("item_features", "author_id", *LEVELS), ["no authors and no categories"]),
    "no words": (_emptied("src_inter", "keyword"), ["no query has words"]),
    "clicks alone": (_clicked_only, ["every shown result was clicked"]),
}


@pytest.mark.parametrize("case", ONE)
def test_one_thing_at_a_time(case, tiny, tmp_path):
    spoil, want = ONE[case]
    spoil(tiny)
    store = LogStore.from_tables(read_log(tiny.write(tmp_path / "log"), DataConfig()))
    said = lacks(store)
    assert [sentence[: len(start)] for sentence, start in zip(said, want, strict=True)] == want
    told = {label: told for label, told in labels_told(store).items() if label in ("click", "long_play", "like")}
    assert told == {"click": True, **dict.fromkeys(("long_play", "like"), "feed" not in case)}
