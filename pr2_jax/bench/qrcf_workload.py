"""`qrcf`: the filter of long histories to seeds, alone and with the walk to neighbours. A row is a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.bench.synthetic import unit_rows
from pr2_jax.models.qrcf_arithmetic import filter_ids, walk

WIDTH, RESULTS = 64, 100
EPSILON, GAMMA = np.float32(0.05), np.float32(2.0)
INPUTS = 3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of requests and of the catalogue."""

    requests: int = 1_024
    history: int = 1_000
    seeds: int = 20
    neighbours: int = 50
    videos: int = 1_000_000


def run(repeats: int, sizes: Sizes | None = None) -> Iterator[Measured]:
    """The filter, then filter and walk."""
    key, of = jax.random.key(0), sizes or Sizes()
    content_VxD = unit_rows(key, of.videos, WIDTH)
    inputs = [_requests(of, seed) for seed in range(INPUTS)]

    # Ids, weights and content vectors of the history.
    views = of.requests * of.history
    must_bytes, must_flops = views * (4 + 4 + 4 * WIDTH), 2 * views * WIDTH
    yield _measure("filter", of, _filter, (content_VxD,), inputs, repeats, must_bytes, must_flops)
    neighbour_VxM = jax.random.randint(key, (of.videos, of.neighbours), 1, of.videos)
    similarity_VxM = jax.random.uniform(key, (of.videos, of.neighbours))
    catalogue, reached = (content_VxD, neighbour_VxM, similarity_VxM), of.requests * of.seeds * of.neighbours
    must_bytes, must_flops = must_bytes + 8 * reached, must_flops + 2 * reached
    yield _measure("filter+walk", of, _filter_and_walk, catalogue, inputs, repeats, must_bytes, must_flops)


def _filter(catalogue, requests, seeds):
    return filter_ids(catalogue[0], *requests, EPSILON, GAMMA, seeds)


def _filter_and_walk(catalogue, requests, seeds):
    _, neighbour_VxM, similarity_VxM = catalogue
    position_BxK, strength_BxK, _ = _filter(catalogue, requests, seeds)
    seed_BxK = jnp.take_along_axis(requests[1], position_BxK, axis=1)
    nobody_Bx8 = jnp.full((len(seed_BxK), 8), np.iinfo(np.int32).max, jnp.int32)
    return walk(seed_BxK, strength_BxK, neighbour_VxM, similarity_VxM, nobody_Bx8, RESULTS)


def _requests(of: Sizes, seed: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    query_BxD = rng.normal(size=(of.requests, WIDTH)).astype(np.float32)
    query_BxD /= np.linalg.norm(query_BxD, axis=1, keepdims=True)
    video_BxH = rng.integers(1, of.videos, (of.requests, of.history), dtype=np.int32)
    weight_BxH = rng.uniform(0.1, 1, (of.requests, of.history)).astype(np.float32)
    return jnp.asarray(query_BxD), jnp.asarray(video_BxH), jnp.asarray(weight_BxH)


def _measure(
    variant: str, of: Sizes, fn: Callable, catalogue: tuple, inputs: list, repeats: int, must_bytes: int,
    must_flops: int,
) -> Measured:  # fmt: skip
    jitted = jax.jit(fn, static_argnums=2)
    compile_s, seconds, _ = time_steps(lambda _, given: jitted(catalogue, given, of.seeds), None, inputs, repeats)
    size = {"requests": of.requests, "history": of.history, "K": of.seeds, "V": of.videos}
    return Measured("qrcf", variant, size, of.requests, compile_s, seconds, must_bytes, must_flops)
