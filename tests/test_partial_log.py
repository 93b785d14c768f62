"""The whole way on the least that a log may be: clicked results of searches, and ids. What cannot be known is said, not
made up."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from pr2_jax import pipeline
from pr2_jax.config.loader import read
from pr2_jax.data.batches.sessions import impressions_of
from pr2_jax.data.ingest.log_coverage import lacks
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.report.sections import calibration_section, data_section, overlap_section, results_section
from pr2_jax.report.workdir_reader import Work
from pr2_jax.search.engine import SearchEngine

pytestmark = pytest.mark.slow


def _clicks_of(store: LogStore) -> pl.DataFrame:
    """`src_inter` of a store, unclicked results left out."""
    row, session = impressions_of(store, np.arange(store.counts.sessions))
    clicked = np.asarray(store.impressions.clicks)[row] > 0
    row, session, s, q = row[clicked], session[clicked], store.sessions, store.queries
    words = [np.asarray(store.words.raw_id)[q.words[q.first_word[n] : q.first_word[n + 1]]] for n in s.query[session]]
    return pl.DataFrame(
        {
            "user_id": np.asarray(store.users.raw_id)[s.user[session]],
            "search_session_id": s.raw_id[session],
            "search_session_timestamp": s.time_ms[session],
            "keyword": [str(one.tolist()) for one in words],
            "search_source": "",
            "item_id": np.asarray(store.videos.raw_id)[store.impressions.video[row]],
            "click_cnt": 1,
            "item_type": "VIDEO",
        }
    )


@pytest.fixture(scope="module")
def made(finished, micro_config, on_one_device, tmp_path_factory):
    """A work directory made from that, in two steps a model."""
    place = tmp_path_factory.mktemp("partial")
    (place / "log").mkdir()
    _clicks_of(LogStore.open(finished / "store")).write_csv(place / "log" / "src_inter.csv")
    short = {}
    for name in ("content", "preference", "pdr", "qin", "base"):
        part = getattr(micro_config, name)
        short[name] = dataclasses.replace(part, optim=dataclasses.replace(part.optim, max_steps=2))
    source = dataclasses.replace(micro_config.data, source="kuaisar")
    pipeline.run(place / "work", dataclasses.replace(micro_config, **short, data=source), place / "log")
    return place / "work"


def test_it_runs_and_says_what_it_does_not_know(made):
    rows = json.loads((made / "eval" / "metrics.json").read_text())["rows"]
    for name, row in rows.items():
        known = [value["mean"] if isinstance(value, dict) else value for value in row.values()]
        judged = not name.startswith("slate.")  # everything shown was clicked: no order of it is better than another
        assert [value is not None for value in known] == [judged] * len(known), name
    assert rows["retrieval.bm25.run"]["recall@100"]["mean"] == rows["retrieval.dr.run"]["recall@100"]["mean"] == 0
    assert rows["retrieval.pr2.run"]["recall@100"]["mean"] > 0
    assert "nan" not in (made / "eval" / "table.txt").read_text()
    assert not np.load(made / "preference" / "video_vectors.npy").any()
    assert not np.load(made / "content" / "video_vectors.npy").any()
    assert len(lacks(LogStore.open(made / "store"))) == 6


def test_searches_are_answered_without_heads_that_nothing_taught(made):
    engine = SearchEngine.load(made)
    user = int(engine.system.store.users.raw_id[1])
    found = engine.search(user, [int(engine.system.store.words.raw_id[1])], 5)
    assert len(found.results) == 5
    assert all(tuple(one.heads) == ("click",) and np.isfinite(one.score) for one in found.results)


def test_the_report_says_so_once(made):
    work = Work(made, read(made / "config.json"))
    for part in (calibration_section, overlap_section, results_section):
        assert "nan" not in part.section(work).finding
    (note,) = (block.text for block in data_section.section(work).blocks if getattr(block, "heading", ""))
    assert note.count(". ") == 5
    assert "nothing tells" in calibration_section.section(work).finding
