"""The ground that every test stands on: 8 CPU devices, strict shapes, warnings as errors (pyproject), fixed seeds."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from pr2_jax import console

REPOSITORY = Path(__file__).resolve().parents[1]


def _compilation_cache() -> str:
    """`.cache/jax` of the checkout, kept between runs; a temporary directory where the checkout is read-only."""
    if os.access(REPOSITORY, os.W_OK):
        return str(REPOSITORY / ".cache" / "jax")
    return str(Path(tempfile.gettempdir()) / f"pr2-test-cache-{os.getuid()}")


# Before any array is made: the number of devices is settled by the first one.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", _compilation_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

console.silence_libraries(warnings_too=False)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """For whatever draws from a global generator; ours never do."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY
