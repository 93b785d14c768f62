"""What the ranker trains on: each slate's features come from its own day's snapshot and from the spaces without it."""

from __future__ import annotations

import numpy as np
import pytest

from pr2_jax.data.batches.sessions import FOLDS, part_of, training_parts, training_sessions
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.schema import DAY_MS
from pr2_jax.encoders import preference_regression
from pr2_jax.ranking.features import FEATURES
from pr2_jax.search.system import System
from pr2_jax.stages import train_qin
from pr2_jax.workdir import fold_directory, part_directory


@pytest.fixture
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


def test_features_are_of_the_slates_own_day_and_fold(system, monkeypatch):
    """With spaces and snapshots that sign what they make."""
    store = system.store

    def signed(held_out, video_NxS, snapshot_ms):
        out = np.zeros((*video_NxS.shape, len(FEATURES)))
        out[..., 0], out[..., 1], out[..., 2] = held_out, snapshot_ms - store.cuts.start_ms, video_NxS
        return out

    monkeypatch.setattr(System, "encode", lambda self, requests, held_out: held_out)
    monkeypatch.setattr(System, "features", property(lambda self: signed))
    monkeypatch.setattr(System, "similarity_as_of", lambda self, before_ms: before_ms)
    parts = [
        search_slates(store, training_sessions(store), 4),
        feed_slates(system.log.reader, 0, store.cuts.validation_ms, 7),
    ]
    for slates, features in zip(parts, train_qin.features_by_day(system, parts), strict=True):
        assert len(slates)
        part_N = part_of(store, slates.time_ms_N)
        assert set(part_N) == set(training_parts(store))
        assert (features[..., 0] == part_N[:, None]).all()
        age_N = slates.time_ms_N - store.cuts.start_ms - features[:, 0, 1]
        assert (age_N >= 0).all()
        assert (age_N < DAY_MS).all()
        assert np.array_equal(features[..., 2], slates.video_NxS)


def test_held_out_features_are_other_features(system):
    """Of the learnt columns, and of those alone."""
    store = system.store
    slates = search_slates(store, training_sessions(store), 4)
    similarity = system.similarity_as_of(store.cuts.validation_ms)
    rows = np.arange(len(slates) - 60, len(slates))  # the latest, whose people have a past
    whole, *held_out = (
        train_qin.slate_features(system, slates, rows, similarity, part)
        for part in (None, *training_parts(store).tolist())
    )
    learnt = {name for name in FEATURES if name.startswith(("preference_", "appeal_"))} | {"content_cosine"}
    for features in held_out:
        differs = {name for at, name in enumerate(FEATURES) if (features[..., at] != whole[..., at]).any()}
        assert differs == learnt


def test_held_out_features_read_their_own_part(system):
    requests = system.log.requests(np.arange(3), withhold=False)
    for part in map(int, training_parts(system.store)):
        encoders = system.encode(requests, part).encoders
        for stage, space in (("content", encoders.space), ("preference", encoders.preference)):
            vectors = np.load(fold_directory(system.workdir / stage, part % FOLDS) / "video_vectors.npy")
            assert np.array_equal(space.videos_VxD, vectors)
        fitted = np.load(part_directory(system.workdir / "preference", part) / preference_regression.FILE)
        assert np.array_equal(encoders.preference.fit.appeal(np.arange(len(fitted))), fitted[:, 0])
