"""`exact search`: the best videos of a block of requests, every video compared. A row is a request."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.bench.synthetic import unit_rows
from pr2_jax.retrieval.ann import BATCH, ExactSearch

INPUTS = 3


def run(repeats: int, videos: int = 7_000_000, width: int = 64, results: int = 100) -> Iterator[Measured]:
    """A block of `BATCH` requests from host to host, as the index answers it."""
    search = ExactSearch(np.asarray(unit_rows(jax.random.key(0), videos, width)))
    inputs = [np.random.default_rng(seed).normal(size=(BATCH, width)).astype(np.float32) for seed in range(INPUTS)]

    def step(_: None, query_BxD: np.ndarray) -> None:
        search.search(query_BxD, results)

    compile_s, seconds, _ = time_steps(step, None, inputs, repeats)
    # Every vector is read once, and the scores need not leave the chip.
    must_bytes = 4 * width * (videos + BATCH) + 8 * BATCH * results
    size = {"requests": BATCH, "V": videos, "D": width, "K": results}
    return iter([Measured("search", "exact", size, BATCH, compile_s, seconds, must_bytes, 2 * BATCH * videos * width)])
