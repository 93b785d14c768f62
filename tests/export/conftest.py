"""One exported artifact; the work directory that it came from is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pr2_jax.stages.export_artifact import export


@pytest.fixture(scope="session")
def artifact(finished, tmp_path_factory) -> Path:
    """Shared: copy it before changing anything in it."""
    place = tmp_path_factory.mktemp("serving")
    workdir = shutil.copytree(finished, place / "w")
    export(workdir, place / "a")
    shutil.rmtree(workdir)
    return place / "a"


@pytest.fixture
def copied(artifact, tmp_path) -> Path:
    """An artifact of one's own."""
    return shutil.copytree(artifact, tmp_path / "a")
