"""House rules that a machine can read: sizes, names, the top level, nothing left undone."""

from __future__ import annotations

import ast
import fnmatch
import io
import re
import tokenize
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("pr2_jax", "configs", "launch", "tests")
SOURCES = [*sorted(path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py")), REPOSITORY / "setup.py"]
TOP_LEVEL = {*FOLDERS, "setup.py", "BUILD_NOTES.md", "README.md", "LICENSE", "pyproject.toml", ".gitignore", ".ci"}
DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
DATA = {".csv", ".parquet", ".npy", ".npz", ".zip", ".whl", ".ipynb", ".pkl", ".gz"}
LINES, FUNCTION_LINES, COLUMNS = 400, 60, 120


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=map(_name, SOURCES))
def test_file_is_a_room_and_not_a_drawer(path):
    text = path.read_text(encoding="utf-8")
    assert path.name not in DRAWERS, "say what it holds"
    assert len(text.splitlines()) <= LINES
    long = {node.name: node.end_lineno - node.lineno + 1 for node in _functions(ast.parse(text))}
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", SOURCES, ids=map(_name, SOURCES))
def test_nothing_is_left_undone(path):
    text = path.read_text(encoding="utf-8")
    comments = [
        token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT
    ]
    assert not [comment for comment in comments if re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", comment)]
    tree = ast.parse(text)
    raised = [ast.unparse(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    assert not [error for error in raised if error.startswith("NotImplementedError")]
    swallowed = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body)
    ]
    assert not swallowed, "an error swallowed"


def _checks(node: ast.AST, helpers: frozenset[str] = frozenset()) -> bool:
    """An assert, a call named after a check or of a helper that checks, or `with pytest.raises`."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if isinstance(inner, ast.Call):
            called = ast.unparse(inner.func)
            if called in helpers or re.search(r"assert|raises|check", called):
                return True
    return False


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name.startswith("test_")], ids=_name)
def test_every_test_asserts_something(path):
    functions = _functions(ast.parse(path.read_text(encoding="utf-8")))
    helpers = frozenset(node.name for node in functions if _checks(node))
    tests = [node for node in functions if node.name.startswith("test_")]
    assert tests
    assert [test.name for test in tests if not _checks(test, helpers)] == []


def _ignored(name: str) -> bool:
    patterns = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").split()
    return name == ".git" or any(fnmatch.fnmatch(name, pattern.rstrip("/")) for pattern in patterns)


def test_top_level_is_as_required():
    found = {path.name for path in REPOSITORY.iterdir() if not _ignored(path.name)}
    assert found == TOP_LEVEL


def test_no_data_wheels_or_notebooks():
    tracked = [path for name in TOP_LEVEL for path in (REPOSITORY / name).rglob("*") if path.is_file()]
    assert [_name(path) for path in tracked if path.suffix in DATA] == []


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_scripts_name_no_machine():
    texts = {path: path.read_text(encoding="utf-8") for path in (REPOSITORY / "launch").iterdir() if path.is_file()}
    assert len(texts) >= 4
    for path, text in texts.items():
        assert not re.search(r"https?://|file://|/home/|/root/|/work/|/opt/|--index-url", text), _name(path)
