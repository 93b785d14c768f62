"""AdamW for dense parameters, a choice for tables (never with decay), one schedule shape for both."""

from __future__ import annotations

import optax

from pr2_jax.config import OptimConfig
from pr2_jax.training.sparse import DenseTables, LazyAdam, RowAdagrad, SparseTables, TableOptimizer


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


def table_optimizer(config: OptimConfig) -> TableOptimizer:
    """What `config.table_optimizer` names. The learning rate comes with each step (`schedule`)."""
    return {"row_adagrad": SparseTables(RowAdagrad()), "lazy_adam": SparseTables(LazyAdam()), "adam": DenseTables()}[
        config.table_optimizer
    ]
