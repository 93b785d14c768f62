"""The training loop of all models: batch -> loss -> gradients -> update.

`batch_at(step)` is a pure function of the step number: a resumed run sees the batches of the unbroken one.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from pr2_jax import console
from pr2_jax.config import OptimConfig
from pr2_jax.training import embedding_tables as row_tables
from pr2_jax.training import mesh as meshes
from pr2_jax.training import resource_limits
from pr2_jax.training.checkpoint import Checkpoints
from pr2_jax.training.embedding_tables import Lookups, Rows, TableOptimizer, Tables, TableSpec
from pr2_jax.training.mesh import Schema
from pr2_jax.training.resource_limits import Stopping
from pr2_jax.training.training_curve import Curve

Params = Any
Batch = dict[str, Array]
Frozen = Any
Metrics = dict[str, Array]
HostBatch = dict[str, np.ndarray]
PyTree = Any
BatchAt = Callable[..., HostBatch]
"""(step) -> the batch; (step, rows) -> these rows of it, where each process brings its share."""

KEPT = 16
"""Programs of each kind that are kept for like tasks."""


@dataclasses.dataclass(frozen=True)
class _Alike:
    """A task with shapes for its frozen arrays. Equal where class, config, sizes and shapes are."""

    kind: type
    said: str
    task: Any = dataclasses.field(compare=False)


def shared(make: Callable) -> Callable:
    """Caches `make(task, ...)` by a task's config and shapes: folds of a model share programs.

    `make` sees the shapes of the task's frozen arrays only. A program takes the arrays themselves as arguments.
    """
    kept = functools.lru_cache(KEPT)(lambda like, *rest: make(like.task, *rest))

    @functools.wraps(make)
    def once(task: Any, *rest: Any) -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), task.frozen)
        task = dataclasses.replace(task, frozen=shapes)
        return kept(_Alike(type(task), repr(task), task), *rest)

    return once


class Task(Protocol):
    """A model to be trained. `loss` gets rows, never tables."""

    name: str
    frozen: Frozen
    """Arrays that no gradient reaches (content vectors, video attributes). They are an argument of the jitted step:
    closed over, they would become constants of the program."""

    @property
    def schema(self) -> Schema:
        """The arrays of a training batch."""

    def table_specs(self) -> dict[str, TableSpec]:
        """The tables, by name."""

    def init(self, key: Array) -> Params:
        """Dense parameters."""

    def prepare(self, frozen: Frozen, batch: Batch) -> Batch:
        """The batch with all that depends on no parameter: frozen vectors, results of the search units."""

    def lookups(self, batch: Batch) -> Lookups:
        """The ids of the prepared batch that index each table."""

    def loss(self, params: Params, rows: Rows, batch: Batch, rng: Array) -> tuple[Array, Metrics]:
        """Mean loss of the batch, and scalars to log."""


@dataclasses.dataclass(frozen=True)
class DenseTable:
    """Plain Adam over the whole table: the reference, and a choice for small tables."""

    def init(self, table_VxD: Array) -> PyTree:
        return optax.scale_by_adam().init(table_VxD)

    def update(
        self, table_VxD: Array, state: PyTree, ids_N: Array, grad_NxD: Array, rate: Array, mesh: Mesh
    ) -> tuple[Array, PyTree]:
        kept_NxD = jnp.where((ids_N != 0)[:, None], grad_NxD, 0)
        dense_VxD = jnp.zeros_like(table_VxD).at[ids_N].add(kept_NxD, mode="drop")
        direction_VxD, state = optax.scale_by_adam().update(dense_VxD, state)
        return table_VxD - rate * direction_VxD, state


TABLE_OPTIMIZERS: dict[str, TableOptimizer] = {
    "row_adagrad": row_tables.RowAdagrad(),
    "lazy_adam": row_tables.LazyAdam(),
    "adam": DenseTable(),
}
"""By the names that a config may give."""


def schedule(peak: float, steps: int, config: OptimConfig) -> optax.Schedule:
    """Linear warm-up, then cosine decay to a fiftieth of the peak."""
    warmup = max(1, round(config.warmup_share * steps))
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), peak / 50)


def dense_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser of dense parameters."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule(config.learning_rate, steps, config), weight_decay=config.weight_decay),
    )


def table_optimizers(config: OptimConfig, specs: Mapping[str, TableSpec]) -> dict[str, TableOptimizer]:
    """The optimiser of each table: its own config's, or else `config.table_optimizer`."""
    named = {name: spec.config.optimizer or config.table_optimizer for name, spec in specs.items()}
    return {name: TABLE_OPTIMIZERS[optimizer] for name, optimizer in named.items()}


def table_schedules(config: OptimConfig, specs: Mapping[str, TableSpec], steps: int) -> dict[str, optax.Schedule]:
    """The learning rate of each table: its own config's, or else `config.table_learning_rate`."""
    peaks = {name: spec.config.learning_rate or config.table_learning_rate for name, spec in specs.items()}
    return {name: schedule(peak, steps, config) for name, peak in peaks.items()}


class TrainState(flax.struct.PyTreeNode):
    """The state that a step changes."""

    step: Array
    params: Params
    tables: Tables
    dense_opt: optax.OptState
    table_opt: PyTree


def init_state(task: Task, config: OptimConfig, steps: int, mesh: Mesh | None = None) -> TrainState:
    """A fresh state on the mesh (default: one device), a function of `config.seed`."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(task, config, steps, mesh))
    # Jitted: layer by layer it would be some hundreds of programs.
    return jax.jit(_initialiser(task, config, steps), out_shardings=places)(jax.random.key(config.seed))


@shared
def abstract_state(task: Task, config: OptimConfig, steps: int, mesh: Mesh | None = None) -> TrainState:
    """Shapes, types and shardings of a state."""
    shapes = jax.eval_shape(_initialiser(task, config, steps), jax.random.key(config.seed))
    places = state_shardings(shapes, mesh or meshes.single())
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


@shared
def _initialiser(task: Task, config: OptimConfig, steps: int) -> Callable[[Array], TrainState]:
    specs = task.table_specs()

    def init(key: Array) -> TrainState:
        params_key, tables_key = jax.random.split(key)
        params, tables = task.init(params_key), row_tables.init_tables(specs, tables_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            tables=tables,
            dense_opt=dense_optimizer(config, steps).init(params),
            table_opt=row_tables.init_all(table_optimizers(config, specs), tables),
        )

    return init


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Shardings of a state: tables and their optimisers' memory split by rows, the rest replicated."""
    everywhere, by_rows = NamedSharding(mesh, meshes.REPLICATED), NamedSharding(mesh, meshes.BY_ROWS)
    tables, table_opt = jax.tree.map(lambda x: by_rows if x.ndim else everywhere, (state.tables, state.table_opt))
    return jax.tree.map(lambda x: everywhere, state).replace(tables=tables, table_opt=table_opt)


@shared
def make_step(task: Task, config: OptimConfig, steps: int, mesh: Mesh | None = None) -> Callable:
    """The jitted update `(state, frozen, batch) -> (state, metrics)`; it donates the old state's buffers."""
    mesh, seed, specs = mesh or meshes.single(), config.seed, task.table_specs()
    dense_tx, table_txs = dense_optimizer(config, steps), table_optimizers(config, specs)
    schedules = table_schedules(config, specs, steps)

    def step(state: TrainState, frozen, batch) -> tuple[TrainState, dict[str, Array]]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        batch = task.prepare(frozen, batch)
        lookups = task.lookups(batch)

        def objective(params: Params, rows: Rows):
            return task.loss(params, rows, batch, rng)

        (loss, metrics), (dense_grad, row_grad) = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            state.params, row_tables.gather(state.tables, lookups, mesh)
        )
        dense_update, dense_opt = dense_tx.update(dense_grad, state.dense_opt, state.params)
        rates = {name: schedule(state.step) for name, schedule in schedules.items()}
        before = state.tables, state.table_opt
        tables, table_opt = row_tables.update_all(table_txs, *before, lookups, row_grad, rates, mesh)
        params = optax.apply_updates(state.params, dense_update)
        loss = jnp.where(row_tables.astray(specs, lookups), jnp.nan, loss)
        return TrainState(state.step + 1, params, tables, dense_opt, table_opt), {"loss": loss, **metrics}

    return jax.jit(step, donate_argnums=0)


def prefetch(batch_at: BatchAt, first: int, last: int, depth: int = 2) -> Iterator[HostBatch]:
    """Builds batches in a background thread, `depth` ahead; an error there is raised here."""
    thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches")
    ahead = collections.deque(thread.submit(batch_at, step) for step in range(first, min(first + depth, last)))
    try:
        for step in range(first + depth, last + depth):
            if step < last:
                ahead.append(thread.submit(batch_at, step))
            yield ahead.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


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
    """Trains from the latest checkpoint in `directory` up to step `until` (default: all `steps`).

    Trains on `mesh` (default: one device); the checkpoint's mesh may differ. The result is on one device.
    Losses are read one step late so that the device never waits for the host. A loss that is not finite stops the run
    and saves the batch; no step at or after it is saved.
    Raises Stopped after a SIGTERM, once the running step is saved; StaleArtifact where `directory` holds checkpoints of
    another run or none that can be read; BadInput where a batch does not fit the task's schema; Pr2Error where disk or
    device memory runs out.
    """
    until, mesh, schema = steps if until is None else until, mesh or meshes.single(), task.schema
    shapes = abstract_state(task, config, steps, mesh)
    arrays, facts = {"state": shapes, "frozen": task.frozen}, run_facts(task, config, steps, shapes)
    with resource_limits.explained(task.name, directory, arrays), Checkpoints(directory, facts) as checkpoints:
        state = checkpoints.restore(shapes)
        if state is None:
            state = init_state(task, config, steps, mesh)
        else:
            console.log(f"{task.name}: from step {int(state.step)} of {steps}")
        if mesh.size > 1:
            console.log(f"{task.name}: {meshes.described(mesh, state)}")
        first = int(state.step)
        step_fn, curve = make_step(task, config, steps, mesh), Curve(directory / "curve.jsonl", first)
        frozen, size = meshes.everywhere(mesh, task.frozen), None
        if not meshes.whole(mesh):
            size, batch_at = config.batch, functools.partial(batch_at, rows=meshes.local_rows(mesh, config.batch))
        bar = console.Bar(f"train {task.name}", max(until - first, 0), " steps")
        with Stopping(first, steps) as stopping, bar:
            for number, batch in enumerate(prefetch(batch_at, first, until), first + 1):
                meshes.check_batch(task.name, schema, batch, mesh, size)
                arrays["batch"] = batch
                state, metrics = step_fn(state, frozen, meshes.place(mesh, schema, batch))
                stop = stopping.after(number)
                due = stop or number % config.checkpoint_every == 0 or number == until
                curve.add(number, metrics, batch, last=number == until, wait=due)
                bar.advance()
                if due:
                    checkpoints.save(number, state)
                if stop:
                    break
            checkpoints.wait()
            curve.finish()
    return meshes.local_copy(mesh, state)


def run_facts(task: Task, config: OptimConfig, steps: int, state: TrainState) -> dict[str, Any]:
    """Facts that a checkpoint keeps: a run with other facts cannot resume from it. The mesh is none of them."""
    optim = dataclasses.asdict(config)
    del optim["checkpoint_every"]

    def described(tree: PyTree) -> dict[str, str]:
        return {name: f"{x.dtype}{list(x.shape)}" for name, x in resource_limits.by_name(tree).items()}

    return {
        "task": task.name,
        "steps": steps,
        "optim": optim,
        "tables": {name: dataclasses.asdict(spec) for name, spec in task.table_specs().items()},
        "trained": described(state),
        "untrained": described(task.frozen),
    }
