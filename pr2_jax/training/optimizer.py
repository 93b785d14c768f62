"""AdamW for dense parameters, Adam without decay for tables, one schedule shape for both."""

from __future__ import annotations

import optax

from pr2_jax.config import OptimConfig


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


def table_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Dense Adam: right for tables of up to some 1e5 rows; its cost grows with the vocabulary."""
    return optax.adam(schedule(config.table_learning_rate, steps, config))
