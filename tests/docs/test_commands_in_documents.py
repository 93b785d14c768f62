"""Commands and Python of the documents: the real parser takes every command, and the code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pr2_jax.cli import arguments
from pr2_jax.config import loader

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "pr2_jax" / "docs").rglob("*.md"))]
TIME = re.compile(r"\b(\d+|a|an|some|a few|half an?) ?(s|seconds?|min|minutes?|hours?)\b")


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Lines of shell blocks, continued ones joined."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


@pytest.fixture
def parse(monkeypatch):
    """Parses the arguments of `pr2` where files need not exist, overrides against the fields of the config."""
    for name in ("_existing", "_artifact"):
        monkeypatch.setattr(arguments, name, Path)

    def parse(given: list[str]) -> None:
        overrides = [text for text in given if text.startswith(loader.PREFIX)]
        options = arguments.parser().parse_args([text for text in given if text not in overrides])
        if overrides:
            assert "config" in options
            loader.load_or_default(options.config, overrides)

    return parse


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_is_one_of_pr2(page, parse):
    told = [shlex.split(line, comments=True) for line in commands(page)]
    for words in told:
        if words[0] == "pr2":
            parse(words[1:])
        elif Path(words[-1]).suffix == ".sh" or words[1:2] == ["launch/train.sh"]:
            assert (REPOSITORY / words[1]).is_file()
    assert told or page != PAGES[0]


def test_other_commands_of_readme_say_how_long_they_take():
    other = [line for line in commands(REPOSITORY / "README.md") if not line.startswith("pr2 ")]
    assert [line for line in other if not TIME.search(line.partition("#")[2])] == []
    assert [line for line in other if line.startswith("bash launch/quickstart.sh")]


@pytest.mark.parametrize("page", ["README.md", "pr2_jax/docs/serving.md"])
def test_python_runs(page, finished, capsys):
    found = blocks(REPOSITORY / page, "python")
    assert found
    for block in found:
        ran = block.replace('"work/quickstart"', repr(str(finished)))
        assert ran != block
        exec(compile(ran, page, "exec"), {})  # noqa: S102  the code of our own documents
    assert len(capsys.readouterr().out.splitlines()) >= 10
