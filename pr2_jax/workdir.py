"""The stages of a work directory: what each depends on, and whether what is on disk still fits."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from pathlib import Path
from typing import Any

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.config.loader import save, to_dict
from pr2_jax.errors import BadInput, StaleArtifact

SCHEMA = "9"
"""Of everything that the stages write beside the store. Raised when an older work directory can no longer be read."""

STORE, STORE_COMMAND = "store", "pr2 ingest"
CONFIG_FILE = "config.json"
"""The config that the next command takes up where it is given none."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One directory and what it is made from."""

    reads: tuple[str, ...]  # directories
    sections: tuple[str, ...]  # of the config, or single fields as section.field
    command: str  # that makes it


STAGES = {
    "content": Stage(("store",), ("data", "content"), "pr2 train content"),
    "preference": Stage(("store", "content"), ("data", "preference"), "pr2 train preference"),
    "pdr": Stage(("store", "content", "preference"), ("data", "pdr"), "pr2 train pdr"),
    "index": Stage(("store", "content", "preference", "pdr"), ("data", "retrieval", "search.clicked"), "pr2 index"),
    "qin": Stage(
        ("store", "content", "preference", "pdr", "index"),
        # The last is the depth at which fusion is fitted.
        ("data", "retrieval", "qin", "base", "scores", "search.candidates"),
        "pr2 train qin",
    ),
    "eval": Stage(
        ("store", "content", "preference", "pdr", "index", "qin"), ("data", "search", "evaluation"), "pr2 evaluate"
    ),
}
"""In the order in which `pr2 run` makes them, after the store."""


def fold_directory(space: Path, fold: int) -> Path:
    """Where the part of `content/` or `preference/` lies that has not learnt from the days of a fold."""
    return space / f"fold_{fold}"


def part_directory(space: Path, part: int) -> Path:
    """Where, of `preference/`, the fit of people and videos lies that has not learnt from the days of a part."""
    return space / f"part_{part}"


def config_path(workdir: Path) -> Path:
    """The config.json of a work directory. StaleArtifact where it has none, so that it is no work directory."""
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise StaleArtifact(
            f"{workdir} is not a work directory (no {path.name}): make it with `pr2 run --config NAME`; "
            "`pr2 config --list` has the names"
        )
    return path


def refuse_foreign_config(workdir: Path) -> None:
    """BadInput where somebody else's config.json lies in the directory."""
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        ours = all(isinstance(kept[section], dict) for section in ("data", "content", "pdr", "qin", "retrieval"))
    except (ValueError, TypeError, KeyError, OSError):
        ours = False
    if not ours:
        raise BadInput(f"{path} is not a config of pr2: move it, or take another --workdir")


def keep_config(workdir: Path, config: Config) -> None:
    """Writes config.json."""
    refuse_foreign_config(workdir)
    save(config, workdir / CONFIG_FILE)


def fingerprint(name: str, workdir: Path, config: Config) -> dict[str, Any]:
    """Everything that a stage's result depends on. StaleArtifact where something that it reads is missing."""
    stage, whole = STAGES[name], to_dict(config)
    for part in stage.reads:
        if not (workdir / part / artifacts.MANIFEST).exists():
            made_by = STORE_COMMAND if part == STORE else STAGES[part].command
            artifacts.require(workdir / part, SCHEMA, made_by)
    return {
        "inputs": {part: artifacts.identity(workdir / part) for part in stage.reads},
        "config": {path: functools.reduce(operator.getitem, path.split("."), whole) for path in stage.sections},
    }


def require(name: str, workdir: Path, config: Config) -> None:
    """StaleArtifact where a stage is missing, or was made from another log, config or schema: both sides are named."""
    stage = STAGES[name]
    artifacts.require(workdir / name, SCHEMA, stage.command)
    for part in stage.reads:
        if part != STORE:
            require(part, workdir, config)
    artifacts.require(workdir / name, SCHEMA, stage.command, fingerprint(name, workdir, config))


def require_inputs(name: str, workdir: Path, config: Config) -> None:
    """As `require`, of everything that a stage is about to read."""
    for part in STAGES[name].reads:
        if part != STORE:
            require(part, workdir, config)
    fingerprint(name, workdir, config)
