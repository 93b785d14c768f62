"""The documents that come with the package: Markdown files in `pr2_jax/docs/`, by their path without `.md`."""

from __future__ import annotations

from pathlib import Path

import pr2_jax
from pr2_jax.errors import BadInput, did_you_mean

DIRECTORY = Path(pr2_jax.__file__).parent / "docs"


def names() -> list[str]:
    """`method`, `decisions/001-name`, ...: those of `docs/` itself first."""
    found = [path.relative_to(DIRECTORY).with_suffix("").as_posix() for path in DIRECTORY.rglob("*.md")]
    return sorted(found, key=lambda name: (name.count("/"), name))


def listing() -> list[str]:
    """A line for each document, its name and its title."""
    known = names()
    width = max(map(len, known), default=0)
    titles = (text(name).partition("\n")[0].lstrip("# ") for name in known)
    return [f"{name:<{width}}  {title}" for name, title in zip(known, titles, strict=True)]


def text(name: str) -> str:
    """The document. BadInput where there is none of that name."""
    known, name = names(), name.removesuffix(".md")
    if name not in known:
        raise BadInput(f"there is no document {name!r}{did_you_mean(name, known) or '.'} `pr2 docs` lists all")
    return (DIRECTORY / f"{name}.md").read_text(encoding="utf-8").rstrip("\n")
