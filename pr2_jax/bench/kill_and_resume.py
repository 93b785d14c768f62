"""`resume`: a training run killed at a random moment and resumed must equal the unbroken one bit for bit.

`python -m pr2_jax.bench.kill_and_resume DIRECTORY` trains the content towers on random arrays, with sparse tables,
dropout and a save every few steps. Each kill gets a new directory and a SIGKILL at a uniform moment of the unbroken
run's time. The same command then must end with the same parameters, tables, optimiser state and curve.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pr2_jax.config import ContentConfig, OptimConfig
from pr2_jax.errors import Pr2Error
from pr2_jax.models.content import ContentTask
from pr2_jax.training import resource_limits
from pr2_jax.training.checkpoint import CHECKPOINTS, HALF_WRITTEN
from pr2_jax.training.loop import fit

STEPS, EVERY = 120, 3
VIDEOS, WORDS, AUTHORS, CATEGORIES = 4_000, 4_000, 500, 50
OPTIM = OptimConfig(batch=64, checkpoint_every=EVERY, table_optimizer="row_adagrad")
CONFIG = ContentConfig(width=32, hidden=64, uniform_negatives=64, optim=OPTIM)
TRIES = 100
"""Draws of one moment: a run may be done before it comes."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill, and the resumed run's result."""

    kill: int
    after_s: float
    inside_save: bool  # a half-written checkpoint was left
    resumed_from: int  # step; 0 = nothing had been saved
    identical: bool

    def to_dict(self) -> dict[str, Any]:
        return {"workload": "resume", "steps": STEPS} | dataclasses.asdict(self)

    def line(self) -> str:
        when = f"{self.after_s:5.2f} s{' inside a save' if self.inside_save else '':<15}"
        verdict = "bit-identical" if self.identical else "DIFFERENT"
        return f"kill {self.kill:>3}  after {when} resumed from step {self.resumed_from:>3} of {STEPS}  {verdict}"


def run(kills: int, seed: int) -> Iterator[Kill]:
    """Kills and resumes runs, one after the other."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="pr2-resume-") as place:
        root = Path(place)
        _finish(root / "warm", root)  # fills the compilation cache: the first run would take longer than the others
        started = time.monotonic()
        expected, _ = _finish(root / "unbroken", root)
        duration_s = time.monotonic() - started
        for number in range(1, kills + 1):
            directory, after_s = _killed(root, number, duration_s, rng)
            half_written = list((directory / CHECKPOINTS).glob(HALF_WRITTEN))
            found, resumed_from = _finish(directory, root)
            yield Kill(number, round(after_s, 3), bool(half_written), resumed_from, found == expected)


def _killed(root: Path, number: int, duration_s: float, rng: np.random.Generator) -> tuple[Path, float]:
    """The directory of a killed run, and the seconds until the kill."""
    for attempt in range(TRIES):
        directory, after_s = root / f"{number}-{attempt}", float(rng.uniform(0, duration_s))
        try:
            _run(directory, root, after_s)
        except subprocess.TimeoutExpired:
            return directory, after_s
    raise Pr2Error(f"{TRIES} runs ended before they could be killed: the machine's speed changes too much to go on")


def _finish(directory: Path, root: Path) -> tuple[dict[str, str], int]:
    """Runs to the end: hashes of all arrays and of the curve, and the step that the run resumed from."""
    done = _run(directory, root)
    if done.returncode:
        raise Pr2Error(f"a run in {directory} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    report = json.loads(done.stdout.splitlines()[-1])
    return report["hashes"], report["resumed_from"]


def _run(directory: Path, root: Path, kill_after_s: float | None = None) -> subprocess.CompletedProcess:
    settings = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "pr2_jax.bench.kill_and_resume", str(directory)]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=kill_after_s)


def train(directory: Path) -> None:
    """The process that is killed. Prints the hashes of its end state."""
    directory.mkdir(exist_ok=True)
    steps = []
    state = fit(_task(), lambda step: steps.append(step) or _batch(step), OPTIM, steps=STEPS, directory=directory)
    content = {name: np.asarray(leaf).tobytes() for name, leaf in resource_limits.by_name(state).items()}
    content["curve"] = (directory / "curve.jsonl").read_bytes()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    print(json.dumps({"hashes": hashes, "resumed_from": steps[0] if steps else STEPS}))


def _task() -> ContentTask:
    rng = np.random.default_rng(0)
    frozen = {
        "caption": rng.integers(0, WORDS, (VIDEOS, 12)).astype(np.int32),
        "author": rng.integers(0, AUTHORS, VIDEOS).astype(np.int32),
        "category": rng.integers(0, CATEGORIES, (VIDEOS, 4)).astype(np.int32),
        "numbers": rng.normal(size=(VIDEOS, 2)).astype(np.float32),
        "log_unigram": np.full(VIDEOS, -np.log(VIDEOS), np.float32),
    }
    return ContentTask(
        CONFIG, jax.tree.map(jax.numpy.asarray, frozen), {"word": WORDS, "author": AUTHORS, "category": CATEGORIES}
    )


def _batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([1, step])
    return {
        "words_BxQ": rng.integers(0, WORDS, (OPTIM.batch, 6)).astype(np.int32),
        "video_B": rng.integers(1, VIDEOS, OPTIM.batch).astype(np.int32),
        "uniform_N": rng.integers(1, VIDEOS, CONFIG.uniform_negatives).astype(np.int32),
    }


if __name__ == "__main__":
    train(Path(sys.argv[1]))
