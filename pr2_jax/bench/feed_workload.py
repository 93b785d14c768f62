"""`feed`: the input pipeline alone, from a memory-mapped log to host batches, compared with the training step.

A row is a row of the batch. Batches are built in this thread; in training they are built in one of their own.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pr2_jax.bench import step_workloads, synthetic
from pr2_jax.bench.harness import Measured, time_steps
from pr2_jax.config import DataConfig, PdrConfig, QinConfig
from pr2_jax.data import columns
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.batches.training_batches import PdrBatches, Positives, QinBatches, SlateReader
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.store.log_store import LogStore, save_store

SHOWN = 10
DAY_MS = 86_400_000
Feed = tuple[Callable[[int], dict[str, np.ndarray]], int]
"""The batch of a step, and the rows of a batch."""


@dataclasses.dataclass(frozen=True)
class Log:
    """Sizes of the log, and the models fed from it (default: the benchmark's)."""

    users: int = 2_000
    events_a_user: int = 1_500
    sessions: int = 40_000
    pdr: PdrConfig | None = None
    qin: QinConfig | None = None

    @property
    def events(self) -> int:
        return self.users * self.events_a_user


def run(repeats: int, sizes: synthetic.Sizes | None = None, log: Log | None = None) -> Iterator[Measured]:
    """For each model the feed, then the step; the feed's note tells how many times as fast it is."""
    sizes, log = sizes or synthetic.Sizes(), log or Log()
    with tempfile.TemporaryDirectory(prefix="pr2-bench-") as place:
        feeds = _feeds(Path(place), sizes, log)
        for name, trained, config in (("pdr", step_workloads.pdr, log.pdr), ("qin", step_workloads.qin, log.qin)):
            step, (batch_at, rows) = list(trained(max(3, repeats // 4), sizes, config))[-1], feeds[name]
            made, inputs = sum(x.nbytes for x in batch_at(0).values()), range(1, 4 * repeats + 4)
            _, seconds, _ = time_steps(lambda _, step, at=batch_at: at(step), None, inputs, 4 * repeats)
            size = {"batch": rows, "events": log.events}
            fed = Measured("feed", name, size, rows, 0.0, seconds, 2 * made, 0)
            yield dataclasses.replace(fed, note=f"{step.step_s / fed.step_s:.1f} x what training takes")
            yield step


def _feeds(place: Path, sizes: synthetic.Sizes, log: Log) -> dict[str, Feed]:
    save_store(_store(sizes, log), place / "store", {}, {})
    store, data = LogStore.open(place / "store"), DataConfig()
    reader = EventReader(store, LongPlay.fit(store, store.cuts.validation_ms, data))
    pdr, qin = log.pdr or synthetic.pdr_config(), log.qin or synthetic.qin_config()
    queries_NqxD = np.random.default_rng(1).normal(size=(store.counts.queries, pdr.width)).astype(np.float32)

    search = search_slates(store, training_sessions(store), sizes.slate)
    feed = feed_slates(reader, 0, store.cuts.validation_ms, sizes.slate)
    features = [np.zeros((*part.video_NxS.shape, synthetic.FEATURES), np.float32) for part in (search, feed)]
    slates = QinBatches(SlateReader(reader, queries_NqxD, qin, data), search, features[0], feed, features[1], qin)
    positives = Positives.of(reader, pdr)
    people_PxD = np.zeros((len(positives), synthetic.PREFERENCE_WIDTH), np.float32)
    engaged = PdrBatches(reader, positives, queries_NqxD, people_PxD, pdr, data)
    return {"pdr": (engaged, pdr.optim.batch), "qin": (slates, qin.optim.batch)}


def _store(sizes: synthetic.Sizes, log: Log) -> LogStore:
    """A random log of twenty days in memory, in which all people have full histories."""
    rng, users, sessions = np.random.default_rng(0), log.users, log.sessions
    end_ms, queries = 20 * DAY_MS, 5_000

    def some(*shape: int, below: int) -> np.ndarray:
        return rng.integers(1, below, shape, dtype=np.int32)

    def ragged(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(0, rows * width + 1, width), some(rows * width, below=sizes.words)

    first_word, words = ragged(sizes.videos, sizes.caption_tokens)
    query_words = ragged(queries, sizes.query_tokens)
    profile = np.stack([some(users + 1, below=size) for size in synthetic.PROFILE_SIZES], axis=1)
    counts = columns.Counts(
        users=users + 1, videos=sizes.videos, words=sizes.words, queries=queries, authors=sizes.authors,
        categories=synthetic.CATEGORIES, kinds=2, sources=2, sessions=sessions, impressions=sessions * SHOWN,
        events=log.events,
    )  # fmt: skip
    return LogStore(
        users=columns.Users(
            np.arange(users + 1), profile, synthetic.PROFILE_SIZES,
            np.r_[0, 0, np.arange(1, users + 1) * log.events_a_user],
        ),
        videos=columns.Videos(
            np.arange(sizes.videos), some(sizes.videos, below=sizes.authors),
            some(sizes.videos, synthetic.LEVELS, below=synthetic.CATEGORIES), some(sizes.videos, below=2),
            np.zeros(sizes.videos, np.int64), first_word, words, None,
        ),
        queries=columns.Queries(*query_words),
        events=_events(rng, log, sizes.videos, end_ms),
        sessions=columns.Sessions(
            np.arange(sessions), some(sessions, below=users + 1), some(sessions, below=queries),
            np.sort(rng.integers(15 * DAY_MS, end_ms, sessions)), some(sessions, below=2),
            np.arange(0, sessions * SHOWN + 1, SHOWN),
        ),
        impressions=columns.Impressions(
            some(sessions * SHOWN, below=sizes.videos), np.tile(np.arange(SHOWN, dtype=np.int32), sessions),
            (rng.random(sessions * SHOWN) < 0.2).astype(np.int32),
        ),
        words=columns.Words(np.arange(sizes.words), [None] * sizes.words),
        counts=counts,
        cuts=columns.Cuts(0, end_ms - 2 * DAY_MS, end_ms - DAY_MS, end_ms),
        source_names=("search",),
        kind_names=("video",),
        fingerprint="synthetic",
    )  # fmt: skip


def _events(rng: np.random.Generator, log: Log, videos: int, end_ms: int) -> columns.Events:
    """Events, equally many of each person, at uniform times."""
    events, rates = log.events, {"click": 0.8, "like": 0.1, "follow": 0.02, "forward": 0.02}
    duration_ms = rng.integers(5_000, 60_000, events)
    play_ms = (duration_ms * rng.random(events)).astype(np.int64)
    time_ms = np.sort(rng.integers(0, end_ms, (log.users, log.events_a_user)), axis=1).reshape(-1)
    return columns.Events(
        user=np.repeat(np.arange(1, log.users + 1, dtype=np.int32), log.events_a_user),
        video=rng.integers(1, videos, events, dtype=np.int32),
        query=np.zeros(events, np.int32),
        time_ms=time_ms,
        surface=np.zeros(events, np.int8),
        **{name: rng.random(events) < rate for name, rate in rates.items()},
        play_ms=play_ms,
        duration_ms=duration_ms,
        known_ms=time_ms + play_ms,
        told=np.full(events, columns.EVERYTHING, np.uint8),
    )
