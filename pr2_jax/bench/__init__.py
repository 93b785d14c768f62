"""Named workloads, timed: `pr2 bench NAME`. Imports nothing beyond jax, flax, optax, orbax and numpy."""
