"""Labels and counts from the log, each as of a moment."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from pr2_jax.config import LABELS, DataConfig
from pr2_jax.data.columns import PLAY, Events, Impressions
from pr2_jax.data.outcomes import clicked_ms
from pr2_jax.data.store.log_store import LogStore


@dataclasses.dataclass(frozen=True)
class LongPlay:
    """A long play: playing time above a quantile of its duration bucket [lit: D2Q]."""

    edges_ms: np.ndarray  # int64 [G - 1], ascending: lower ends of duration buckets 1, 2, ...
    thresholds_ms: np.ndarray  # float64 [G]

    @staticmethod
    def fit(store: LogStore, before_ms: int, config: DataConfig) -> LongPlay:
        """From events known strictly before `before_ms` with playing time and duration: buckets of equal counts."""
        e = store.events
        keep = (np.asarray(e.known_ms) < before_ms) & ((np.asarray(e.told) & PLAY) > 0)
        duration_N, play_N = np.asarray(e.duration_ms)[keep], np.asarray(e.play_ms)[keep]
        if not len(duration_N):
            return LongPlay(np.zeros(0, np.int64), np.full(1, np.inf))
        shares = np.arange(1, config.duration_buckets) / config.duration_buckets
        edges = np.unique(np.quantile(duration_N, shares, method="higher")).astype(np.int64)
        edges = edges[edges > duration_N.min()]  # no empty bucket
        bucket_N = np.searchsorted(edges, duration_N, side="right")
        order = np.lexsort((play_N, bucket_N))
        first_G = np.searchsorted(bucket_N[order], np.arange(len(edges) + 2))
        parts = [play_N[order][a:b] for a, b in itertools.pairwise(first_G)]
        thresholds = np.array([np.quantile(part, config.long_play_quantile) for part in parts])
        return LongPlay(edges, thresholds)

    def label(self, play_ms: np.ndarray, duration_ms: np.ndarray) -> np.ndarray:
        """bool, same shape; False where the duration is not known (0)."""
        threshold = self.thresholds_ms[np.searchsorted(self.edges_ms, duration_ms, side="right")]
        return (np.asarray(play_ms) > threshold) & (np.asarray(duration_ms) > 0)


def labels_of(columns: Events | Impressions, rows_x: np.ndarray, long_play: LongPlay | None) -> np.ndarray:
    """bool `[..., Y]`: the labels of rows of the log. Unknown ones are False, and so is long play without
    `long_play`."""
    click = columns.clicks if isinstance(columns, Impressions) else columns.click
    found = dict.fromkeys(LABELS, np.zeros(np.shape(rows_x), bool)) | {"click": np.asarray(click)[rows_x] > 0}
    if columns.told is not None:
        found |= {name: np.asarray(getattr(columns, name))[rows_x] for name in ("like", "follow", "forward")}
        if long_play is not None:
            play_x, duration_x = (np.asarray(x)[rows_x] for x in (columns.play_ms, columns.duration_ms))
            found["long_play"] = long_play.label(play_x, duration_x)
    return np.stack([found[name] for name in LABELS], axis=-1)


def columns_of(labels: Iterable[str]) -> list[int]:
    """Indices of these labels in the last axis of `[..., Y]`."""
    return [LABELS.index(label) for label in labels]


def popularity(store: LogStore, before_ms: int) -> np.ndarray:
    """float32 [V]: clicks of each video known before that time, of both surfaces."""
    clicked = np.flatnonzero(store.events.click)
    clicked = clicked[clicked_ms(store.events, clicked) < before_ms]
    return np.bincount(np.asarray(store.events.video)[clicked], minlength=store.counts.videos).astype(np.float32)
