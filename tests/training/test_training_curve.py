"""What a run says and leaves of its length."""

from __future__ import annotations

import dataclasses
import json

from pr2_jax.config import OptimConfig
from pr2_jax.data.batches.training_length import TrainingLength
from pr2_jax.training.training_curve import LENGTH, announce


def test_a_length_is_said_and_written_beside_the_curve(tmp_path, capsys):
    length = TrainingLength.in_batches(1_000, 10, OptimConfig(epochs=3.0, max_steps=50))
    announce(length, "pdr", tmp_path)
    told = "pdr: 50 steps make 0.5 passes over 1,000 rows: pdr.optim.max_steps cuts pdr.optim.epochs = 3;"
    assert told in capsys.readouterr().err
    assert json.loads((tmp_path / LENGTH).read_text()) == dataclasses.asdict(length) | {"passes": 0.5}


def test_a_run_without_some_days_says_so(tmp_path, capsys):
    announce(TrainingLength.in_batches(1_000, 10, OptimConfig(epochs=3.0)), "content", tmp_path, held_out=1)
    said = capsys.readouterr().err
    assert "content without fold 1: 300 steps make 3 passes over 1,000 rows" in said
    assert "max_steps" not in said
