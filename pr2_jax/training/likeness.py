"""Programs shared by tasks that are alike, so that JAX traces and compiles each of them once in a process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

KEPT = 16
"""Programs of each kind, the last ones asked for."""


@dataclasses.dataclass(frozen=True)
class _Alike:
    """A task with the shapes of its frozen arrays in their place. Equal where class, config, sizes and shapes are."""

    kind: type
    said: str
    task: Any = dataclasses.field(compare=False)


def shared(make: Callable) -> Callable:
    """`make(task, ...)`, called once for all tasks alike: folds of a model, and the model opened again.

    What it makes may read the task's config and the shapes of its frozen arrays. The arrays themselves it must take as
    arguments, which keeps them out of the program and out of this memory.
    """
    kept = functools.lru_cache(KEPT)(lambda like, *rest: make(like.task, *rest))

    @functools.wraps(make)
    def once(task: Any, *rest: Any) -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), task.frozen)
        task = dataclasses.replace(task, frozen=shapes)
        return kept(_Alike(type(task), repr(task), task), *rest)

    return once
