"""What the ranker trains on: features of each slate's own day, in a file of which memory holds a block."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pr2_jax.data.batches.sessions import FOLDS, part_of, training_parts, training_sessions
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.schema import DAY_MS
from pr2_jax.encoders import preference_regression
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.search.system import System
from pr2_jax.stages import slate_features
from pr2_jax.stages.slate_features import FeatureFile, SlateFeatures, fit_scaler, open_features, write_features
from pr2_jax.workdir import fold_directory, part_directory


@pytest.fixture
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture
def kinds(system) -> list[Slates]:
    """Search slates and feed slates of the training days."""
    store = system.store
    feed = feed_slates(system.log.reader, 0, store.cuts.validation_ms, 4)
    return [search_slates(store, training_sessions(store), 4), feed]


@pytest.fixture
def signed(system, monkeypatch) -> System:
    """A system whose spaces and snapshots sign what they make."""

    def features(held_out, video_NxS, snapshot_ms):
        out = np.zeros((*video_NxS.shape, len(FEATURES)))
        out[..., 0], out[..., 1], out[..., 2] = held_out, snapshot_ms - system.store.cuts.start_ms, video_NxS
        return out

    monkeypatch.setattr(System, "encode", lambda self, requests, held_out: held_out)
    monkeypatch.setattr(System, "features", property(lambda self: features))
    monkeypatch.setattr(System, "similarity_as_of", lambda self, before_ms: before_ms)
    return system


def test_features_are_of_the_slates_own_day_and_fold(signed, kinds, tmp_path):
    store = signed.store
    write_features(signed, kinds, tmp_path / "features")
    for slates, rows in zip(kinds, open_features(signed, kinds, tmp_path / "features"), strict=True):
        assert len(slates)
        features = rows[np.arange(len(slates))]
        assert features.dtype == np.float32
        part_N = part_of(store, slates.time_ms_N)
        assert set(part_N) == set(training_parts(store))
        assert (features[..., 0] == part_N[:, None]).all()
        age_N = slates.time_ms_N - store.cuts.start_ms - features[:, 0, 1]
        assert (age_N >= 0).all()
        assert (age_N < DAY_MS).all()
        assert np.array_equal(features[..., 2], slates.video_NxS)


def test_a_killed_run_finds_its_blocks(signed, kinds, tmp_path, monkeypatch):
    """Also where the last of them is half-written."""
    monkeypatch.setattr(slate_features, "FEATURE_BLOCK", 16)
    write_features(signed, kinds, tmp_path / "whole")
    want, path, append = (tmp_path / "whole").read_bytes(), tmp_path / "killed", FeatureFile.append
    starts = []

    def watched(self, features, at):
        starts.append(at)
        if len(starts) == 9:
            raise InterruptedError
        append(self, features, at)

    monkeypatch.setattr(FeatureFile, "append", watched)
    with pytest.raises(InterruptedError):
        write_features(signed, kinds, path)
    killed = list(starts)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    write_features(signed, kinds, path)
    assert path.read_bytes() == want
    assert starts[9] == killed[7]
    write_features(signed, kinds, path)
    assert starts[9:] == sorted(set(starts[9:]))
    assert path.read_bytes() == want


def test_memory_holds_a_block(signed, kinds, tmp_path, monkeypatch):
    """Four times as many slates: the file grows by megabytes, memory by what says where each slate lies."""
    monkeypatch.setattr(slate_features, "FEATURE_BLOCK", 64)
    peaks, sizes = [], []
    for times in (1, 1, 4):  # the first reads what is read once
        many = [Slates(*(np.repeat(column, 8 * times, 0) for column in vars(slates).values())) for slates in kinds]
        path = tmp_path / f"features_{len(peaks)}"
        tracemalloc.start()
        write_features(signed, many, path)
        search, _ = open_features(signed, many, path)
        for start in range(0, len(many[0]), 64):
            search[np.arange(start, min(start + 64, len(many[0])))]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(path.stat().st_size)
    assert sizes[2] == 4 * sizes[1]
    assert sizes[2] - sizes[1] > 4_000_000
    slates = (sizes[2] - sizes[1]) // (4 * len(FEATURES) * 4)
    assert peaks[2] - peaks[1] < 200 * slates < (sizes[2] - sizes[1]) / 2


def test_scaled_rows_are_rows_of_the_scaled_whole(signed, kinds, rng, tmp_path):
    raw = np.exp(3 * rng.normal(size=(len(kinds[0]), 4, len(FEATURES)))).astype(np.float32)
    place_N = rng.permutation(len(raw))
    file = FeatureFile(tmp_path / "features", 4)
    file.append(raw[np.argsort(place_N)], 0)
    rows = SlateFeatures(file, place_N)
    assert np.array_equal(rows[np.arange(len(raw))], raw)
    real = kinds[0].video_NxS > 0
    scaler, want = fit_scaler(rows, kinds[0]), Scaler.fit(raw[real])
    for name in vars(want):
        assert getattr(scaler, name).tobytes() == getattr(want, name).tobytes()
    use, some = np.array([1, 4, 7]), rng.integers(0, len(raw), 20)
    assert rows.scaled(scaler, use)[some].tobytes() == want(raw)[some][..., use].tobytes()
    assert rows.scaled(scaler, use)[some[:0]].shape == (0, 4, 3)


def test_the_scaler_of_many_results_is_of_evenly_spread_ones(kinds, rng, tmp_path, monkeypatch):
    """A quarter of the slates gives about the same scaler, and reads no more."""
    raw = np.exp(rng.normal(size=(len(kinds[0]), 4, len(FEATURES)))).astype(np.float32)
    file = FeatureFile(tmp_path / "features", 4)
    file.append(raw, 0)
    rows, read, fit = SlateFeatures(file, np.arange(len(raw))), [], Scaler.fit
    whole = fit_scaler(rows, kinds[0])
    total = np.count_nonzero(kinds[0].video_NxS)
    monkeypatch.setattr(slate_features, "SCALER_RESULTS", total // 4)
    monkeypatch.setattr(Scaler, "fit", lambda features: read.append(len(features)) or fit(features))
    sampled = fit_scaler(rows, kinds[0])
    assert 0.2 < read[0] / total < 0.3
    np.testing.assert_allclose(sampled.unit_F, whole.unit_F, rtol=0.5)


def test_a_finished_stage_keeps_no_features(finished):
    assert {path.name for path in (finished / "qin").iterdir()} == {
        "base", "base.json", "manifest.json", "pr2.json", "qin", "scaler.npz"
    }  # fmt: skip


def test_held_out_features_are_other_features(system):
    """Of the learnt columns, and of those alone."""
    store = system.store
    slates = search_slates(store, training_sessions(store), 4)
    similarity = system.similarity_as_of(store.cuts.validation_ms)
    rows = np.arange(len(slates) - 60, len(slates))  # the latest, whose people have a past
    whole, *held_out = (
        slate_features.slate_features(system, slates, rows, similarity, part)
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
