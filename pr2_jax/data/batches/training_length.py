"""Length of a training run: steps, and the passes over the training rows that they make."""

from __future__ import annotations

import dataclasses

from pr2_jax.config import OptimConfig


@dataclasses.dataclass(frozen=True)
class TrainingLength:
    """Steps that a run makes, of those that its epochs ask for."""

    steps: int
    rows: int  # that a pass reads once
    steps_a_pass: float
    epochs: float  # passes asked for
    cut: bool  # optim.max_steps ends the run before them

    @classmethod
    def of(cls, rows: int, steps_a_pass: float, asked_steps: int, optim: OptimConfig) -> TrainingLength:
        """`asked_steps`: those of `optim.epochs` passes. At most `optim.max_steps` and at least one are made."""
        steps = max(1, min(optim.max_steps, asked_steps))
        return cls(steps, rows, steps_a_pass, optim.epochs, asked_steps > optim.max_steps)

    @classmethod
    def in_batches(cls, rows: int, batch: int, optim: OptimConfig) -> TrainingLength:
        """Of passes over rows that are cut into equal batches (`EpochOrder`)."""
        return cls.of(rows, rows / batch, round(rows * optim.epochs / batch), optim)

    def as_long_as(self, whole: TrainingLength, share: float) -> TrainingLength:
        """The same rows for a share of the steps of another run."""
        return dataclasses.replace(self, steps=max(1, round(whole.steps * share)), cut=whole.cut)

    @property
    def passes(self) -> float:
        """0 where there is no row."""
        return self.steps / self.steps_a_pass if self.steps_a_pass else 0.0

    def facts(self) -> dict[str, int | float | bool]:
        """For a file beside the curve."""
        return {**dataclasses.asdict(self), "passes": self.passes}

    def said(self, model: str) -> str:
        """One line; `model`: its section of the config."""
        steps = "1 step makes" if self.steps == 1 else f"{self.steps:,} steps make"
        line = f"{steps} {self.passes:,.3g} passes over {self.rows:,} rows"
        if not self.cut:
            return line
        return f"{line}: {model}.optim.max_steps cuts {model}.optim.epochs = {self.epochs:g}; raise it to train longer"
