"""`ceiling`: what the device reaches at best, a copy and square matrix products, to hold other rates against."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from pr2_jax.bench.harness import Measured, time_steps

PRODUCTS = {"float32": ("float32", None), "float32, exact": ("float32", "highest"), "bfloat16": ("bfloat16", None)}
"""By variant: the type of the factors, and the precision (None: the device's own, on GPUs TF32)."""


def run(repeats: int, floats: int = 1 << 28, side: int = 8_192) -> Iterator[Measured]:
    """A copy of `floats` numbers, then products of two `side` x `side` matrices."""
    numbers = jnp.ones(floats, jnp.float32)
    yield _measure("copy", jax.jit(lambda x: x + 1), numbers, {"floats": floats}, 8 * floats, 0, repeats)
    for name, (kind, precision) in PRODUCTS.items():
        factor = jax.random.normal(jax.random.key(0), (side, side)).astype(kind)
        product = jax.jit(functools.partial(_product, precision=precision))
        must_bytes = 3 * factor.nbytes
        yield _measure(name, product, factor, {"side": side}, must_bytes, 2 * side**3, repeats)


def _product(factor: jax.Array, precision: str | None) -> jax.Array:
    return jnp.matmul(factor, factor, precision=precision)


def _measure(
    variant: str, fn: Callable, given: jax.Array, size: dict[str, int], must_bytes: int, must_flops: int, repeats: int
) -> Measured:
    compile_s, seconds, _ = time_steps(lambda _, x: fn(x), None, [given], repeats)
    return Measured("ceiling", variant, size, len(given), compile_s, seconds, must_bytes, must_flops)
