"""Slices of a day of the finished log, against loops over its rows; what evaluation writes of them."""

from __future__ import annotations

import collections
import dataclasses
import json

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.data.history.probe import Searches
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.evaluation import slices
from pr2_jax.metrics import per_session

NAMES = ("query", "history", "person", "popularity", "age", "found")


@pytest.fixture(scope="module")
def store(finished) -> LogStore:
    """With every third upload unknown."""
    whole = LogStore.open(finished / "store")
    upload = np.array(whole.videos.upload_ms)
    upload[::3] = 0
    return dataclasses.replace(whole, videos=dataclasses.replace(whole.videos, upload_ms=upload))


def _judged(store: LogStore, day_ms: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sessions of the day with a click, and what was clicked."""
    s, i = store.sessions, store.impressions
    rows, clicked = [], []
    for row in range(store.counts.sessions):
        shown = slice(s.first_impression[row], s.first_impression[row + 1])
        videos = np.unique(i.video[shown][i.clicks[shown] > 0])
        if len(videos) and day_ms <= s.time_ms[row] < day_ms + DAY_MS:
            rows.append(row)
            clicked.append(videos)
    return np.array(rows), clicked


@pytest.fixture(scope="module", params=[2, 1, 0], ids=["second", "validation", "test"])
def day(request, store) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """A day some days before the last: on the log's second there are still people without a past."""
    day_ms = store.cuts.test_ms - request.param * DAY_MS
    return (day_ms, *_judged(store, day_ms))


def _numbers(store: LogStore, row: int, videos: np.ndarray, day_ms: int) -> dict[str, int]:
    """The number of one session in each slicing, row by row of the log."""
    e, s, i = store.events, store.sessions, store.impressions
    user, time_ms = s.user[row], s.time_ms[row]
    past = [other for other in range(store.counts.sessions) if s.time_ms[other] < day_ms]
    mine = [event for event in range(store.counts.events) if e.user[event] == user and e.time_ms[event] < time_ms]
    cut_ms = min(day_ms, store.cuts.validation_ms)
    clicks, days, own = [], [], []
    for video in videos:
        own.append(sum(bool(e.video[event] == video and e.click[event]) for event in mine))
        seen = any(e.video[event] == video and e.time_ms[event] < cut_ms for event in range(store.counts.events))
        for other in (other for other in past if s.time_ms[other] < cut_ms):
            seen |= video in i.video[s.first_impression[other] : s.first_impression[other + 1]]
        here = (e.video == video) & e.click & (e.known_ms < day_ms)
        clicks.append(int(here.sum()) if seen else -1)
        if store.videos.upload_ms[video]:
            days.append(max(0, int(time_ms - store.videos.upload_ms[video])) // DAY_MS)
    return {
        "query": sum(s.query[other] == s.query[row] for other in past),
        "history": len(mine),
        "person": sum(e.time_ms[event] < day_ms for event in mine) + sum(s.user[other] == user for other in past),
        "popularity": min(clicks),
        "age": min(days, default=-1),
        "found": min(own),
    }


def test_numbers_by_brute_force(store, day):
    day_ms, rows, clicked = day
    cut = slices.slicings(store, Searches.of(store, rows), clicked, day_ms)
    assert tuple(slicing.name for slicing in cut) == NAMES
    for place in range(0, len(rows), 2):
        want = _numbers(store, rows[place], clicked[place], day_ms)
        assert {slicing.name: int(slicing.number_N[place]) for slicing in cut} == want


def test_bounds_by_brute_force(store, day):
    """Heads and tails of what was counted before the day, and parts of equal size."""
    day_ms, rows, clicked = day
    cut = {one.name: one for one in slices.slicings(store, Searches.of(store, rows), clicked, day_ms)}
    e, s, i = store.events, store.sessions, store.impressions
    past = [row for row in range(store.counts.sessions) if s.time_ms[row] < day_ms]
    counted = {
        "query": collections.Counter(s.query[past].tolist()),
        "popularity": collections.Counter(e.video[(e.known_ms < day_ms) & e.click].tolist()),
    }
    for name, counts in counted.items():
        _, _, torso, head = cut[name].from_K
        whole, most = sum(counts.values()), max(counts.values())
        for part, low in ((1, head), (2, torso)):
            within = sum(count for count in counts.values() if count >= low)
            assert 3 * within <= part * whole or low == most
            # The next lower count would be too much.
            more = max((count for count in counts.values() if count < low), default=0)
            assert 3 * sum(count for count in counts.values() if count >= more) > part * whole
    lengths = [sum(e.time_ms[e.user == s.user[row]] < day_ms) for row in past]
    assert cut["history"].from_K == (0, 1, _end([length for length in lengths if length], 1, 2) + 1)
    ages = []
    for row in past:
        for shown in range(s.first_impression[row], s.first_impression[row + 1]):
            upload_ms = store.videos.upload_ms[i.video[shown]]
            if i.clicks[shown] and upload_ms:
                ages.append(max(0, int(s.time_ms[row] - upload_ms)) // DAY_MS)
    assert cut["age"].from_K == (-1, 0, _end(ages, 1, 3) + 1, _end(ages, 2, 3) + 1)


def _end(numbers: list[int], part: int, parts: int) -> int:
    """The last number of the first of several equal parts."""
    return sorted(numbers)[-(-len(numbers) * part // parts) - 1]


def test_every_session_is_in_one_slice_and_every_slice_is_met(store, day):
    day_ms, rows, clicked = day
    for slicing in slices.slicings(store, Searches.of(store, rows), clicked, day_ms):
        assert len(slicing.names_K) == len(slicing.from_K)
        assert list(slicing.from_K) == sorted(slicing.from_K)
        assert slicing.slice_N.shape == rows.shape
        assert ((slicing.slice_N >= 0) & (slicing.slice_N < len(slicing.names_K))).all()
        for k, number in zip(slicing.slice_N, slicing.number_N, strict=True):
            low, high = slicing.bounds(k)
            assert low <= number <= (number if high is None else high)
        if day_ms < store.cuts.validation_ms and slicing.name in ("history", "person", "age"):
            assert set(slicing.slice_N.tolist()) == set(range(len(slicing.names_K)))


def test_nothing_looks_ahead(store, day):
    """Each session alone, on a log that ends before it."""
    day_ms, rows, clicked = day
    searches = Searches.of(store, rows)
    whole = slices.slicings(store, searches, clicked, day_ms)
    for place in range(len(rows)):
        before = store.truncated(int(searches.time_ms_N[place]))
        alone = slices.slicings(before, searches.only(place), clicked[place : place + 1], day_ms)
        for one, other in zip(whole, alone, strict=True):
            assert one.from_K == other.from_K
            assert int(one.number_N[place]) == int(other.number_N[0]), one.name


def test_a_log_without_a_past(store):
    """On the first day nothing has been counted: everybody is new, everything unseen, and bounds are still in order."""
    day_ms = store.cuts.test_ms - -(-(store.cuts.test_ms - store.cuts.start_ms) // DAY_MS) * DAY_MS
    rows, clicked = _judged(store, day_ms)
    cut = {one.name: one for one in slices.slicings(store, Searches.of(store, rows), clicked, day_ms)}
    assert len(rows)
    assert all(list(slicing.from_K) == sorted(slicing.from_K) for slicing in cut.values())
    assert not cut["query"].slice_N.any()
    assert not cut["person"].slice_N.any()
    assert not cut["popularity"].slice_N.any()


@pytest.fixture(scope="module")
def reported(finished) -> dict:
    return json.loads((finished / "eval" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def metrics(finished) -> dict[str, per_session.PerSession]:
    return per_session.load(finished / "eval" / "sessions.npz")


@pytest.mark.parametrize("name", NAMES)
def test_slices_add_up_to_the_table(name, reported, metrics):
    """Sessions, means and differences of a slicing, weighted by what each slice counts, are those of the whole day."""
    parts = reported["slices"][name]["slices"]
    slates = metrics["slate.qin"]
    clicked_N = np.isfinite(slates["ndcg@10"])
    assert sum(part["sessions"] for part in parts) == clicked_N.sum()
    assert max(part["users"] for part in parts) <= len(np.unique(slates.user_N[clicked_N]))
    for measure in slices.MEASURES:
        found = [part["measures"][measure.name] for part in parts]
        counts = [one["difference"]["count"] for one in found]
        assert sum(counts) == reported["rows"][f"{measure.ranking}.run"][measure.metric]["count"]
        for ranking in (measure.ranking, measure.against):
            total = sum(one[ranking] * count for one, count in zip(found, counts, strict=True) if count)
            assert total / sum(counts) == pytest.approx(reported["rows"][f"{ranking}.run"][measure.metric]["mean"])
        for one, count in zip(found, counts, strict=True):
            if count:
                assert one["difference"]["mean"] == pytest.approx(one[measure.ranking] - one[measure.against])
            assert (one["difference"]["low"] is not None) == (one["users"] >= 10)


def test_what_was_found_before_is_judged_in_slates_alone(reported):
    """As long as it is withheld from retrieval."""
    new, before = reported["slices"]["found"]["slices"]
    assert before["sessions"] == reported["found_before"]["nothing_new"] > 0
    counts = {name: measure["difference"]["count"] for name, measure in before["measures"].items()}
    assert counts == {name: before["sessions"] if name == "slate ndcg@10" else 0 for name in counts} | {
        "slate auc": counts["slate auc"]
    }
    assert new["measures"]["pipeline ndcg@10"]["difference"]["count"] == new["sessions"]


def test_files_name_every_slice_and_its_bounds(finished, reported):
    texts = [(finished / "eval" / name).read_text() for name in (slices.TEXT, slices.MARKDOWN)]
    assert max(len(line) for line in texts[0].splitlines()) <= 120
    for name, slicing in reported["slices"].items():
        for part in slicing["slices"]:
            label = f"{name} {part['name']}"
            assert [text.count(f"{label} ") for text in texts] == [len(slices.MEASURES)] * 2, label
            if part["from"] >= 0 and part["to"] is None:
                assert all(f"{label} ({part['from']:,} or more)" in text for text in texts)


def test_evaluate_says_where_the_slices_are(finished_alone, capsys):
    assert entry.main(["evaluate", "--workdir", str(finished_alone)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if str(finished_alone / "eval" / slices.TEXT) in line]
