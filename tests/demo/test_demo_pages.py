"""What the page and the API say, and that they say the same."""

from __future__ import annotations

import copy
import json
import re
from urllib.parse import urlencode

import pytest

from pr2_jax.demo import demo_request, web

NOBODY = 987654321


def _page(site, **fields):
    reply = site.ask("/?" + urlencode(fields))
    assert reply.status == 200
    return reply.text


def _ids(page, system):
    return [int(found) for found in re.findall(rf'<li id="{system}-(\d+)"', page)]


@pytest.fixture(scope="module")
def query(answers, watcher) -> str:
    """The first suggested one whose answer has reasons, and results that the other list has further down."""
    for query in answers.queries:
        said = answers.search(demo_request.DemoRequest(watcher, query, 6))
        if said["moves"]["pr2"]["deeper"] and any(one["because"] for one in said["lists"]["pr2"]):
            return query
    raise AssertionError("no such query")


def test_the_api_gives_what_the_engines_find(site, answers, watcher, query):
    said = json.loads(site.search(user=watcher, query=query, k=6).text)
    assert (said["user"], said["query"], said["k"], said["known_user"]) == (watcher, query, 6, True)
    assert (said["unknown_words"], said["notes"]) == ([], [])
    assert said["words"] == [{"text": word, "known": True} for word in query.split()]
    engines = answers._both.engines
    deep = {name: [r.video_id for r in engine.search(watcher, query, 64).results] for name, engine in engines.items()}
    beyond = 0
    for name, other in (("base", "pr2"), ("pr2", "base")):
        alone = engines[name].search(watcher, query, 6).results
        for one, result in zip(said["lists"][name], alone, strict=True):
            assert one["video_id"] == result.video_id
            assert one["score"] == pytest.approx(result.score)
            assert (one["heads"], one["channels"]) == (result.heads, result.channels)
            shares = {}  # of several views of one video
            for seed in result.because:
                shares[seed.video_id] = shares.get(seed.video_id, 0) + seed.share
            assert {seed["video_id"]: seed["share"] for seed in one["because"]} == pytest.approx(shares)
            assert len(one["because"]) == len(shares)
            place = deep[other].index(result.video_id) + 1 if result.video_id in deep[other] else None
            assert one["elsewhere"] == {other: place}
            beyond += place is not None and place > 6
        assert [one["place"] for one in said["lists"][name]] == [*range(1, 7)]
    assert beyond, "places beyond what is shown are told too"


def test_authors_and_ages_are_the_stores(answers, watcher):
    store = answers._store
    found = answers.search(demo_request.DemoRequest(watcher, answers.queries[0], 5))["lists"]["pr2"]
    for one in found:
        (row,) = [row for row, raw in enumerate(store.videos.raw_id) if raw == one["video_id"]]
        assert one["author"] == int(store.videos.author[row])
        assert one["age_days"] == pytest.approx((store.cuts.end_ms - store.videos.upload_ms[row]) / 864e5, abs=0.06)


def test_moves_are_counted(answers, watcher):
    said = answers.search(demo_request.DemoRequest(watcher, answers.queries[0], 6))
    for name, other in (("base", "pr2"), ("pr2", "base")):
        places = [one["elsewhere"][other] for one in said["lists"][name]]
        moves = said["moves"][name]
        assert moves["absent"] == sum(place is None for place in places)
        assert moves["shown"] == sum(place is not None and place <= 6 for place in places)
        assert sum(moves.values()) == 6


def test_the_page_shows_what_the_api_gives(site, watcher, query):
    said = json.loads(site.search(user=watcher, query=query, k=6).text)
    page = _page(site, user=watcher, query=query, k=6)
    for name, results in said["lists"].items():
        assert _ids(page, name) == [one["video_id"] for one in results]
        for one in results:
            assert f"video {one['video_id']}" in page
            assert f"{one['heads']['click'] * 100:.1f}" in page
            for channel, score in one["channels"].items():
                assert f"{channel} {score:.2f}" in page
    for head in ("click", "long_play", "like"):
        assert head.replace("_", " ") in page
    assert "Because you watched" in page
    assert f"Person {watcher}" in page
    for one in said["person"]["past"]:
        assert one["caption"] in page
    for one in said["lists"]["pr2"]:
        place = one["elsewhere"]["base"]
        if place not in (None, one["place"]):
            assert f"base {place} → {one['place']}" in page
    linked = {int(found) for found in re.findall(r'href="#base-(\d+)"', page)}
    assert linked == set(_ids(page, "base")) & set(_ids(page, "pr2"))


def test_the_url_is_the_state(site, answers, watcher):
    page = _page(site, user=watcher, query=answers.queries[1], k=7)
    assert f'name="user" list="people" value="{watcher}"' in page
    assert f'value="{answers.queries[1]}" maxlength' in page
    assert "<option selected>7</option>" in page
    took = re.compile(r"\d+ ms for both")
    again = _page(site, user=watcher, query=answers.queries[1], k=7)
    assert took.sub("", again) == took.sub("", page)


def test_the_first_page_suggests_people_and_queries(site, answers):
    page = _page(site)
    assert "<li id=" not in page
    for one in answers.people:
        assert f"{one.much} past events: {one.events}" in page
        assert f'<option value="{one.user}">' in page
    for query in answers.queries:
        assert f'<option value="{query}">' in page


def test_a_person_alone_shows_their_past(site, answers, watcher):
    page = _page(site, user=watcher)
    assert "<li id=" not in page
    assert answers.person(watcher)["past"][0]["caption"] in page
    assert f"Person {NOBODY} is not in the log." in _page(site, user=NOBODY)


def test_what_is_unknown_is_said(site, answers, watcher):
    known = answers.queries[0]
    page = _page(site, user=NOBODY, query=f"{known} zzqqxx")
    assert f"Person {NOBODY} is not in the log" in page
    assert "Words that are not in the log: zzqqxx." in page
    assert len(_ids(page, "pr2")) == 10
    assert f"Understood</span> <bdi>{' · '.join(known.split())}</bdi>" in page
    page = _page(site, user=watcher, query="zzqqxx")
    assert "no word is known" in page
    assert "Understood" not in page
    assert _ids(page, "pr2")
    page = _page(site, user="", query=known)
    assert "Nobody in particular" in page
    assert "The query has no word, only signs: base goes by" in _page(site, user=watcher, query="!?")
    marked = _page(site, user=watcher, query=known.upper().replace(" ", "-"))
    assert f"<mark>{known.split()[0]}</mark>" in marked
    page = _page(site, user=watcher, query=" ")
    assert "base goes by what is popular, pr2 by the person&#39;s preference." in page
    assert "pr2 by what pdr, which has a vector for everybody, offers anybody" in _page(site, query="")
    tokens = answers._both.system.config.data.query_tokens
    assert f"Only the first {tokens} words are read" in _page(site, user=watcher, query=f"{known} " * (tokens + 1))
    said = json.loads(site.search(user=NOBODY, query=f"{known} zzqqxx").text)
    assert (said["known_user"], said["unknown_words"], len(said["notes"])) == (False, ["zzqqxx"], 2)


def test_who_has_too_short_a_past_is_told_so(answers, opened):
    store, least = answers._store, answers._both.system.config.search.least_events
    events_U = [answers.person(int(raw))["events"] for raw in store.users.raw_id[1:]]
    short = [int(raw) for raw, n in zip(store.users.raw_id[1:], events_U, strict=True) if n < least]
    long = [int(raw) for raw, n in zip(store.users.raw_id[1:], events_U, strict=True) if n >= least]
    for user, told in ((short[0], True), (long[0], False)):
        notes = answers.search(demo_request.DemoRequest(user, answers.queries[0], 3))["notes"]
        assert any("past events, fewer than" in note for note in notes) == told


def test_foreign_text_stays_text(answers, watcher, opened, stand_in):
    """Also in captions, which a log may bring, and in every place of the page."""
    evil = "<img/src=x/onerror=alert(1)> \"'><script>alert(2)</script>"
    said = copy.deepcopy(answers.search(demo_request.DemoRequest(watcher, answers.queries[0], 3)))
    for one in [*said["lists"]["base"], *said["lists"]["pr2"]]:
        one["caption"] = evil
        one["because"] = [{"video_id": 1, "caption": evil, "share": 1.0}]
    for one in said["person"]["past"]:
        one["caption"] = evil
    said |= {"query": evil, "notes": [evil]}
    said["person"]["searches"] = [evil]
    with opened(stand_in(said)) as site:
        for page in (_page(site, user=12, query=evil), site.ask("/?" + urlencode({"user": evil})).text):
            assert "<script" not in page
            assert "<img" not in page
            assert "&lt;script&gt;" in page
            assert not re.search(r'="[^"]*[<>]', page)


def test_headers_let_nothing_else_in(site):
    for path, method in (("/", "GET"), ("/api/search", "POST"), ("/nothing", "GET"), ("/static/style.css", "GET")):
        reply = site.ask(path, method)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers
    page = site.ask("/").text
    assert not re.search(r"<script|<style|style=|javascript:|\son\w+=|https?://", page)


COLOURS = ("page", "card", "text", "soft", "accent", "on-accent")
PAIRS = [
    *((text, back) for text in ("text", "soft", "accent") for back in ("page", "card")),
    *((f"{name}", f"{name}-back") for name in ("up", "down", "only")),
    *(("text", back) for back in ("mark", "note", "error", "track")),
    ("up", "page"),
    ("on-accent", "accent"),
]


def _luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme):
    """WCAG's contrast of at least 4.5."""
    css = (web.HERE / "static" / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark")
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if theme == "light" else dark))
    for text, back in PAIRS:
        high, low = sorted((_luminance(colours[text]), _luminance(colours[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)
