"""What is trained must not change by a bit when the validation day and the test day are taken out of the log."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from jax import tree

from pr2_jax.data.sessions import FOLDS
from pr2_jax.data.store import LogStore
from pr2_jax.retrieval.blocks import load_model
from pr2_jax.search.system import System
from pr2_jax.stages import content, pdr, qin, taste
from pr2_jax.workdir import fold_directory

TRAIN = {"content": content.train, "taste": taste.train, "pdr": pdr.train, "qin": qin.train}
BEFORE = ("store", "content", "taste", "pdr", "index")
"""Stages that training may read, in order; what `index` holds of the validation day are its merge weights."""


def _parameters(system: System, stage: str) -> list:
    """Of every trained model that a stage leaves."""
    if stage == "taste":
        places = [system.workdir / "taste", *(fold_directory(system.workdir / "taste", f) for f in range(FOLDS))]
        return [load_model(system.taste._task, place) for place in places]
    if stage == "qin":
        models = [system.ranker(name, system.workdir / "qin") for name in ("qin", "base")]
    elif stage == "content":
        models = [system.space, *system.held_out_spaces]
    else:
        models = [system.pdr]
    return [(model._params, model._tables) for model in models]


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
        patch.setattr(qin, "fit_scores", lambda *arguments: None)  # which is for the validation day
        (tmp_path / stage).mkdir()
        TRAIN[stage](tmp_path, micro_config, tmp_path / stage)
    shutil.copy(finished / stage / "manifest.json", tmp_path / stage)
    ours, theirs = (tree.leaves(_parameters(System(place, micro_config), stage)) for place in (tmp_path, finished))
    assert ours
    for one, other in zip(ours, theirs, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
