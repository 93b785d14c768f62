"""`pr2` in two processes on one work directory: the same towers as one process makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pr2_jax import artifacts

STATED = 1e-5


@pytest.fixture
def directory(finished, tmp_path) -> Path:
    """A store and, as a killed run leaves them, two of the three towers: the second fold's is left to train."""
    place = tmp_path / "w"
    shutil.copytree(finished / "store", place / "store")
    shutil.copy(finished / "config.json", place)
    fold = shutil.ignore_patterns("fold_1", artifacts.MANIFEST)
    shutil.copytree(finished / "content", place / "content.partial", ignore=fold)
    manifest = json.loads((finished / "content" / artifacts.MANIFEST).read_text())
    claim = {name: manifest[name] for name in ("schema", "fingerprint")}
    artifacts.write_json(place / "content.partial" / artifacts.IN_PROGRESS, claim)
    return place


@pytest.mark.slow
def test_towers_of_two_processes_are_those_of_one(directory, finished, together, free_address):
    """And only process 0 says anything."""
    command = ["-m", "pr2_jax", "train", "content", "--workdir", str(directory), "--config.mesh.data=2"]
    command += ["--config.mesh.model=-1", "--coordinator", free_address, "--processes", "2"]
    (status, out, err), other = together(*([*command, "--process", str(index)] for index in range(2)))
    assert (status, out) == (0, ""), err
    assert other == (0, "", ""), other[2]
    assert err.splitlines()[0] == "content   running: not made yet"
    assert "videos and" in err
    assert err.count("content: mesh of data 2 x model 2") == 1, "the towers at hand were trained again"
    for name in ("video_vectors.npy", "query_vectors.npy"):
        one, two = (np.load(place / "content" / "fold_1" / name) for place in (finished, directory))
        np.testing.assert_allclose(two, one, rtol=STATED, atol=STATED)
    assert sorted(path.name for path in (directory / "content").iterdir()) == sorted(
        path.name for path in (finished / "content").iterdir()
    )
    assert not list(directory.glob("*.partial"))
