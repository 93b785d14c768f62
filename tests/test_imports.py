"""Imports flow one way and in no circle, nothing is found by a string, and a file is known by its name."""

from __future__ import annotations

import ast
import collections
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ORDER = (
    "errors",
    "types",
    "console",
    "artifacts",
    "config",
    "workdir",
    "metrics",
    "drawing",
    "data.schema",
    "data.columns",
    "data.outcomes",
    "data.periods",
    "data.logs",
    "data.store",
    "data.history",
    "data.batches",
    "data.log_view",
    "data.exchange",
    "data.ingest",
    "training",
    "models",
    "simulation",
    "export",
    "encoders",
    "retrieval",
    "bench",
    "ranking",
    "search",
    "evaluation",
    "stages",
    "studies",
    "abtest",
    "report",
    "demo",
    "pipeline",
    "cli",
    "__main__",
)
"""A room may import itself and those before it. BUILD_NOTES.md names the same order."""

PACKAGE = Path(__file__).resolve().parents[1] / "pr2_jax"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
NAMES_TWICE = 1
"""Names of files that more than one folder has, at most."""


def _room(path: Path) -> str:
    return _room_of(_module(path)) if path.name != "__init__.py" or path.parent != PACKAGE else "__init__"


def _room_of(name: str) -> str:
    """Of a dotted name: its first part below `pr2_jax`, in `data` the first two."""
    parts = name.split(".")[1:]
    return ".".join(parts[: 2 if parts[0] == "data" else 1])


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, `from a import b` as `a.b`; inside functions and for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(trees: Mapping[str, ast.AST]) -> list[set[str]]:
    """Groups of modules of which each imports, by way of others, every other one."""
    wanted = {}
    for name, tree in trees.items():
        found = {one.rpartition(".")[0] if one not in trees else one for _, one in _imported(tree)}
        wanted[name] = (found & trees.keys()) - {name, "pr2_jax"}

    def reached(start: str) -> set[str]:
        found, left = set(), [start]
        while left:
            new = wanted[left.pop()] - found
            found |= new
            left += new
        return found

    beyond = {name: reached(name) for name in trees}
    groups = {frozenset(other for other in beyond[name] if name in beyond[other]) for name in trees}
    return sorted((set(group) for group in groups if group), key=sorted)


def backward_arrows(room: str, tree: ast.AST) -> list[str]:
    """Imports of a later room, of a room without a place in the order, and relative ones, which hide their room."""
    found = []
    for line, name in _imported(tree):
        if name.startswith("."):
            found.append(f"line {line}: {name} is relative: write it from pr2_jax on")
        elif name.startswith("pr2_jax.") and name != "pr2_jax.__version__":
            wanted = _room_of(name)
            if wanted not in ORDER or ORDER.index(wanted) > ORDER.index(room):
                found.append(f"line {line}: {room} imports {wanted}, which comes later or has no place in the order")
    return found


def string_lookups(tree: ast.AST) -> list[str]:
    """Modules and their members found by a string that is only known when running. Ruff finds the plainer ways."""
    modules = {name.split(".")[0] for _, name in _imported(tree)} | {name.split(".")[-1] for _, name in _imported(tree)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("__import__", "globals"):
            found.append(f"line {node.lineno}: {called}")
        if called == "getattr" and ast.unparse(node.args[0]).split(".")[-1] in modules:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_imports_point_backwards():
    wrong = []
    for path, tree in TREES.items():
        room = _room(path)
        found = [] if room in (*ORDER, "__init__", "data") else [f"give {room} a place in ORDER and in BUILD_NOTES.md"]
        if room == "__init__" and list(_imported(tree)):
            found.append("importing pr2_jax costs nothing")
        if room in ORDER:
            found += backward_arrows(room, tree)
        found += string_lookups(tree)
        wrong += [f"{path.relative_to(PACKAGE)}: {one}" for one in found]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    assert circles({_module(path): tree for path, tree in TREES.items()}) == []


def test_a_file_is_known_by_its_name():
    names = collections.Counter(path.name for path in TREES if path.name != "__init__.py")
    twice = sorted(name for name, count in names.items() if count > 1)
    assert len(twice) <= NAMES_TWICE, twice


def test_build_notes_name_the_same_order(repository):
    notes = (repository / "BUILD_NOTES.md").read_text(encoding="utf-8")
    line = re.search(r"^`(errors,.*→.*)`", notes, re.MULTILINE)[1]
    named = re.split(r"[,→\s]+", line)
    rooms = list(dict.fromkeys(room.partition(".")[0] for room in ORDER))
    assert named == [room for room in rooms if room in named]
    assert len(named) >= len(rooms) - 1


@pytest.mark.parametrize(
    ("room", "source", "count"),
    [
        ("data.logs", "from pr2_jax.models import qin", 1),
        ("data.logs", "from pr2_jax import models", 1),
        ("data.logs", "import pr2_jax.models.qin", 1),
        ("data.logs", "def f():\n    from pr2_jax.models import qin", 1),
        ("data.logs", "from . import store", 1),
        ("data.logs", "from pr2_jax.attic import x", 1),
        ("data.logs", "from pr2_jax.data.store import log_store", 1),
        ("data.logs", "from pr2_jax.data.columns import CLICK\nfrom pr2_jax.errors import BadInput", 0),
        ("cli", "from pr2_jax import __version__, pipeline", 0),
    ],
)
def test_backward_arrow_is_seen(room, source, count):
    assert len(backward_arrows(room, ast.parse(source))) == count


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"a": "import b", "b": "from c import f", "c": "import os"}, []),
        (
            {"a": "import b", "b": "def f():\n    from c import g", "c": "if TYPE_CHECKING:\n    from a import X"},
            ["abc"],
        ),
        ({"a": "import b, c", "b": "import a", "c": "import d", "d": "from c import f"}, ["ab", "cd"]),
        ({"p.a": "from p import b", "p.b": "from p.a import f"}, [{"p.a", "p.b"}]),
    ],
)
def test_circle_is_seen(sources, found):
    assert circles({name: ast.parse(text) for name, text in sources.items()}) == [set(one) for one in found]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from pr2_jax.models import losses\ngetattr(losses, name)", 1),
        ("import numpy as np\nimport optax\ngetattr(optax, name)(0.1)", 1),
        ("__import__(name)", 1),
        ("globals()[name]", 1),
        ("getattr(columns, field.name)", 0),
    ],
)
def test_string_lookup_is_seen(source, count):
    assert len(string_lookups(ast.parse(source))) == count


BARE_IMAGE = """
import importlib.abc, pkgutil, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"polars", "tensorflow_datasets", "scann", "array_record", "grain", "pandas"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import pr2_jax.models, pr2_jax.training, pr2_jax.bench
for room in (pr2_jax.models, pr2_jax.training, pr2_jax.bench):
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        __import__(module.name)
from pr2_jax.bench import table_workload as tables
print(len(list(tables.run(1, sizes=(600,)))))
"""


def test_models_and_benchmarks_need_no_more_than_an_accelerator_image_has(repository):
    """jax, flax, optax, orbax, numpy and what those bring along."""
    done = subprocess.run(
        [sys.executable, "-c", BARE_IMAGE], capture_output=True, text=True, cwd=repository, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


EVERY_ROOM = """
import json, pkgutil, sys, pr2_jax
names = [m.name for m in pkgutil.walk_packages(pr2_jax.__path__, "pr2_jax.") if m.name != "pr2_jax.__main__"]
for name in names:
    __import__(name)
print(json.dumps([len(names), sorted({"tensorflow", "pandas"} & sys.modules.keys())]))
"""


def test_importing_every_room_is_silent_and_brings_no_tensorflow(repository):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERY_ROOM], capture_output=True, text=True, cwd=repository, check=False
    )
    assert done.stderr == ""
    count, unwanted = json.loads(done.stdout)
    assert count >= len([path for path in TREES if path.name not in ("__init__.py", "__main__.py")])
    assert unwanted == []
