"""One exported artifact; the work directory that it came from is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pr2_jax.stages.export_artifact import export


@pytest.fixture(scope="session")
def artifact(finished, shared) -> Path:
    """Shared: copy it before changing anything in it."""

    def exported(place: Path) -> None:
        workdir = shutil.copytree(finished, place.with_name("exported_from"))
        export(workdir, place)
        shutil.rmtree(workdir)

    return shared("artifact", exported)


@pytest.fixture
def copied(artifact, tmp_path) -> Path:
    """An artifact of one's own."""
    return shutil.copytree(artifact, tmp_path / "a")
