"""A reader of the work directory that keeps the digest of each file it reads, for the manifest."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.evaluation.evaluate import SESSIONS
from pr2_jax.metrics import per_session

MADE_BY = {
    "abtest": "pr2 abtest",
    "trial": "pr2 abtest --validate N",
    "ablations": "pr2 evaluate --ablations",
    "sweep_qrcf": "pr2 evaluate --sweep qrcf",
}
"""Artifacts of other commands than `pr2 run`."""


def made_by(place: str) -> str:
    """The command that makes a file or an artifact; `place` is below the work directory."""
    kind = "trial" if place.startswith("abtest/trial") else place.partition("/")[0]
    return MADE_BY.get(kind, "pr2 run")


class Work:
    """Read-only. `inputs`: the digest of each file read, by its place below the directory."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory, self.config = directory, config
        self.inputs: dict[str, str] = {}

    def path(self, place: str) -> Path | None:
        """A file that is about to be read; None where there is none."""
        path = self.directory / place
        if not path.is_file():
            return None
        if place not in self.inputs:
            self.inputs[place] = artifacts.digest_file(path)
        return path

    def _read(self, place: str, parse: Callable[[Path], Any], otherwise: Any, command: str = "pr2 run") -> Any:
        """`otherwise` where there is no such file; StaleArtifact where it is damaged, with the command that made it."""
        path = self.path(place)
        if path is None:
            return otherwise
        with artifacts.reading(path.parent, command):
            return parse(path)

    def json(self, place: str) -> Any:
        """None where there is no such file."""
        return self._read(place, lambda path: json.loads(path.read_text(encoding="utf-8")), None, made_by(place))

    def curve(self, place: str) -> list[dict[str, float]]:
        """The lines of a `curve.jsonl`; none where there is none."""
        return self._read(place, lambda path: [json.loads(x) for x in path.read_text("utf-8").splitlines()], [])

    def csv(self, place: str) -> list[dict[str, str]]:
        """The rows of a CSV file; none where there is none."""
        return self._read(place, lambda path: list(csv.DictReader(path.read_text("utf-8").splitlines(True))), [])

    @functools.cached_property
    def store(self) -> LogStore:
        return LogStore.open(self.directory / "store")

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        return self.json("eval/metrics.json") or {}

    @functools.cached_property
    def values(self) -> dict[str, per_session.PerSession]:
        """Per-session metrics of each ranking on the test day."""
        return self._read(f"eval/{SESSIONS}", per_session.load, {})

    def stale(self, place: str, command: str) -> str:
        """A sentence if an artifact is stale, else nothing."""
        manifest = self.json(f"{place}/{artifacts.MANIFEST}") or {"fingerprint": {}}
        return self.stale_unless(manifest["fingerprint"].get("inputs", {}), command)

    def stale_unless(self, made_from: Mapping[str, str], command: str) -> str:
        """The same, of stages and their identities then."""
        there = {name for name in made_from if (self.directory / name / artifacts.MANIFEST).is_file()}
        other = [n for n, then in made_from.items() if n not in there or artifacts.identity(self.directory / n) != then]
        if not other:
            return ""
        return f"Made from another {', '.join(sorted(other))} than is here now: `{command}` makes it anew."

    @property
    def simulated(self) -> bool:
        return self.config.data.source == "short_video_world"

    def day_of(self, time_ms: np.ndarray) -> np.ndarray:
        """The day of each time, counted from the validation cut as in data/batches/sessions.py."""
        return (np.asarray(time_ms) - self.store.cuts.validation_ms) // DAY_MS

    def test_sessions(self) -> np.ndarray:
        cuts = self.store.cuts
        first, last = np.searchsorted(self.store.sessions.time_ms, [cuts.test_ms, cuts.end_ms])
        return np.arange(first, last)
