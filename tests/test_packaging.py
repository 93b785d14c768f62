"""The wheel and the source distribution: everything that an installed `pr2` reads is in them, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import pr2_jax
from pr2_jax.config import preset_files

SOURCES = ("pr2_jax", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""
READ = {".py", ".html", ".jinja", ".css", ".svg"}


@pytest.fixture(scope="module")
def built(tmp_path_factory, request) -> tuple[set[str], set[str], dict[str, bytes]]:
    """Names in the source distribution, and in the wheel, and the contents of its presets and metadata."""
    root, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        source = request.config.rootpath / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        texts = {name: archive.read(name) for name in in_wheel if "/presets/" in name or name.endswith("/METADATA")}
    return in_sdist, in_wheel, texts


def _read_by_the_package(repository: Path) -> set[str]:
    """Every file of the checkout's package that is code, a template, a static file or a document."""
    package = repository / "pr2_jax"
    files = [path for path in package.rglob("*") if path.suffix in READ]
    files += [path for path in (package / "docs").rglob("*") if path.is_file()]
    return {str(path.relative_to(repository)) for path in files}


def test_the_wheel_holds_the_package_and_the_presets(built, repository):
    _, in_wheel, texts = built
    wanted = _read_by_the_package(repository)
    presets = {f"pr2_jax/presets/{path.name}": path.read_bytes() for path in (repository / "configs").glob("*.py")}
    assert {"pr2_jax/demo/static/style.css", "pr2_jax/report/templates/page.html.jinja"} <= wanted
    information = {name for name in in_wheel if ".dist-info/" in name}
    assert in_wheel - information == wanted | presets.keys()
    assert {name: text for name, text in texts.items() if name in presets} == presets
    assert any(name.endswith("/LICENSE") for name in information)


def test_the_wheel_says_what_it_is(built):
    [text] = [text for name, text in built[2].items() if name.endswith("/METADATA")]
    told = message_from_bytes(text)
    assert (told["Name"], told["Version"]) == ("pr2_jax", pr2_jax.__version__)
    assert set(told.get_all("Provides-Extra")) == {"cuda", "tpu", "test"}
    assert told.get_payload().lstrip().startswith("# pr2_jax")


def test_the_source_distribution_can_build_it(built, repository):
    in_sdist = built[0]
    assert {name for name in SOURCES if (repository / name).is_file()} <= in_sdist
    assert {f"configs/{path.name}" for path in (repository / "configs").glob("*.py")} <= in_sdist
    assert _read_by_the_package(repository) <= in_sdist


def test_an_installed_package_reads_its_own_presets(tmp_path, monkeypatch):
    """As pip leaves it: presets inside the package, no `configs/` beside it."""
    (tmp_path / "pr2_jax" / "presets").mkdir(parents=True)
    monkeypatch.setattr(pr2_jax, "__file__", str(tmp_path / "pr2_jax" / "__init__.py"))
    (tmp_path / "pr2_jax" / "presets" / "mine.py").write_text("def get_config(variant=''): ...")
    (tmp_path / "pr2_jax" / "presets" / "ablations.py").write_text("ABLATIONS = {}")
    assert preset_files.names() == ["mine"]
    assert preset_files.path_of("mine") == tmp_path / "pr2_jax" / "presets" / "mine.py"
