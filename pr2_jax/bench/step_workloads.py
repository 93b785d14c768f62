"""`pdr` and `qin`: training steps (forward, gradient, optimisers) of the two models. A row is a row of the batch."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from pr2_jax.bench import synthetic
from pr2_jax.bench.harness import Measured, floats_a_row, matmul_flops, step_bytes, time_steps
from pr2_jax.config import OptimConfig, PdrConfig, QinConfig
from pr2_jax.training.loop import Task, init_state, make_step
from pr2_jax.training.mesh import everywhere, place, single

BATCHES = 3
STEPS = 10_000
"""Steps of the learning rate's schedule."""
SLATES = (1, 10)
"""Results a search in the two measurements of `qin`."""


def pdr(repeats: int, sizes: synthetic.Sizes | None = None, config: PdrConfig | None = None) -> Iterator[Measured]:
    """The step of PDR."""
    sizes, config = sizes or synthetic.Sizes(), config or synthetic.pdr_config()
    task = synthetic.pdr_task(config, sizes)
    shown = {"batch": config.optim.batch, "history": config.history, "V": sizes.videos}
    batches = [synthetic.pdr_batch(config, sizes, seed) for seed in range(BATCHES)]
    yield measure(task, config.optim, batches, shown, repeats)


def qin(repeats: int, sizes: synthetic.Sizes | None = None, config: QinConfig | None = None) -> Iterator[Measured]:
    """The step of QIN, for each size of slate."""
    for slate in SLATES:
        of = synthetic.Sizes(slate=slate) if sizes is None else sizes
        yield qin_slate(repeats, of, config or synthetic.qin_config())


def qin_slate(repeats: int, sizes: synthetic.Sizes, config: QinConfig) -> Measured:
    """The step of QIN on slates of one size."""
    task = synthetic.qin_task(config, sizes)
    shown = {"batch": config.optim.batch, "slate": sizes.slate, "history": config.history, "V": sizes.videos}
    batches = [synthetic.qin_batch(config, sizes, seed) for seed in range(BATCHES)]
    return measure(task, config.optim, batches, shown, repeats)


def measure(
    task: Task, optim: OptimConfig, batches: list[dict[str, np.ndarray]], shown: dict[str, int], repeats: int
) -> Measured:
    """A task's training step on one device."""
    mesh = single()
    state, frozen = init_state(task, optim, STEPS, mesh), everywhere(mesh, task.frozen)
    train = make_step(task, optim, STEPS, mesh)
    placed = [place(mesh, task.schema, batch) for batch in batches]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, frozen, placed[0]))
    must_flops = matmul_flops(train, *abstract)
    must_bytes = step_bytes(task, batches[0], state.params, floats_a_row(state.tables, state.table_opt))
    compile_s, seconds, _ = time_steps(lambda state, batch: train(state, frozen, batch)[0], state, placed, repeats)
    return Measured(task.name, optim.table_optimizer, shown, optim.batch, compile_s, seconds, must_bytes, must_flops)
