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
    """A store, and as a killed run leaves it one of the three towers: two are left to train."""
    place = tmp_path / "w"
    shutil.copytree(finished / "store", place / "store")
    shutil.copy(finished / "config.json", place)
    shutil.copytree(finished / "content" / "fold_0", place / "content.partial" / "fold_0")
    manifest = json.loads((finished / "content" / artifacts.MANIFEST).read_text())
    claim = {name: manifest[name] for name in ("schema", "fingerprint")}
    artifacts.write_json(place / "content.partial" / artifacts.IN_PROGRESS, claim)
    return place


@pytest.mark.slow
def test_towers_of_two_processes_are_those_of_one(directory, finished, together, free_address):
    """And only process 0 says anything."""
    command = ["-m", "pr2_jax", "train", "content", "--workdir", str(directory), "--config.mesh.data=2"]
    command += ["--config.mesh.model=-1", "--coordinator", free_address, "--processes", "2"]
    before = (directory / "content.partial" / "fold_0" / "query_vectors.npy").stat().st_ino
    (status, out, err), other = together(*([*command, "--process", str(index)] for index in range(2)))
    assert (status, out) == (0, ""), err
    assert other == (0, "", ""), other[2]
    assert err.splitlines()[0] == "content   running: not made yet"
    assert "videos and" in err
    assert (directory / "content" / "fold_0" / "query_vectors.npy").stat().st_ino == before, "it was not carried on"
    for part in (".", "fold_1"):
        for name in ("video_vectors.npy", "query_vectors.npy"):
            one, two = (np.load(place / "content" / part / name) for place in (finished, directory))
            np.testing.assert_allclose(two, one, rtol=STATED, atol=STATED)
    assert sorted(path.name for path in (directory / "content").iterdir()) == sorted(
        path.name for path in (finished / "content").iterdir()
    )
    assert not list(directory.glob("*.partial"))
