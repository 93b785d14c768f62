"""A catalogue of 20 videos and the spaces that stages leave on disk for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import ContentConfig
from pr2_jax.encoders.batching import all_videos
from pr2_jax.encoders.space_encoders import ContentEncoder
from pr2_jax.models.content import ContentTask
from pr2_jax.models.model_functions import content_functions
from pr2_jax.search.system import System
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.embedding_tables import init_tables

WIDTH = 8


@pytest.fixture(scope="session")
def sizes() -> dict[str, int]:
    """Rows of the tables."""
    return {"video": 20, "word": 15, "author": 5, "category": 6}


@pytest.fixture(scope="session")
def catalogue() -> dict[str, jax.Array]:
    rng = np.random.default_rng(3)
    arrays = {
        "caption": rng.integers(0, 15, (20, 3)),
        "author": rng.integers(0, 5, 20),
        "category": rng.integers(0, 6, (20, 4)),
        "numbers": rng.normal(size=(20, 4)),
    }
    return {name: jnp.asarray(x, jnp.float32 if name == "numbers" else jnp.int32) for name, x in arrays.items()}


@pytest.fixture(scope="session")
def fresh():
    """Parameters and tables of a task as they are before training."""
    return lambda task: jax.jit(lambda key: (task.init(key), init_tables(task.table_specs(), key)))(jax.random.key(2))


@pytest.fixture(scope="session")
def content(catalogue, fresh, tmp_path_factory):
    """A content space on disk, as its stage leaves it."""
    task = ContentTask(ContentConfig(width=WIDTH, hidden=8), catalogue, {"word": 15, "author": 5, "category": 6})
    directory = tmp_path_factory.mktemp("content")
    weights = fresh(task)
    save_params(directory, weights)
    functions = content_functions(task, *weights)
    np.save(directory / "video_vectors.npy", all_videos(functions["content_video"], 20))
    return task, weights, ContentEncoder(functions, directory), directory


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture(scope="module")
def moments(system) -> tuple[np.ndarray, np.ndarray]:
    """Some people at the time of one of their events, one of them before anything happened, and the unknown person."""
    e = system.store.events
    rows = np.random.default_rng(2).integers(0, system.store.counts.events, 20)
    user, time_ms = np.asarray(e.user)[rows].astype(np.int64), np.asarray(e.time_ms)[rows]
    return np.r_[user, user[0], 0], np.r_[time_ms, 0, time_ms.max()]
