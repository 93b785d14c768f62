"""The loop: deterministic, resumable bit for bit, and loud when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.training.checkpoint import Checkpoints
from pr2_jax.training.loop import fit, init_state, make_step, prefetch

STEPS = 10


def test_one_step_is_what_it_says(toy, batch_at, optim):
    """Gradient descent written out: the loss falls, only rows of the batch move, the first step is all warm-up."""
    state, step = init_state(toy, optim, STEPS), make_step(toy, optim, STEPS)
    before = jax.tree.map(np.array, (state.params, state.tables))
    state, metrics = step(state, toy.frozen, batch_at(0))
    after = jax.tree.map(np.array, (state.params, state.tables))
    assert set(metrics) == {"loss", "bias"}
    assert int(state.step) == 1
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    state, _ = step(state, toy.frozen, batch_at(0))
    moved = np.any(np.asarray(state.tables["item"]) != before[1]["item"], axis=1)
    assert moved.tolist() == (np.isin(np.arange(512), batch_at(0)["item_B"]) & (np.arange(512) > 0)).tolist()
    assert np.array_equal(state.tables["other"], before[1]["other"])


def test_it_learns(toy, optim):
    fixed = {"item_B": np.arange(1, 5, dtype=np.int32), "label_B": np.ones(4, np.float32)}
    state, step = init_state(toy, optim, 100), make_step(toy, optim, 100)
    losses = []
    for _ in range(100):
        state, metrics = step(state, toy.frozen, fixed)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.02 * losses[0]


def test_one_seed_one_model(toy, batch_at, optim, same, tmp_path):
    one = fit(toy, batch_at, optim, steps=STEPS, directory=_made(tmp_path / "a"))
    two = fit(toy, batch_at, optim, steps=STEPS, directory=_made(tmp_path / "b"))
    assert same(one, two)
    assert (tmp_path / "a" / "curve.jsonl").read_text() == (tmp_path / "b" / "curve.jsonl").read_text()
    reseeded = dataclasses.replace(optim, seed=4)
    other = fit(toy, batch_at, reseeded, steps=STEPS, directory=_made(tmp_path / "c"))
    assert not same(one, other)


@pytest.mark.parametrize("stopped_at", [3, 4, 9])
def test_stopped_and_resumed_is_unbroken(stopped_at, toy, batch_at, optim, same, tmp_path):
    """Parameters, tables, both optimisers, the step, the dropout key and the position in the data."""
    unbroken = fit(toy, batch_at, optim, steps=STEPS, directory=_made(tmp_path / "unbroken"))
    broken = _made(tmp_path / "broken")
    part = fit(toy, batch_at, optim, steps=STEPS, until=stopped_at, directory=broken)
    assert int(part.step) == stopped_at
    asked = []

    def watched(step):
        asked.append(step)
        return batch_at(step)

    resumed = fit(toy, watched, optim, steps=STEPS, directory=broken)
    assert same(unbroken, resumed)
    assert asked == list(range(stopped_at, STEPS))


def test_killed_between_checkpoints(toy, batch_at, optim, same, tmp_path):
    """Saved at 4; dies while building batch 6; the second run starts from 4 again and ends as if unbroken."""
    unbroken = fit(toy, batch_at, optim, steps=STEPS, directory=_made(tmp_path / "unbroken"))
    broken = _made(tmp_path / "broken")

    def dying(step):
        if step == 6:
            raise KeyboardInterrupt
        return batch_at(step)

    with pytest.raises(KeyboardInterrupt):
        fit(toy, dying, optim, steps=STEPS, directory=broken)
    checkpoints = Checkpoints(broken)
    assert checkpoints.steps[-1] == 4
    checkpoints.close()
    assert same(unbroken, fit(toy, batch_at, optim, steps=STEPS, directory=broken))


def test_a_finished_run_is_read_back(toy, batch_at, optim, same, tmp_path):
    done = fit(toy, batch_at, optim, steps=STEPS, directory=_made(tmp_path / "run"))

    def never(step):
        raise AssertionError(f"batch {step} of a finished run")

    assert same(done, fit(toy, never, optim, steps=STEPS, directory=tmp_path / "run"))


def test_curve_forgets_what_a_killed_run_logged_too_far(toy, batch_at, optim, tmp_path):
    directory = _made(tmp_path / "run")
    fit(toy, batch_at, optim, steps=60, until=25, directory=directory)
    with (directory / "curve.jsonl").open("a") as file:
        file.write(json.dumps({"step": 40, "loss": 0.0, "bias": 0.0}) + '\n{"step": 2')  # and the last line torn
    fit(toy, batch_at, optim, steps=60, directory=directory)
    lines = [json.loads(line) for line in (directory / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 25, 40, 60]
    assert all(line["loss"] > 0 for line in lines)


@pytest.mark.parametrize("bad_step", [0, 3, 6])
def test_a_loss_that_is_not_finite_names_its_step(bad_step, toy, batch_at, optim, tmp_path):
    """`bad_step` counts from 0, the message from 1. Nothing that the bad batch touched is ever saved."""
    directory = _made(tmp_path / "run")

    def poisoned(step):
        batch = batch_at(step)
        if step == bad_step:
            batch["label_B"][1] = np.nan
        return batch

    with pytest.raises(FloatingPointError, match=rf"loss is nan at step {bad_step + 1}; that step's batch is in "):
        fit(toy, poisoned, optim, steps=STEPS, directory=directory)
    with np.load(directory / f"bad_batch_{bad_step + 1}.npz") as saved:
        assert np.isnan(saved["label_B"][1])
        assert np.array_equal(saved["item_B"], batch_at(bad_step)["item_B"])
    checkpoints = Checkpoints(directory)
    latest = max(checkpoints.steps, default=None)
    checkpoints.close()
    assert latest == (4 if bad_step >= 4 else None)


def test_prefetch_keeps_order_and_hands_errors_over():
    def failing(step: int) -> dict[str, np.ndarray]:
        if step == 5:
            raise ValueError("batch 5 is broken")
        return {"step": np.array(step)}

    batches = prefetch(failing, 2, 9)
    got = []
    with pytest.raises(ValueError, match="batch 5 is broken"):
        got.extend(int(batch["step"]) for batch in batches)
    assert list(prefetch(failing, 3, 3)) == []
    assert [int(batch["step"]) for batch in prefetch(failing, 0, 5)] == [0, 1, 2, 3, 4]


def test_prefetch_stops_its_thread_when_left_early():
    batches = prefetch(lambda step: {"step": np.array(step)}, 0, 1_000)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def _made(directory):
    directory.mkdir()
    return directory


def test_tasks_alike_share_one_program(toy, batch_at, optim):
    """Whatever their frozen arrays hold, which are told to the program; another shape or config has its own."""
    step = make_step(toy, optim, STEPS)
    other = dataclasses.replace(toy, frozen=toy.frozen + 1)
    assert make_step(other, optim, STEPS) is step
    for changed in (dataclasses.replace(toy, rows=9), dataclasses.replace(toy, frozen=jnp.zeros(8))):
        assert make_step(changed, optim, STEPS) is not step
    assert make_step(toy, dataclasses.replace(optim, seed=4), STEPS) is not step
    assert make_step(toy, optim, STEPS + 1) is not step
    offsets = []
    for task in (toy, other):
        _, metrics = step(init_state(task, optim, STEPS), task.frozen, batch_at(0))
        offsets.append(float(metrics["bias"]))
    assert offsets[1] == pytest.approx(offsets[0] + 1, abs=1e-5)
