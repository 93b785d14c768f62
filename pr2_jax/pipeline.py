"""The stages in order. Each runs only if what it depends on has changed since it was made, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.config_loader import to_dict
from pr2_jax.data.builders.kuaisar import Kuaisar
from pr2_jax.data.ingest import fingerprint as log_fingerprint
from pr2_jax.data.ingest import ingest as ingest_log
from pr2_jax.data.store import SCHEMA as STORE_SCHEMA
from pr2_jax.search.system import SCHEMA
from pr2_jax.simulation.dataset_builder import ShortVideoWorld
from pr2_jax.stages import content, pdr, qin
from pr2_jax.stages import evaluate as evaluation
from pr2_jax.stages import index as indexing

Body = Callable[[Path, Config, Path], None]

BODIES: dict[str, tuple[Body, tuple[str, ...], tuple[str, ...], str]] = {
    # stage: body, artifacts read, sections of the config, command that makes it
    "content": (content.train, ("store",), ("data", "content"), "pr2 train content"),
    "pdr": (pdr.train, ("store", "content"), ("data", "pdr"), "pr2 train pdr"),
    "index": (indexing.build, ("store", "content", "pdr"), ("data", "retrieval"), "pr2 index"),
    "qin": (qin.train, ("store", "content", "index"), ("data", "retrieval", "qin", "base"), "pr2 train qin"),
    "eval": (evaluation.run, ("store", "content", "pdr", "index", "qin"), ("data", "evaluation"), "pr2 evaluate"),
}
BUILDERS = {"kuaisar": Kuaisar, "short_video_world": ShortVideoWorld}
TRAINED = ("content", "pdr", "qin")


def run(workdir: Path, config: Config, input_path: Path | None) -> None:
    """All stages; those whose inputs and config are as they were are skipped."""
    started = time.monotonic()
    ingest(workdir, config, input_path)
    artifacts.write_json(workdir / "config.json", to_dict(config))
    for name in BODIES:
        _make(name, workdir, config)
    console.log(f"done in {console.duration(time.monotonic() - started)}; results in {workdir / 'eval'}")
    evaluation.print_table(workdir)


def ingest(workdir: Path, config: Config, input_path: Path | None) -> None:
    """The log into the store. The simulated world needs no input."""
    with console.stage("ingest"):
        builder = BUILDERS[config.data.source]
        claim = log_fingerprint(input_path, config)
        why = artifacts.reason_stale(workdir / "store", claim, STORE_SCHEMA)
        if why is None:
            console.log("fresh, skipped")
            return
        console.log(f"running: {why}")
        started = time.monotonic()
        for line in ingest_log(input_path, config, workdir, builder).lines():
            console.log(line)
        console.log(f"done in {console.duration(time.monotonic() - started)}")


def train(workdir: Path, config: Config, which: str) -> None:
    """One model, whether or not it is fresh elsewhere in the chain; what it reads must be there."""
    _make(which, workdir, config, needed=True)


def index(workdir: Path, config: Config) -> None:
    """The retrieval indices and snapshots."""
    _make("index", workdir, config, needed=True)


def evaluate(workdir: Path, config: Config) -> None:
    """Run files, metrics and the table."""
    _make("eval", workdir, config, needed=True)
    evaluation.print_table(workdir)


def fingerprint(name: str, workdir: Path, config: Config) -> dict[str, Any]:
    """Everything that the stage's result depends on."""
    _, reads, sections, _ = BODIES[name]
    whole = to_dict(config)
    return {
        "inputs": {part: artifacts.identity(workdir / part) for part in reads},
        "config": {section: whole[section] for section in sections},
    }


def _make(name: str, workdir: Path, config: Config, *, needed: bool = False) -> None:
    body, reads, _, _ = BODIES[name]
    with console.stage(name):
        for part in reads if needed else ():
            made_by = "pr2 ingest" if part == "store" else BODIES[part][3]
            if not (workdir / part / artifacts.MANIFEST).exists():
                artifacts.require(workdir / part, SCHEMA, made_by)
        claim = fingerprint(name, workdir, config)
        why = artifacts.reason_stale(workdir / name, claim, SCHEMA)
        if why is None:
            console.log("fresh, skipped")
            return
        console.log(f"running: {why}")
        started = time.monotonic()
        with artifacts.writing(workdir / name, claim, SCHEMA, keep_partial=name in TRAINED) as out:
            body(workdir, config, out)
        console.log(f"done in {console.duration(time.monotonic() - started)}")
