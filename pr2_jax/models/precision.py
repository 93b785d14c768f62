"""Mixed precision: parameters, rows and losses are float32; what lies between may be computed in bfloat16.

Casting the inputs of a model is enough: flax layers compute in the type of what they are given. Gradients come back
through the cast as float32. Softmaxes, norms' statistics and scores stay float32 (models/layers.py).
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Tree = TypeVar("Tree")
EXACT = "gap"
"""Arrays with this in their name keep float32: bfloat16 would move times over a bucket's edge."""


def lowered(tree: Tree, compute: str) -> Tree:
    """The tree with its float32 arrays in the type named by a config's `compute`."""
    if compute == "float32":
        return tree

    def cast(path: tuple, x: Array) -> Array:
        keep = x.dtype != jnp.float32 or any(EXACT in str(key) for key in path)
        return x if keep else x.astype(compute)

    return jax.tree_util.tree_map_with_path(cast, tree)
