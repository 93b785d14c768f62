"""Random catalogues, batches and tasks of any size. Ids are uniform, the worst case for caches; histories are full."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax.config import OptimConfig, PdrConfig, QinConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.qin import QinTask

HostBatch = dict[str, np.ndarray]
PROFILE_SIZES = (8, 16, 32)
FEATURES = 28
"""Counters that QIN reads about each result."""
CATEGORIES, LEVELS = 600, 4
PREFERENCE_WIDTH = 16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the catalogue and of requests."""

    videos: int = 1_000_000
    words: int = 100_000
    authors: int = 50_000
    query_tokens: int = 8
    caption_tokens: int = 24
    slate: int = 10

    @property
    def tables(self) -> dict[str, int]:
        return {"video": self.videos, "word": self.words, "author": self.authors, "category": CATEGORIES}


def pdr_config() -> PdrConfig:
    """The benchmark's config of PDR."""
    optim = OptimConfig(batch=1_024, table_optimizer="row_adagrad")
    return PdrConfig(width=64, history=100, uniform_negatives=1_024, hard_negatives=2, optim=optim)


def qin_config() -> QinConfig:
    """The benchmark's config of QIN."""
    optim = OptimConfig(batch=512, table_optimizer="row_adagrad")
    sizes = {"history": 1_000, "keep_query": 100, "keep_video": 50, "realtime": 50}
    return QinConfig(width=64, experts=8, expert_width=128, optim=optim, **sizes)


def unit_rows(key: jax.Array, rows: int, width: int) -> jax.Array:
    """Random unit vectors."""
    drawn = jax.random.normal(key, (rows, width))
    return drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)


def catalogue(sizes: Sizes, width: int) -> dict[str, jax.Array]:
    """Frozen arrays, as models/model_functions.py makes them from a log."""
    keys, videos = jax.random.split(jax.random.key(0), 8), sizes.videos
    return {
        "caption": jax.random.randint(keys[0], (videos, sizes.caption_tokens), 1, sizes.words),
        "author": jax.random.randint(keys[1], (videos,), 1, sizes.authors),
        "category": jax.random.randint(keys[2], (videos, LEVELS), 1, CATEGORIES),
        "numbers": jax.random.normal(keys[3], (videos, 2)),
        "content": unit_rows(keys[4], videos, width),
        "preference": jax.random.normal(keys[5], (videos, PREFERENCE_WIDTH)),
        "log_unigram": jnp.full(videos, -np.log(videos), jnp.float32),
    }


def pdr_task(config: PdrConfig, sizes: Sizes) -> PdrTask:
    """PDR on a random catalogue."""
    return PdrTask(config, catalogue(sizes, config.width), sizes.tables, PROFILE_SIZES)


def qin_task(config: QinConfig, sizes: Sizes) -> QinTask:
    """QIN on a random catalogue."""
    every = catalogue(sizes, config.width)
    frozen = {name: every[name] for name in ("content", "author", "category")}
    return QinTask(config, frozen, sizes.tables, PROFILE_SIZES, FEATURES)


def pdr_batch(config: PdrConfig, sizes: Sizes, seed: int) -> HostBatch:
    """A batch of PDR."""
    rng, batch = np.random.default_rng(seed), config.optim.batch
    videos = functools.partial(rng.integers, 1, sizes.videos, dtype=np.int32)
    return _request(rng, batch, sizes, config.width) | {
        "preference_BxD": rng.normal(size=(batch, PREFERENCE_WIDTH)).astype(np.float32),
        "video_B": videos(batch),
        "shown_B": videos(batch),
        "uniform_N": videos(config.uniform_negatives),
        "hard_BxK": videos((batch, config.hard_negatives)),
        "feedback_BxT": np.tile(np.array([[1, 0, 0]], np.float32), (batch, 1)),
        "session_B": np.arange(batch, dtype=np.int32),
        "history_BxH": videos((batch, config.history)),
        **_events(rng, batch, config.history, "signals_BxHxG", "gap_seconds_BxH"),
    }


def qin_batch(config: QinConfig, sizes: Sizes, seed: int) -> HostBatch:
    """A batch of slates."""
    rng, batch, slate = np.random.default_rng(seed), config.optim.batch, sizes.slate
    videos = functools.partial(rng.integers, 1, sizes.videos, dtype=np.int32)
    return _request(rng, batch, sizes, config.width) | {
        "is_feed_B": np.zeros(batch, np.float32),
        "video_BxS": videos((batch, slate)),
        "position_BxS": np.tile(np.arange(slate, dtype=np.int32), (batch, 1)),
        "features_BxSxF": rng.normal(size=(batch, slate, FEATURES)).astype(np.float32),
        "label_BxSxT": (rng.random((batch, slate, 3)) < 0.2).astype(np.float32),
        "weight_BxSxT": np.ones((batch, slate, 3), np.float32),
        "history_BxH": videos((batch, config.history)),
        "recent_BxR": videos((batch, config.realtime)),
        **_events(rng, batch, config.history, "signals_BxHxG", "gap_seconds_BxH"),
        **_events(rng, batch, config.realtime, "recent_signals_BxRxG", "recent_gap_BxR"),
    }


def _request(rng: np.random.Generator, batch: int, sizes: Sizes, width: int) -> HostBatch:
    content_BxD = rng.normal(size=(batch, width)).astype(np.float32)
    return {
        "words_BxQ": rng.integers(1, sizes.words, (batch, sizes.query_tokens), dtype=np.int32),
        "query_content_BxD": content_BxD / np.linalg.norm(content_BxD, axis=1, keepdims=True),
        "profile_BxP": np.stack([rng.integers(0, size, batch) for size in PROFILE_SIZES], 1).astype(np.int32),
    }


def _events(rng: np.random.Generator, batch: int, length: int, signals: str, gap: str) -> HostBatch:
    return {
        signals: rng.random((batch, length, len(SIGNALS))).astype(np.float32),
        gap: rng.exponential(86_400.0, (batch, length)).astype(np.float32),
    }
