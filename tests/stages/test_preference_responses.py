"""The answers that the preference fit learns from: all of the training days, nothing else, and never a part's own."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from pr2_jax.data.batches.sessions import FOLDS, fold_of, impressions_of, part_of, training_parts, training_sessions
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders import latent_factors
from pr2_jax.encoders.preference_regression import FILE
from pr2_jax.search.system import System
from pr2_jax.stages import train_preference
from pr2_jax.stages.preference_responses import responses

SCALE = np.array([3.0, 0.5])


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture(scope="module")
def appeal(system) -> np.ndarray:
    return np.random.default_rng(4).normal(size=system.store.counts.videos)


@pytest.fixture(scope="module")
def everything(system, appeal):
    return responses(system, SCALE, appeal, None)


def _triples(found) -> list[tuple]:
    return sorted(zip(found.user_E.tolist(), found.video_E.tolist(), found.yes_E.tolist(), strict=True))


def _expected(system, kept) -> list[tuple]:
    """One by one, from the tables."""
    store, cut, out = system.store, system.store.cuts.validation_ms, []
    e = store.events
    for row in range(store.counts.events):
        if e.surface[row] == 0 and e.known_ms[row] < cut and kept(int(e.time_ms[row])):
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
        found = responses(system, SCALE, appeal, int(part))
        assert _triples(found) == _expected(system, kept)
        assert len(found.user_E) < len(everything.user_E)


def test_nothing_after_the_training_days_counts(system, appeal, everything):
    past = system.over(system.store.truncated(system.store.cuts.validation_ms))
    for one, other in zip(responses(past, SCALE, appeal, None), everything, strict=True):
        assert one.tobytes() == other.tobytes()


def test_results_are_clicked_less_often_than_views_are_stayed_with(system, appeal, everything):
    """Their offset is the log odds of a click, less the mean appeal of what is shown; the feed has none."""
    store = system.store
    rows, _ = impressions_of(store, training_sessions(store))
    feed, clicks = len(everything.user_E) - len(rows), int((store.impressions.clicks[rows] > 0).sum())
    assert not everything.offset_E[:feed].any()
    expected = np.log((clicks + 1) / (len(rows) - clicks + 1)) - appeal[store.impressions.video[rows]].mean()
    np.testing.assert_allclose(everything.offset_E[feed:], expected)


def test_durations_as_known(system, everything):
    store, cut = system.store, system.store.cuts.validation_ms
    e = store.events
    viewed = np.flatnonzero((np.asarray(e.surface) == 0) & (np.asarray(e.time_ms) < cut))
    expected = (np.log1p(np.asarray(e.duration_ms)[viewed] / 1000) - SCALE[0]) / SCALE[1]
    assert (np.asarray(e.duration_ms)[viewed] > 0).all()
    np.testing.assert_allclose(everything.duration_E[: len(viewed)], expected)
    assert everything.duration_E[len(viewed) :].any()


def test_a_part_learns_nothing_from_its_days(finished, micro_config, monkeypatch, tmp_path):
    """Its clicks turned around, in the feed and in searches: its fit keeps every bit, the others do not."""
    part = int(training_parts(LogStore.open(finished / "store"))[0])
    whole = LogStore.open(finished / "store")
    sessions = training_sessions(whole)
    shown, _ = impressions_of(whole, sessions[part_of(whole, whole.sessions.time_ms[sessions]) == part])
    clicks, click = np.array(whole.impressions.clicks), np.array(whole.events.click)
    clicks[shown] = clicks[shown] == 0
    views = (np.asarray(whole.events.surface) == 0) & (part_of(whole, whole.events.time_ms) == part)
    views &= np.asarray(whole.events.time_ms) < whole.cuts.validation_ms
    click[views] = ~click[views]
    changed = dataclasses.replace(
        whole,
        impressions=dataclasses.replace(whole.impressions, clicks=clicks),
        events=dataclasses.replace(whole.events, click=click),
    )
    for earlier in ("store", "content"):
        (tmp_path / earlier).symlink_to(finished / earlier)
    place = shutil.copytree(
        finished / "preference", tmp_path / "preference"
    )  # the spaces stay, the fits are made again
    for fitted in place.rglob("fit_*.npy"):
        fitted.unlink()
    monkeypatch.setattr(LogStore, "open", lambda directory: changed)
    train_preference.train(tmp_path, micro_config, place)
    for name in (".", *(f"part_{other}" for other in training_parts(whole))):
        same = (place / name / FILE).read_bytes() == (finished / "preference" / name / FILE).read_bytes()
        assert same == (name == f"part_{part}"), name


@pytest.mark.parametrize("held_out", [None, *range(FOLDS)])
def test_a_space_needs_views(system, held_out):
    store, cut = system.store, system.store.cuts.validation_ms
    e = store.events
    assert train_preference._has_views(store, held_out)

    def only(keep) -> LogStore:
        """Without the feed views that are not kept."""
        surface = np.where(keep | (np.asarray(e.surface) != 0), e.surface, 1).astype(np.int8)
        return dataclasses.replace(store, events=dataclasses.replace(e, surface=surface))

    time_ms = np.asarray(e.time_ms)
    assert not train_preference._has_views(only(time_ms >= cut), held_out)
    one_fold = only((time_ms < cut) & (fold_of(store, time_ms) == 0))
    assert train_preference._has_views(one_fold, held_out) == (held_out != 0)


def test_a_part_starts_from_what_has_not_seen_its_fold(finished, micro_config, monkeypatch, tmp_path):
    for earlier in ("store", "content"):
        (tmp_path / earlier).symlink_to(finished / earlier)
    place = shutil.copytree(finished / "preference", tmp_path / "preference")
    for fitted in place.rglob("fit_*.npy"):
        fitted.unlink()
    real, known = latent_factors.fit, []
    monkeypatch.setattr(
        latent_factors, "fit", lambda config, found, videos, users: known.append(videos.known) or real(
            config, found, videos, users
        )
    )  # fmt: skip
    train_preference.train(tmp_path, micro_config, place)
    parts = training_parts(LogStore.open(finished / "store"))
    for part, (space, content, *_) in zip((None, *parts), known, strict=True):
        fold = "." if part is None else f"fold_{part % FOLDS}"
        for vectors, stage in ((space, "preference"), (content, "content")):
            assert np.array_equal(vectors, np.load(finished / stage / fold / "video_vectors.npy")), (part, stage)
