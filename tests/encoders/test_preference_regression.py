"""People's own regressions: a plain twin, strictly the past, the same alone and in company, and what they recover."""

from __future__ import annotations

import copy
import types

import numpy as np

from pr2_jax.config import PreferenceConfig
from pr2_jax.encoders import preference_regression
from pr2_jax.encoders.latent_factors import first_precision
from pr2_jax.encoders.preference_regression import PreferenceRegression


def _described(fit: PreferenceRegression, video: int, duration_ms: int) -> tuple[np.ndarray, float]:
    mean, deviation = fit._scale
    length = (np.log1p(duration_ms / 1000) - mean) / deviation if duration_ms > 0 else 0.0
    return np.array([1.0, *fit._vectors[video, 1:], length]), float(fit._vectors[video, 0])


def test_a_plain_twin(system, moments):
    fit, e, precision = system.preference.fit, system.store.events, system.preference.fit._precision
    assert (np.linalg.eigvalsh(precision) > 0).all()
    got = fit.people(*moments)
    videos = np.array([3, 9, 30])
    durations = np.array([0, 15_000, 90_000])
    logits = fit.logits(got, np.tile(videos, (len(moments[0]), 1)), np.tile(durations, (len(moments[0]), 1)))
    for row, (user, time_ms) in enumerate(zip(*moments, strict=True)):
        past = np.flatnonzero((np.asarray(e.user) == user) & (np.asarray(e.known_ms) < time_ms) & (user > 0))
        size = fit._vectors.shape[1] + 1
        gram, pull = precision, np.zeros(size)
        for event in past:
            z, appeal = _described(fit, int(e.video[event]), int(e.duration_ms[event]))
            p = 1 / (1 + np.exp(-appeal))
            gram, pull = (
                gram + np.tanh(appeal / 2) / (2 * appeal) * np.outer(z, z),
                pull + (float(e.click[event]) - p) * z,
            )
        mean = np.linalg.solve(gram, pull)
        np.testing.assert_allclose(got.mean_NxZ[row], mean, atol=1e-6)
        for place, (video, duration_ms) in enumerate(zip(videos, durations, strict=True)):
            z, _ = _described(fit, int(video), int(duration_ms))
            expected = [z @ mean, np.sqrt(z @ np.linalg.solve(gram, z))]
            np.testing.assert_allclose(logits[row, place], expected, atol=1e-6)
    assert not got.mean_NxZ[-2:].any()  # nobody in particular


def test_blocks_and_company_change_nothing(system, moments, monkeypatch):
    whole = system.preference.fit.people(*moments)
    monkeypatch.setattr(preference_regression, "EVENTS_AT_ONCE", 7)
    for field, parts in zip(whole, system.preference.fit.people(*moments), strict=True):
        np.testing.assert_array_equal(parts, field)
    for row in range(len(moments[0])):
        alone = system.preference.fit.people(moments[0][row : row + 1], moments[1][row : row + 1])
        assert all(np.array_equal(a[0], field[row]) for a, field in zip(alone, whole, strict=True))
    assert system.preference.fit.people(moments[0][:0], moments[1][:0]).mean_NxZ.shape == (0, whole.mean_NxZ.shape[1])


def test_nothing_at_or_after_the_moment_counts(system, moments):
    """A log that ends at the moment gives the same bits."""
    whole = system.preference.fit.people(*moments)
    for row in range(5):
        cut = system.over(system.store.truncated(int(moments[1][row])))
        alone = cut.preference.fit.people(moments[0][row : row + 1], moments[1][row : row + 1])
        assert np.array_equal(alone.mean_NxZ[0], whole.mean_NxZ[row])


def test_likes_are_told_apart_from_what_is_merely_shown(tmp_path):
    """A person is shown one kind nine times in ten, and stays for the other: the mean of events would see the first."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 3)).astype(np.float32)
    kind = np.where(np.arange(200) % 10 > 0, 2.0, -2.0)
    vectors[:, 0] = kind + 0.1 * rng.normal(size=200)
    whitened = preference_regression.whitened(vectors)[:]
    np.save(tmp_path / preference_regression.FILE, np.concatenate([np.zeros((200, 1)), whitened], 1).astype(np.float32))
    np.save(tmp_path / preference_regression.DURATIONS, np.array([0.0, 1.0]))
    np.save(tmp_path / preference_regression.PRECISION, first_precision(PreferenceConfig(), 3))
    told = np.full(199, 31, np.uint8)
    events = types.SimpleNamespace(
        video=np.arange(1, 200), click=kind[1:] < 0, duration_ms=np.zeros(199, np.int64), told=told
    )
    store = types.SimpleNamespace(events=events, outcome_index=types.SimpleNamespace(rows=np.arange(199)))
    fit = PreferenceRegression(PreferenceConfig(), tmp_path, types.SimpleNamespace(store=store))
    gram, pull = (x[0] for x in fit._sums(np.array([0]), np.array([199])))
    mean = np.linalg.solve(gram + fit._precision, pull)
    wanted, shown = (_described(fit, video, 0)[0] @ mean for video in (10, 11))
    assert wanted > 1 > -1 > shown
    told[100:] = 29  # of these the log does not say whether the person stayed: no "no"
    first, half = (fit._sums(np.array([0]), np.array([end])) for end in (199, 100))
    for got, want in zip(first, half, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_vectors_are_whitened():
    rng = np.random.default_rng(1)
    given = rng.normal(size=(5_000, 4)) @ rng.normal(size=(4, 4)) + 3
    out = preference_regression.whitened(given.astype(np.float32))[:]
    np.testing.assert_allclose(np.cov(out[1:].T), np.eye(4), atol=0.01)
    np.testing.assert_allclose(out[1:].mean(0), 0, atol=0.01)


def test_the_widest_axes_are_kept(rng):
    vectors = (rng.normal(size=(400, 5)) * [0.1, 3.0, 0.5, 2.0, 0.2]) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    every, two = preference_regression.whitened(vectors)[:], preference_regression.whitened(vectors, 2)[:]
    np.testing.assert_array_equal(two, every[:, -2:])
    assert preference_regression.whitened(vectors, 9).shape == (400, 5)
    assert preference_regression.whitened(vectors[:2], 2).shape == (2, 2)
    assert not preference_regression.whitened(np.zeros((9, 4)), 2)[:].any()
    # The two directions of the greatest spread, and no others.
    explained = np.linalg.lstsq(np.c_[two, np.ones(400)], vectors, rcond=None)[0]
    assert (vectors - np.c_[two, np.ones(400)] @ explained).std() < 0.4


def test_leanings_are_those_of_a_plain_twin(system, moments, monkeypatch):
    """What the vectors leave open of the past views of an author, and of each category of a video."""
    monkeypatch.setattr(preference_regression, "EVENTS_AT_ONCE", 40)
    fit, e, catalogue = system.preference.fit, system.store.events, system.store.videos
    people = fit.people(*moments)
    videos = np.tile(np.arange(0, 400, 9), (len(moments[0]), 1))
    got, groups_met = fit.leanings(people, videos), 0
    for row in range(len(moments[0])):
        past = system.store.outcome_index.rows[people.first_N[row] : people.end_N[row]]
        left, weight = np.zeros(len(past)), np.zeros(len(past))
        for at, event in enumerate(past):
            z, appeal = _described(fit, int(e.video[event]), int(e.duration_ms[event]))
            logit = appeal + z @ people.mean_NxZ[row]
            left[at], weight[at] = float(e.click[event]) - 1 / (1 + np.exp(-logit)), np.tanh(logit / 2) / (2 * logit)
        seen = np.asarray(e.video)[past]
        for place, video in enumerate(videos[row]):
            author = catalogue.author[video]
            same = (np.asarray(catalogue.author)[seen] == author) & (author > 0)
            expected = [left[same].sum() / (weight[same].sum() + preference_regression.AUTHOR_PRIOR), 0.0]
            for category in catalogue.category[video][catalogue.category[video] > 0]:
                of = (np.asarray(catalogue.category)[seen] == category).any(1)
                expected[1] += left[of].sum() / (weight[of].sum() + preference_regression.CATEGORY_PRIOR)
            np.testing.assert_allclose(got[row, place], expected, atol=1e-9)
            groups_met += same.any()
    assert groups_met > 20
    assert not got[-2:].any()  # nobody in particular


def test_axes_on_which_vectors_do_not_spread_are_zero():
    rng = np.random.default_rng(2)
    flat = rng.normal(size=(50, 2)) @ np.array([[1.0, 0, 2], [0, 0, 0]])
    out = preference_regression.whitened(flat)[:]
    assert np.isfinite(out).all()
    np.testing.assert_allclose(np.sort(out[1:].std(0, ddof=1)), [0, 0, 1], atol=1e-6)
    assert not preference_regression.whitened(np.ones((9, 3)))[:].any()
    assert preference_regression.whitened(rng.normal(size=(9, 1))).shape == (9, 1)
    assert not preference_regression.whitened(rng.normal(size=(2, 3)))[:].any()  # one video


def test_durations_of_the_training_days_alone(system):
    cut = system.store.cuts.validation_ms
    past = system.over(system.store.truncated(cut))
    np.testing.assert_array_equal(
        preference_regression.duration_scale(past.log.reader, cut),
        preference_regression.duration_scale(system.log.reader, cut),
    )


def test_only_the_latest_events_count(system, moments):
    fit = system.preference.fit
    short = copy.copy(fit)
    short._config = PreferenceConfig(history=3)
    people = short.people(*moments)
    assert (people.end_N - people.first_N <= 3).all()
    assert not np.array_equal(people.mean_NxZ, fit.people(*moments).mean_NxZ)
