"""Labels and counts taken from the log, each with the time before which it was taken."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import FEED_CHANNEL
from pr2_jax.data.store import LogStore


@dataclasses.dataclass(frozen=True)
class LongPlay:
    """Played longer than a quantile of the views of videos about as long [lit: D2Q]."""

    edges_ms: np.ndarray  # int64 [G - 1], ascending: lower ends of duration buckets 1, 2, ...
    thresholds_ms: np.ndarray  # float64 [G]

    @staticmethod
    def fit(store: LogStore, before_ms: int, config: DataConfig) -> LongPlay:
        """Of feed views strictly before `before_ms`: duration buckets of equal counts, a play-time quantile in each."""
        duration_N, play_N = _views(store, before_ms)
        if not len(duration_N):
            return LongPlay(np.zeros(0, np.int64), np.full(1, np.inf))
        shares = np.arange(1, config.duration_buckets) / config.duration_buckets
        edges = np.unique(np.quantile(duration_N, shares, method="higher")).astype(np.int64)
        edges = edges[edges > duration_N.min()]  # no bucket without a view
        bucket_N = np.searchsorted(edges, duration_N, side="right")
        order = np.lexsort((play_N, bucket_N))
        first_G = np.searchsorted(bucket_N[order], np.arange(len(edges) + 2))
        parts = [play_N[order][a:b] for a, b in itertools.pairwise(first_G)]
        thresholds = np.array([np.quantile(part, config.long_play_quantile) for part in parts])
        return LongPlay(edges, thresholds)

    def label(self, play_ms: np.ndarray, duration_ms: np.ndarray) -> np.ndarray:
        """bool, same shape. A duration of 0 is not known and falls into the lowest bucket."""
        return np.asarray(play_ms) > self.thresholds_ms[np.searchsorted(self.edges_ms, duration_ms, side="right")]


def video_duration_ms(store: LogStore, before_ms: int) -> np.ndarray:
    """int64 [V]: median (the lower of two) of the durations > 0 seen in feed views before that time; 0 = unknown."""
    e = store.events
    keep = (np.asarray(e.time_ms) < before_ms) & (np.asarray(e.channel) == FEED_CHANNEL) & (e.duration_ms > 0)
    video_N, duration_N = np.asarray(e.video)[keep], np.asarray(e.duration_ms)[keep]
    order = np.lexsort((duration_N, video_N))
    first_V1 = np.searchsorted(video_N[order], np.arange(store.counts.videos + 1))
    count_V = np.diff(first_V1)
    out_V = np.zeros(store.counts.videos, np.int64)
    known = count_V > 0
    out_V[known] = duration_N[order][(first_V1[:-1] + (count_V - 1) // 2)[known]]
    return out_V


def popularity(store: LogStore, before_ms: int) -> np.ndarray:
    """float32 [V]: clicks of each video before that time, in the feed and in searches."""
    e = store.events
    keep = (np.asarray(e.time_ms) < before_ms) & e.click
    return np.bincount(np.asarray(e.video)[keep], minlength=store.counts.videos).astype(np.float32)


def _views(store: LogStore, before_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """(duration, play time) of the feed views before that time."""
    e = store.events
    keep = (np.asarray(e.time_ms) < before_ms) & (np.asarray(e.channel) == FEED_CHANNEL)
    return np.asarray(e.duration_ms)[keep], np.asarray(e.play_ms)[keep]
