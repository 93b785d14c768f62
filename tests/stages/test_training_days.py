"""What is trained or fitted must not change by a bit when the days that it may not see are taken out of the log.

Training sees no validation and no test day, what is fitted on the validation day no test day, and a fold of the content
towers or of the preference space none of its own days.
"""

from __future__ import annotations

import dataclasses
import shutil
import types

import numpy as np
import pytest
from jax import tree

from pr2_jax.data.batches.sessions import FOLDS, fold_of, impressions_of, training_sessions
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.models.model_functions import load_model
from pr2_jax.search.system import System
from pr2_jax.stages import build_index, fit_scores, train_content, train_pdr, train_preference, train_qin
from pr2_jax.workdir import fold_directory

TRAIN = {
    "content": train_content.train,
    "preference": train_preference.train,
    "pdr": train_pdr.train,
    "qin": train_qin.train,
}
BEFORE = ("store", "content", "preference", "pdr", "index")
"""Stages that training may read, in order; what `index` holds of the validation day are its merge weights."""


def _parameters(system: System, stage: str) -> list:
    """Of every trained model that a stage leaves."""
    place = system.workdir / stage
    parts = {"qin": [("qin", place / "qin"), ("base", place / "base")], "pdr": [("pdr", place)]}
    folds = [(stage, directory) for directory in (place, *(fold_directory(place, fold) for fold in range(FOLDS)))]
    return [load_model(system.models.task(model), directory) for model, directory in parts.get(stage, folds)]


@pytest.mark.parametrize("stage", TRAIN)
def test_training_reads_training_days_only(finished, micro_config, monkeypatch, tmp_path, stage):
    for earlier in BEFORE[: BEFORE.index(stage)] if stage in BEFORE else BEFORE:
        (tmp_path / earlier).symlink_to(finished / earlier)
    whole = LogStore.open(finished / "store")
    past = whole.truncated(whole.cuts.validation_ms)
    assert past.counts.events < whole.counts.events
    assert past.counts.sessions < whole.counts.sessions
    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "open", lambda directory: past)
        patch.setattr(train_qin, "fit_scores", lambda *arguments: None)  # which is for the validation day
        (tmp_path / stage).mkdir()
        TRAIN[stage](tmp_path, micro_config, tmp_path / stage)
    shutil.copy(finished / stage / "manifest.json", tmp_path / stage)
    ours, theirs = (tree.leaves(_parameters(System.open(place, micro_config), stage)) for place in (tmp_path, finished))
    assert ours
    for one, other in zip(ours, theirs, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_what_is_fitted_sees_no_test_day(finished, micro_config, monkeypatch, tmp_path):
    """Epsilon, merge weights, calibration and fusion, and the snapshots that they are fitted with."""
    for earlier in ("store", "content", "preference", "pdr"):
        (tmp_path / earlier).symlink_to(finished / earlier)
    whole = LogStore.open(finished / "store")
    past = whole.truncated(whole.cuts.test_ms)
    assert past.counts.sessions < whole.counts.sessions
    (tmp_path / "index").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "open", lambda directory: past)
        build_index.build(tmp_path, micro_config, tmp_path / "index")
        shutil.copy(finished / "index" / "manifest.json", tmp_path / "index")
        system = System.open(tmp_path, micro_config)
        fit_scores.fit_scores(system, micro_config, finished / "qin", tmp_path)
    snapshot = f"index/as_of_{whole.cuts.validation_ms}"
    names = [path.name for path in (finished / snapshot).iterdir()]
    assert names
    pairs = {f"{snapshot}/{name}": f"{snapshot}/{name}" for name in names} | {"index/fitted.json": "index/fitted.json"}
    for ours, theirs in (pairs | {"pr2.json": "qin/pr2.json", "base.json": "qin/base.json"}).items():
        assert (tmp_path / ours).read_bytes() == (finished / theirs).read_bytes(), ours


def _without_clicks_of(whole: LogStore, fold: int) -> LogStore:
    sessions = training_sessions(whole)
    shown, _ = impressions_of(whole, sessions[fold_of(whole, whole.sessions.time_ms[sessions]) == fold])
    clicks = np.array(whole.impressions.clicks)
    assert clicks[shown].any()
    clicks[shown] = 0
    return dataclasses.replace(whole, impressions=dataclasses.replace(whole.impressions, clicks=clicks))


@pytest.mark.parametrize(("fold", "trained"), [(0, {0: True, 1: False}), (1, {1: True})])
def test_a_fold_of_content_learns_nothing_from_its_days(finished, micro_config, monkeypatch, tmp_path, fold, trained):
    """And the other fold does, or this would show nothing. Towers that are there already are not trained again."""
    (tmp_path / "store").symlink_to(finished / "store")
    changed = _without_clicks_of(LogStore.open(finished / "store"), fold)
    out = tmp_path / "content"
    for name in ("query_vectors.npy", *(f"fold_{other}/query_vectors.npy" for other in {0, 1} - trained.keys())):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / "content" / name, out / name)
    monkeypatch.setattr(LogStore, "open", lambda directory: changed)
    train_content.train(tmp_path, micro_config, out)
    for number, same in trained.items():
        name = f"content/fold_{number}/video_vectors.npy"
        assert np.array_equal(*(np.load(place / name) for place in (tmp_path, finished))) == same, name


def test_a_fold_of_preference_predicts_nothing_of_its_days(finished, micro_config, monkeypatch, tmp_path):
    """What each of the three is trained on; the parameters that come of it are those at hand."""
    for earlier in ("store", "content"):
        (tmp_path / earlier).symlink_to(finished / earlier)
    predicted = {}

    def watched(task, batches, config, *, directory, **options):
        store, folds = batches._store, set()
        for step in range(batches.steps_per_epoch):
            chunk, rows = batches(step), batches.events(step)
            folds |= set(fold_of(store, store.events.time_ms[rows[chunk["weight_ExT"][: len(rows), 0] > 0]]))
        predicted[directory.name] = folds
        made = finished / "preference" / ("." if directory.name == "preference" else directory.name)
        params, tables = load_model(task, made)
        return types.SimpleNamespace(params=params, tables=tables)

    monkeypatch.setattr(train_preference, "fit", watched)
    monkeypatch.setattr(train_preference, "_fit_people", lambda *arguments: None)
    monkeypatch.setattr(train_preference, "_report", lambda *arguments: None)
    monkeypatch.setattr(train_preference, "PreferenceEncoder", lambda *arguments: None)
    (tmp_path / "preference").mkdir()
    train_preference.train(tmp_path, micro_config, tmp_path / "preference")
    assert predicted == {"preference": {0, 1}, "fold_0": {1}, "fold_1": {0}}
