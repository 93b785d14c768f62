"""`qrcf`: the filter of long histories to seeds, alone and with the walk to neighbours. A row is a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.bench.synthetic import unit_rows
from pr2_jax.models.qrcf_arithmetic import filter_ids, walk

REQUESTS, HISTORY, WIDTH, SEEDS, NEIGHBOURS = 1_024, 1_000, 64, 20, 50
VIDEOS = 1_000_000
RESULTS = 100
EPSILON, GAMMA = np.float32(0.05), np.float32(2.0)
INPUTS = 3


def run(repeats: int) -> Iterator[Measured]:
    """The filter, then filter and walk."""
    key = jax.random.key(0)
    content_VxD = unit_rows(key, VIDEOS, WIDTH)
    inputs = [_requests(seed) for seed in range(INPUTS)]

    # Ids, weights and content vectors of the history.
    must_bytes, must_flops = REQUESTS * HISTORY * (4 + 4 + 4 * WIDTH), 2 * REQUESTS * HISTORY * WIDTH
    yield _measure("filter", _filter, (content_VxD,), inputs, repeats, must_bytes, must_flops)
    neighbour_VxM = jax.random.randint(key, (VIDEOS, NEIGHBOURS), 1, VIDEOS)
    similarity_VxM = jax.random.uniform(key, (VIDEOS, NEIGHBOURS))
    catalogue, reached = (content_VxD, neighbour_VxM, similarity_VxM), REQUESTS * SEEDS * NEIGHBOURS
    must_bytes, must_flops = must_bytes + 8 * reached, must_flops + 2 * reached
    yield _measure("filter+walk", _filter_and_walk, catalogue, inputs, repeats, must_bytes, must_flops)


def _filter(catalogue, requests):
    return filter_ids(catalogue[0], *requests, EPSILON, GAMMA, SEEDS)


def _filter_and_walk(catalogue, requests):
    _, neighbour_VxM, similarity_VxM = catalogue
    position_BxK, strength_BxK, _ = _filter(catalogue, requests)
    seed_BxK = jnp.take_along_axis(requests[1], position_BxK, axis=1)
    nobody_Bx8 = jnp.full((len(seed_BxK), 8), np.iinfo(np.int32).max, jnp.int32)
    return walk(seed_BxK, strength_BxK, neighbour_VxM, similarity_VxM, nobody_Bx8, RESULTS)


def _requests(seed: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    query_BxD = rng.normal(size=(REQUESTS, WIDTH)).astype(np.float32)
    query_BxD /= np.linalg.norm(query_BxD, axis=1, keepdims=True)
    video_BxH = rng.integers(1, VIDEOS, (REQUESTS, HISTORY), dtype=np.int32)
    weight_BxH = rng.uniform(0.1, 1, (REQUESTS, HISTORY)).astype(np.float32)
    return jnp.asarray(query_BxD), jnp.asarray(video_BxH), jnp.asarray(weight_BxH)


def _measure(
    variant: str, fn: Callable, catalogue: tuple, inputs: list, repeats: int, must_bytes: int, must_flops: int
) -> Measured:
    jitted = jax.jit(fn)
    compile_s, seconds, _ = time_steps(lambda _, given: jitted(catalogue, given), None, inputs, repeats)
    size = {"requests": REQUESTS, "history": HISTORY, "K": SEEDS, "V": VIDEOS}
    return Measured("qrcf", variant, size, REQUESTS, compile_s, seconds, must_bytes, must_flops)
