"""Length of a training run: the steps that it makes, the passes that they are, and what cuts them."""

from __future__ import annotations

import dataclasses

import pytest

from pr2_jax.config import OptimConfig
from pr2_jax.data.batches.training_length import TrainingLength


def length(rows: int, batch: int, epochs: float, max_steps: int) -> TrainingLength:
    return TrainingLength.in_batches(rows, batch, OptimConfig(batch=batch, epochs=epochs, max_steps=max_steps))


def test_steps():
    assert length(100, 10, 2.5, 1_000).steps == 25
    assert length(100, 10, 2.5, 7).steps == 7
    assert length(0, 10, 1.0, 7).steps == 1


def test_as_many_steps_as_asked_are_not_cut():
    whole = length(1_234, 10, 2.5, 1_000)
    assert whole.said("pdr") == "308 steps make 2.5 passes over 1,234 rows"
    assert not length(100, 10, 2.5, 25).cut
    assert length(100, 10, 2.5, 24).cut


def test_a_cut_is_said_in_one_line_with_its_field():
    """Content at KuaiSAR's size."""
    cut = length(6_900_000, 256, 24.0, 20_000)
    assert cut.said("content") == (
        "20,000 steps make 0.742 passes over 6,900,000 rows: content.optim.max_steps cuts "
        "content.optim.epochs = 24; raise it to train longer"
    )
    assert cut.facts() == {
        "steps": 20_000, "rows": 6_900_000, "steps_a_pass": 6_900_000 / 256, "epochs": 24.0, "cut": True,
        "passes": pytest.approx(0.742, abs=1e-3),
    }  # fmt: skip


def test_a_pass_of_unequal_batches():
    """Timelines: the last chunk of a pass is short, so that a pass over 25 rows takes three steps of 10."""
    assert TrainingLength.of(25, 3, 6, OptimConfig(epochs=2.0)).passes == 2


def test_without_rows_there_is_no_pass():
    assert length(0, 10, 1.0, 7).said("pdr") == "1 step makes 0 passes over 0 rows"


def test_a_fold_trains_for_its_share_and_counts_its_own_rows():
    whole = length(1_000, 10, 4.0, 100)
    fold = length(600, 10, 4.0, 100_000).as_long_as(whole, 0.6)
    assert (fold.steps, fold.passes, fold.cut) == (60, 1.0, True)
    assert fold.as_long_as(dataclasses.replace(whole, steps=1), 0.1).steps == 1
