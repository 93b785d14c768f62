"""The training curve, `curve.jsonl`: a line every few steps, read off the device one step late; and the run's pace."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jax
import numpy as np
from jax import Array

from pr2_jax import artifacts, console
from pr2_jax.data.batches.training_length import TrainingLength
from pr2_jax.errors import NotFinite
from pr2_jax.training.distributed import alone, is_first

EVERY = 20
PACE = "pace.json"
"""Seconds a step of the last process that trained here, compilation apart."""
LENGTH = "length.json"
"""Steps of the run, the passes that they make, and whether `optim.max_steps` cuts those asked for."""


def announce(length: TrainingLength, model: str, directory: Path, held_out: int | None = None) -> None:
    """Says how long a run trains and writes it beside the curve, before the first step.

    `model`: its section of the config; `held_out`: the fold that it does not learn from. Not in the manifest, since a
    resumed stage passes over the runs that it finds done.
    """
    without = "" if held_out is None else f" without fold {held_out}"
    console.log(f"{model}{without}: {length.said(model)}")
    if is_first():
        artifacts.write_text(directory / LENGTH, json.dumps(length.facts()) + "\n")


class Curve:
    """Reads each step's metrics once the next step has been queued. A loss that is not finite stops the run."""

    def __init__(self, path: Path, first: int) -> None:
        self._path, self._pending = path, None
        self._read_s: list[float] = []  # when each loss was read
        if not is_first():  # the others read losses too, so that all stop at one step
            return
        # A killed run may have logged past its last checkpoint, and its last line may be torn.
        lines = path.read_text().splitlines() if path.exists() else []
        artifacts.write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= first))

    def add(
        self, step: int, metrics: dict[str, Array], batch: dict[str, np.ndarray], *, last: bool, wait: bool
    ) -> None:
        """Reads the step before; with `wait` this one too, since only a finite state may be saved."""
        self._flush()
        self._pending = (step, metrics, batch, last or step % EVERY == 0)
        if wait:
            self._flush()

    def _flush(self) -> None:
        if self._pending is None:
            return
        (step, metrics, batch, keep), self._pending = self._pending, None
        loss = float(metrics["loss"])
        self._read_s.append(time.perf_counter())
        if not np.isfinite(loss):
            share = "" if alone() else f"_share_{jax.process_index()}"
            saved = self._path.with_name(f"bad_batch_{step}{share}.npz")
            np.savez(saved, **batch)
            raise NotFinite(
                f"loss is {loss} at step {step}; that step's batch is in {saved}: look for what is odd in it, or lower "
                "the learning rates (optim.learning_rate, optim.table_learning_rate)"
            )
        if keep and is_first():
            values = {name: float(value) for name, value in metrics.items()}
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def finish(self) -> None:
        """Writes the pace, if there were two steps."""
        steps, times = len(self._read_s), self._read_s
        if steps > 1 and is_first():
            pace = {"steps": steps, "seconds_a_step": (times[-1] - times[0]) / (steps - 1)}
            self._path.with_name(PACE).write_text(json.dumps(pace) + "\n")


def _step_of(line: str) -> float:
    """The line's step; infinite where the line is torn."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return np.inf
