"""Batch -> loss -> gradients -> update. One loop for the content towers, the taste space, PDR and QIN.

`batch_at(step)` is a pure function of the step number, so that the position in the data *is* the step: a resumed run
sees exactly the batches that the unbroken one would have seen.
"""

from __future__ import annotations

import functools
import json
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from pr2_jax import console
from pr2_jax.config import OptimConfig
from pr2_jax.training import optimizer
from pr2_jax.training.checkpoint import Checkpoints
from pr2_jax.training.distributed import alone, is_first
from pr2_jax.training.mesh import (
    BY_ROWS,
    REPLICATED,
    check_batch,
    everywhere,
    local_copy,
    local_rows,
    place,
    single,
    whole,
)
from pr2_jax.training.sparse import gather
from pr2_jax.training.tables import Rows, Tables, init_tables
from pr2_jax.training.task import Params, Task

HostBatch = dict[str, np.ndarray]
PyTree = Any
BatchAt = Callable[..., HostBatch]
"""(step) -> the batch; (step, rows) -> these rows of it, where a process brings its share only."""


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes."""

    step: Array
    params: Params
    tables: Tables
    dense_opt: optax.OptState
    table_opt: PyTree


def init_state(task: Task, config: OptimConfig, steps: int, mesh: Mesh | None = None) -> TrainState:
    """Fresh parameters, placed on the mesh (default: one device); the seed alone decides them."""
    mesh = mesh or single()

    def init(key: Array) -> TrainState:
        params_key, tables_key = jax.random.split(key)
        params, tables = task.init(params_key), init_tables(task.table_specs(), tables_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            tables=tables,
            dense_opt=optimizer.dense_optimizer(config, steps).init(params),
            table_opt=optimizer.table_optimizer(config).init(tables),
        )

    key = jax.random.key(config.seed)
    # One program, where layer by layer would be some hundreds; the forward pass in it is dead code.
    return jax.jit(init, out_shardings=state_shardings(jax.eval_shape(init, key), mesh))(key)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Where each array of a state lives: tables and what belongs to their rows split by rows, the rest everywhere."""
    everywhere, by_rows = NamedSharding(mesh, REPLICATED), NamedSharding(mesh, BY_ROWS)

    def rows(leaf) -> NamedSharding:
        return by_rows if leaf.ndim else everywhere

    placed = jax.tree.map(lambda leaf: everywhere, state)
    return placed.replace(tables=jax.tree.map(rows, state.tables), table_opt=jax.tree.map(rows, state.table_opt))


def make_step(task: Task, config: OptimConfig, steps: int, mesh: Mesh | None = None) -> Callable:
    """The jitted update `(state, frozen, batch) -> (state, metrics)`; the old state's buffers are reused."""
    mesh = mesh or single()
    dense_tx, table_tx = optimizer.dense_optimizer(config, steps), optimizer.table_optimizer(config)
    table_rate = optimizer.schedule(config.table_learning_rate, steps, config)
    seed = config.seed

    def step(state: TrainState, frozen, batch) -> tuple[TrainState, dict[str, Array]]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        batch = task.prepare(frozen, batch)
        lookups = task.lookups(batch)

        def objective(params: Params, rows: Rows):
            return task.loss(params, rows, batch, rng)

        (loss, metrics), (dense_grad, row_grad) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            state.params, gather(state.tables, lookups, mesh)
        )
        dense_update, dense_opt = dense_tx.update(dense_grad, state.dense_opt, state.params)
        tables, table_opt = table_tx.update(
            state.tables, state.table_opt, lookups, row_grad, table_rate(state.step), mesh
        )
        params = optax.apply_updates(state.params, dense_update)
        return TrainState(state.step + 1, params, tables, dense_opt, table_opt), {"loss": loss, **metrics}

    return jax.jit(step, donate_argnums=0)


def prefetch(batch_at: BatchAt, first: int, last: int, depth: int = 2) -> Iterator[HostBatch]:
    """Builds batches in a background thread, `depth` ahead; an error there is raised here."""
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(first, last):
                if stop.is_set():
                    return
                put(batch_at(step))
        except BaseException as error:  # handed over, raised by the consumer
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="batches")
    thread.start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def fit(
    task: Task,
    batch_at: BatchAt,
    config: OptimConfig,
    *,
    steps: int,
    until: int | None = None,
    directory: Path,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains up to step `until` (default: all `steps`), going on from the latest checkpoint in `directory`.

    Trains on `mesh` (default: one device), whatever the mesh of the checkpoint was; what comes back is on one device.
    Losses are read one step late so that the device never waits for the host. A loss that is not finite stops the run,
    names the step and saves the batch; no step at or after it is ever saved.
    """
    until, mesh = steps if until is None else until, mesh or single()
    state = init_state(task, config, steps, mesh)
    checkpoints = Checkpoints(directory)
    try:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state)
            console.log(f"{task.name}: from step {int(state.step)} of {steps}")
        first = int(state.step)
        step_fn, curve = make_step(task, config, steps, mesh), _Curve(directory / "curve.jsonl", first)
        frozen, size = everywhere(mesh, task.frozen), None
        if not whole(mesh):
            size, batch_at = config.batch, functools.partial(batch_at, rows=local_rows(mesh, config.batch))
        with console.Bar(f"train {task.name}", until - first, " steps") as bar:
            for number, batch in enumerate(prefetch(batch_at, first, until), first + 1):
                check_batch(batch, mesh, size)
                state, metrics = step_fn(state, frozen, place(mesh, batch))
                due = number % config.checkpoint_every == 0 or number == until
                curve.add(number, metrics, batch, last=number == until, wait=due)
                bar.advance()
                if due:
                    checkpoints.save(number, state)
    finally:
        checkpoints.close()
    return local_copy(mesh, state)


class _Curve:
    """Keeps each step's metrics on the device and reads them after the next step has been queued."""

    def __init__(self, path: Path, first: int, every: int = 20) -> None:
        self._path, self._every, self._pending = path, every, None
        if not is_first():  # which reads the losses all the same, to stop where all others do
            return
        kept = []
        if path.exists():  # a killed run may have logged past its last checkpoint
            kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= first]
        path.write_text("".join(f"{line}\n" for line in kept))

    def add(self, step: int, metrics: dict[str, Array], batch: HostBatch, *, last: bool, wait: bool) -> None:
        """Reads the step before, and with `wait` this one too: what is about to be saved must be sound."""
        self._flush()
        self._pending = (step, metrics, batch, last or step % self._every == 0)
        if wait:
            self._flush()

    def _flush(self) -> None:
        if self._pending is None:
            return
        (step, metrics, batch, keep), self._pending = self._pending, None
        loss = float(metrics["loss"])
        if not np.isfinite(loss):
            share = "" if alone() else f"_share_{jax.process_index()}"
            saved = self._path.with_name(f"bad_batch_{step}{share}.npz")
            np.savez(saved, **batch)
            raise FloatingPointError(f"loss is {loss} at step {step}; that step's batch is in {saved}")
        if keep and is_first():
            values = {name: float(value) for name, value in metrics.items()}
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
