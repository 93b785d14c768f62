"""The answers that the taste fit learns from: all of the training days, nothing else, and without the query's share."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.sessions import impressions_of, part_of, training_parts, training_sessions
from pr2_jax.search.system import System
from pr2_jax.stages import taste_answers
from pr2_jax.stages.taste_answers import answers

SCALE = np.array([3.0, 0.5])


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System(finished, micro_config)


@pytest.fixture(scope="module")
def appeal(system) -> np.ndarray:
    return np.random.default_rng(4).normal(size=system.store.counts.videos)


@pytest.fixture(scope="module")
def everything(system, appeal):
    return answers(system, SCALE, appeal, None)


def _triples(found) -> list[tuple]:
    return sorted(zip(found.user_E.tolist(), found.video_E.tolist(), found.yes_E.tolist(), strict=True))


def _expected(system, kept) -> list[tuple]:
    """One by one, from the tables."""
    store, cut, out = system.store, system.store.cuts.validation_ms, []
    e = store.events
    for row in range(store.counts.events):
        if e.channel[row] == 0 and e.time_ms[row] < cut and kept(int(e.time_ms[row])):
            out.append((int(e.user[row]), int(e.video[row]), float(e.click[row])))
    s = store.sessions
    for session in training_sessions(store):
        for row in range(s.first_impression[session], s.first_impression[session + 1]):
            if kept(int(s.time_ms[session])):
                clicked = float(store.impressions.clicks[row] > 0)
                out.append((int(s.user[session]), int(store.impressions.video[row]), clicked))
    return sorted(out)


def test_every_view_and_result_of_the_training_days(system, everything):
    assert _triples(everything) == _expected(system, lambda time_ms: True)
    assert 0 < everything.yes_E.mean() < 1


def test_a_part_is_left_out_whole(system, appeal, everything):
    for part in training_parts(system.store):
        kept = lambda time_ms, part=part: part_of(system.store, np.array([time_ms]))[0] != part  # noqa: E731
        found = answers(system, SCALE, appeal, int(part))
        assert _triples(found) == _expected(system, kept)
        assert len(found.user_E) < len(everything.user_E)


def test_nothing_after_the_training_days_counts(system, appeal, everything):
    past = system.over(system.store.truncated(system.store.cuts.validation_ms))
    for one, other in zip(answers(past, SCALE, appeal, None), everything, strict=True):
        assert one.tobytes() == other.tobytes()


def test_offsets_are_what_the_query_explains(system, appeal, everything, monkeypatch):
    """Log odds of a click in each part of the cosines, less the mean appeal of what is shown; none in the feed."""
    store = system.store
    rows, _ = impressions_of(store, training_sessions(store))
    video_E, yes_E = store.impressions.video[rows], store.impressions.clicks[rows] > 0
    monkeypatch.setattr(taste_answers, "_cosines", lambda system, query_E, video_E, time_ms_E: video_E * 1.0)
    found = answers(system, SCALE, appeal, None)
    feed = len(found.user_E) - len(rows)
    assert not found.offset_E[:feed].any()
    edges = np.quantile(video_E, np.arange(1, taste_answers.COSINE_BINS) / taste_answers.COSINE_BINS)
    for place in range(0, len(rows), 37):
        same = np.digitize(video_E, edges) == np.digitize(video_E[place], edges)
        odds = (yes_E[same].sum() + 1) / ((~yes_E[same]).sum() + 1)
        assert found.offset_E[feed + place] == pytest.approx(np.log(odds) - appeal[video_E].mean())


def test_cosines_come_from_towers_that_have_not_learnt_from_the_day(system):
    store = system.store
    sessions = training_sessions(store)
    rows, owner = impressions_of(store, sessions)
    session_E = sessions[owner]
    columns = (store.sessions.query[session_E], store.impressions.video[rows], store.sessions.time_ms[session_E])
    found = taste_answers._cosines(system, *columns)
    for fold in (0, 1):
        place = system.workdir / "content" / f"fold_{fold}"
        queries, videos = (np.load(place / f"{side}_vectors.npy") for side in ("query", "video"))
        mine = part_of(store, columns[2]) % 2 == fold
        assert mine.any()
        expected = (queries[columns[0][mine]].astype(np.float64) * videos[columns[1][mine]]).sum(1)
        np.testing.assert_allclose(found[mine], expected, atol=1e-6)
