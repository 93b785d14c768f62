"""House rules that Ruff does not know: sizes, names, the top level, tests that check something."""

from __future__ import annotations

import ast
import fnmatch
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("pr2_jax", "configs", "launch", "tests")
SOURCES = [*sorted(path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py")), REPOSITORY / "setup.py"]
TOP_LEVEL = {*FOLDERS, "setup.py", "BUILD_NOTES.md", "README.md", "LICENSE", "pyproject.toml", ".gitignore", ".ci"}
DRAWERS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
DATA = {".csv", ".parquet", ".npy", ".npz", ".zip", ".whl", ".ipynb", ".pkl", ".gz"}
LINES, FUNCTION_LINES = 400, 60


TEXTS = {path: path.read_text(encoding="utf-8") for path in SOURCES}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_files_are_rooms_and_no_drawers():
    """Say what it holds, and keep it short."""
    assert [_name(path) for path in SOURCES if path.name in DRAWERS] == []
    sizes = {_name(path): len(text.splitlines()) for path, text in TEXTS.items()}
    assert {name: lines for name, lines in sizes.items() if lines > LINES} == {}
    functions = {
        f"{_name(path)} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in _functions(tree)
    }
    assert {name: lines for name, lines in functions.items() if lines > FUNCTION_LINES} == {}


def test_nothing_is_left_unwritten():
    """Ruff finds comments that promise, and errors that are swallowed."""
    raised = [
        f"{_name(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("NotImplementedError")
    ]
    assert raised == []


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


def test_every_test_asserts_something():
    idle = []
    for path, tree in TREES.items():
        if not path.name.startswith("test_"):
            continue
        functions = _functions(tree)
        helpers = frozenset(node.name for node in functions if _checks(node))
        tests = [node for node in functions if node.name.startswith("test_")]
        idle += [] if tests else [_name(path)]
        idle += [f"{_name(path)} {test.name}" for test in tests if not _checks(test, helpers)]
    assert idle == []


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
