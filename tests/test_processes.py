"""`pr2` in two processes on one work directory: the same towers as one process makes, and one config for both."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

STATED = 1e-5


@pytest.fixture
def directory(finished, tmp_path) -> Path:
    """A store, and nothing that was trained."""
    (tmp_path / "w").mkdir()
    shutil.copy(finished / "config.json", tmp_path / "w")
    shutil.copytree(finished / "store", tmp_path / "w" / "store")
    return tmp_path / "w"


@pytest.fixture
def train_content(directory, together, free_address):
    """`pr2 train content` in two processes, with what each is told beside; (status, stdout, stderr) of each."""

    def train_content(*extra: str) -> list[tuple[int, str, str]]:
        command = ["-m", "pr2_jax", "train", "content", "--workdir", str(directory), "--config.mesh.data=2"]
        command += ["--config.mesh.model=-1", "--coordinator", free_address, "--processes", "2"]
        return together(*([*command, "--process", str(index), more] for index, more in enumerate(extra)))

    return train_content


def test_towers_of_two_processes_are_those_of_one(train_content, directory, finished):
    """And only process 0 says anything."""
    (status, out, err), other = train_content("--config.name=two", "--config.name=two")
    assert (status, out) == (0, ""), err
    assert other == (0, "", ""), other[2]
    assert err.splitlines()[0] == "content   running: not made yet"
    assert "videos and" in err
    for part in (".", "fold_0", "fold_1"):
        for name in ("video_vectors.npy", "query_vectors.npy"):
            one, two = (np.load(place / "content" / part / name) for place in (finished, directory))
            np.testing.assert_allclose(two, one, rtol=STATED, atol=STATED)
    assert sorted(path.name for path in (directory / "content").iterdir()) == sorted(
        path.name for path in (finished / "content").iterdir()
    )
    assert not list(directory.glob("*.partial"))


def test_a_process_with_another_config_is_refused_before_training(train_content, directory):
    done = train_content("--config.content.width=16", "--config.content.width=32")
    for status, out, err in done:
        assert (status, out) == (2, "")
        assert err.splitlines() == [
            "pr2: error: config.content.width is 16 on process 0 and 32 on process 1: start all processes with the "
            "same version, command and work directory"
        ]
    assert not list(directory.glob("content*"))
