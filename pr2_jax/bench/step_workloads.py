"""`pdr` and `qin`: whole training steps (forward, gradient, both optimisers) of the two models over a million videos.

A row is a row of the batch: a search with its positive, or a search with the results that it showed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np

from pr2_jax.bench import synthetic
from pr2_jax.bench.cost_model import matmul_flops, remembered_floats, step_bytes
from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.config import OptimConfig
from pr2_jax.training.loop import Task, init_state, make_step
from pr2_jax.training.mesh import everywhere, place, single

BATCHES = 3
"""Distinct batches, taken in turn."""
STEPS = 10_000
"""That the schedule is made for; the run is shorter."""
SLATES = (1, 10)
"""Results a search that `qin` is measured with: one candidate a row, and a slate."""


def pdr(repeats: int, sizes: synthetic.Sizes | None = None) -> Iterator[Measured]:
    """Batch 1,024, history 100, width 64, 1M videos, 100k words, 1,024 uniform and 2 hard negatives a row."""
    sizes, config = sizes or synthetic.Sizes(), synthetic.pdr_config()
    task = synthetic.pdr_task(config, sizes)
    shown = {"batch": config.optim.batch, "history": config.history, "V": sizes.videos}
    batches = [synthetic.pdr_batch(config, sizes, seed) for seed in range(BATCHES)]
    yield measure(task, config.optim, batches, shown, repeats)


def qin(repeats: int, sizes: synthetic.Sizes | None = None) -> Iterator[Measured]:
    """Batch 512 searches, history 1,000 to K1 100 to K2 50, real-time 50, width 64, 8 experts of 128, 1M videos."""
    config = synthetic.qin_config()
    for slate in SLATES:
        of = synthetic.Sizes(slate=slate) if sizes is None else sizes
        task = synthetic.qin_task(config, of)
        shown = {"batch": config.optim.batch, "slate": of.slate, "history": config.history, "V": of.videos}
        batches = [synthetic.qin_batch(config, of, seed) for seed in range(BATCHES)]
        yield measure(task, config.optim, batches, shown, repeats)


def measure(
    task: Task,
    optim: OptimConfig,
    batches: list[dict[str, np.ndarray]],
    shown: dict[str, int],
    repeats: int,
) -> Measured:
    """A task's training step on one device."""
    mesh = single()
    state = init_state(task, optim, STEPS, mesh)
    frozen = everywhere(mesh, task.frozen)
    train: Callable = make_step(task, optim, STEPS, mesh)
    placed = [place(mesh, task.schema, batch) for batch in batches]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, frozen, placed[0]))
    must_flops = matmul_flops(train, *abstract)
    remembered = remembered_floats(state.tables, state.table_opt)
    must_bytes = step_bytes(task, batches[0], state.params, remembered)
    compile_s, seconds, _ = time_steps(lambda state, batch: train(state, frozen, batch)[0], state, placed, repeats)
    return Measured(task.name, optim.table_optimizer, shown, optim.batch, compile_s, seconds, must_bytes, must_flops)
