"""`pr2 search` as people see it."""

from __future__ import annotations

import json

import pytest

from pr2_jax.cli import entry
from pr2_jax.search import search_command


@pytest.fixture
def search(engine, finished, monkeypatch):
    """`pr2 search` with the engine that is open already; the exit status."""
    monkeypatch.setattr(search_command.SearchEngine, "load", lambda workdir: engine)
    return lambda *arguments: entry.main(["search", "--workdir", str(finished), *map(str, arguments)])


def test_table_with_captions_in_words(search, engine, watcher, known_query, capsys):
    assert search("--user", watcher, "--query", known_query, "--k", 4) == 0
    out, err = capsys.readouterr()
    assert err == ""
    query, header, *lines = out.rstrip().splitlines()
    assert query == "query     " + " · ".join(known_query.split())
    assert [name in header for name in ("video", "caption", "score", "click", "found by")] == [True] * 5
    rows = [line for line in lines if line.split()[0] in {"1", "2", "3", "4"} and line.split()[1].isdigit()]
    found = engine.search(watcher, known_query, 4).results
    assert [int(row.split()[1]) for row in rows] == [result.video_id for result in found]
    captions = [engine.system.store.caption(result.video_id, 6) for result in found]
    assert any(word in engine.system.store.words.text for word in captions[0].split())
    assert all(caption.split()[0] in row for caption, row in zip(captions, rows, strict=True))


def test_ids_where_the_log_has_no_words(engine, watcher, known_query, monkeypatch):
    words = engine.system.store.words
    video = engine.search(watcher, known_query, 1).results[0].video_id
    text = engine.system.store.caption(video, 6).removesuffix(" …").split()
    raw_of = dict(zip(words.text, words.raw_id.tolist(), strict=True))
    monkeypatch.setattr(type(words), "text", [None] * len(words.raw_id), raising=False)
    if hasattr(words, "__dict__") and "text" in vars(words):
        monkeypatch.setitem(vars(words), "text", [None] * len(words.raw_id))
    assert engine.system.store.caption(video, 6).removesuffix(" …").split() == [str(raw_of[word]) for word in text]


def test_what_was_clicked_before_is_marked(search, engine, watcher, monkeypatch, capsys):
    monkeypatch.setattr(type(engine.system), "withheld", lambda *rest: ())
    assert search("--user", watcher, "--query", "", "--k", 50) == 0
    _, header, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert header.rstrip().endswith("clicked before")
    marked = sum(line.rstrip().endswith(" yes") for line in lines)
    assert marked == sum(result.clicked_before for result in engine.search(watcher, "", 50).results) > 0


def test_json(search, engine, watcher, known_query, capsys):
    assert search("--user", watcher, "--query", known_query, "--k", 3, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known_user"] is True
    assert found["unknown_words"] == []
    assert found["words"] == [{"text": word, "known": True} for word in known_query.split()]
    ids = [result["video_id"] for result in found["results"]]
    assert ids == [result.video_id for result in engine.search(watcher, known_query, 3).results]
    assert set(found["results"][0]) == {
        "video_id",
        "score",
        "relevance",
        "heads",
        "channels",
        "because",
        "clicked_before",
    }


@pytest.mark.parametrize(
    ("user", "query", "said"),
    [
        (
            "987654321",
            "Zzqqxx!",
            ["user 987654321 is not in the log", "no word of the query is in the log: results by"],
        ),
        ("1", " ", ["the query is empty"]),
        ("1", "!?", ["the query has no word, only signs"]),
    ],
)
def test_what_was_not_understood_is_said(search, user, query, said, capsys):
    assert search("--user", user, "--query", query, "--json") == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["results"]) == 10
    assert all(text in err for text in said)


def test_what_was_understood_is_a_line(search, known_query, capsys):
    word = known_query.split()[0]
    for query, line in (
        (f"{word.upper()}-ZZqqxx, vvkk", f"query     {word}  (unknown: zzqqxx, vvkk)"),
        ("zzqqxx", "query     (no known word)  (unknown: zzqqxx)"),
        ("", "query     (no known word)"),
    ):
        assert search("--user", 1, "--query", query) == 0
        assert capsys.readouterr().out.splitlines()[0] == line


@pytest.mark.parametrize("user", ["abc", "1.5", "", "9" * 30])
def test_a_user_that_is_no_id(search, user, capsys):
    assert search("--user", user, "--query", "a") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"--user {user!r}" in err


def test_a_word_beyond_64_bits_is_just_unknown(engine):
    assert engine.search(1, "9" * 30, 3).unknown_words == ("9" * 30,)


def test_no_work_directory(tmp_path, capsys):
    assert entry.main(["search", "--workdir", str(tmp_path), "--user", "1", "--query", "a"]) == 2
    assert "`pr2 run --config NAME`" in capsys.readouterr().err
