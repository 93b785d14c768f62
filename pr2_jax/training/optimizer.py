"""AdamW for dense parameters, a choice for tables (never with decay), one schedule shape for both."""

from __future__ import annotations

from collections.abc import Mapping

import optax

from pr2_jax.config import OptimConfig
from pr2_jax.training.embedding_tables import TableSpec
from pr2_jax.training.row_updates import DenseTable, LazyAdam, RowAdagrad, SparseTable, TableOptimizer

TABLE_OPTIMIZERS: dict[str, TableOptimizer] = {
    "row_adagrad": SparseTable(RowAdagrad()),
    "lazy_adam": SparseTable(LazyAdam()),
    "adam": DenseTable(),
}
"""By the names that a config may give."""


def schedule(peak: float, steps: int, config: OptimConfig) -> optax.Schedule:
    """Linear warm-up, cosine fall to a fiftieth of the peak."""
    warmup = max(1, round(config.warmup_share * steps))
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(steps, warmup + 1), peak / 50)


def dense_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """For everything but tables."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule(config.learning_rate, steps, config), weight_decay=config.weight_decay),
    )


def table_optimizers(config: OptimConfig, specs: Mapping[str, TableSpec]) -> dict[str, TableOptimizer]:
    """What each table's own config names, or else `config.table_optimizer`."""
    return {name: TABLE_OPTIMIZERS[spec.config.optimizer or config.table_optimizer] for name, spec in specs.items()}


def table_schedules(config: OptimConfig, specs: Mapping[str, TableSpec], steps: int) -> dict[str, optax.Schedule]:
    """The learning rate of each table: its own config's, or else `config.table_learning_rate`."""
    peaks = {name: spec.config.learning_rate or config.table_learning_rate for name, spec in specs.items()}
    return {name: schedule(peak, steps, config) for name, peak in peaks.items()}
