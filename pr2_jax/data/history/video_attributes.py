"""Video attributes as dense arrays for the video towers and the ranker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pr2_jax.config import DataConfig
from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore

FEW_VIDEOS = 4.0
"""Shrinkage of an author's style: with this many videos it has half its weight [ours]."""


def pad_ragged(first_N1: np.ndarray, values: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """Rows of a ragged column as `[N, width]`, cut or padded with 0 behind."""
    start_N, length_N = first_N1[rows], np.minimum(first_N1[rows + 1] - first_N1[rows], width)
    column_1xW = np.arange(width)[None, :]
    inside_NxW = column_1xW < length_N[:, None]
    index_NxW = np.where(inside_NxW, start_N[:, None] + column_1xW, 0)
    if not len(values):
        return np.zeros((len(rows), width), np.int32)
    return np.where(inside_NxW, np.asarray(values)[index_NxW], 0).astype(np.int32)


def query_words(store: LogStore, queries_N: np.ndarray, config: DataConfig) -> np.ndarray:
    """Word rows `[N, Q]` of query rows."""
    return pad_ragged(store.queries.first_word, store.queries.words, queries_N, config.query_tokens)


def padded_words(words: Sequence[np.ndarray], config: DataConfig) -> np.ndarray:
    """int32 word rows `[N, Q]` from N arrays of word rows, cut or padded with 0."""
    words_NxQ = np.zeros((len(words), config.query_tokens), np.int32)
    for row, given in zip(words_NxQ, words, strict=True):
        row[: min(len(given), len(row))] = given[: len(row)]
    return words_NxQ


def _log_age(upload_ms_x: np.ndarray, time_ms_x: np.ndarray) -> np.ndarray:
    """float32 `[..., 2]`: log age at each time, and whether the upload time is known."""
    age_days_x = np.maximum(time_ms_x - upload_ms_x, 0) / DAY_MS
    return _with_flag(np.log1p(age_days_x) / 5 - 1, upload_ms_x > 0)


def _with_flag(value_x: np.ndarray, known_x: np.ndarray) -> np.ndarray:
    """float32 `[..., 2]`: the value, 0 where unknown, and whether it is known."""
    return np.stack(np.broadcast_arrays(np.where(known_x, value_x, 0), known_x), axis=-1).astype(np.float32)


VIDEO_NUMBERS = ("log_duration", "has_duration", "log_age", "has_age")


class VideoNumbers:
    """Log duration and log age of videos as of any moment, each with a flag whether it is known.

    Only feed views tell durations. Of each video the first view that tells one counts, the shortest of several at one
    time; so the answer for a moment is this value or nothing.
    """

    def __init__(self, store: LogStore) -> None:
        e, self._upload_V = store.events, np.asarray(store.videos.upload_ms)
        keep = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.duration_ms) > 0)
        video_N, time_N, duration_N = (np.asarray(x)[keep] for x in (e.video, e.time_ms, e.duration_ms))
        order = np.lexsort((duration_N, time_N, video_N))
        video_K, first_K = np.unique(video_N[order], return_index=True)
        self.duration_ms_V, self.since_ms_V = np.zeros((2, store.counts.videos), np.int64)
        self.duration_ms_V[video_K], self.since_ms_V[video_K] = duration_N[order][first_K], time_N[order][first_K]

    def __call__(self, video_x: np.ndarray, time_ms_x: np.ndarray) -> np.ndarray:
        """float32 `[..., 4]`, the columns `VIDEO_NUMBERS`; the arguments are broadcast."""
        duration_x = self.durations(video_x, time_ms_x)
        log_duration = _with_flag(np.log1p(duration_x / 1000) / 5 - 1, duration_x > 0)
        return np.concatenate([log_duration, _log_age(self._upload_V[video_x], time_ms_x)], axis=-1)

    def durations(self, video_x: np.ndarray, time_ms_x: np.ndarray) -> np.ndarray:
        """int64 ms known strictly before each time, 0 = not yet known; the arguments are broadcast."""
        return np.where(self.since_ms_V[video_x] < time_ms_x, self.duration_ms_V[video_x], 0)


def catalogue_arrays(store: LogStore, before_ms: int, config: DataConfig) -> dict[str, np.ndarray]:
    """`caption [V, C]`, `author [V]`, `category [V, L]`, `numbers [V, 2]` (log age at `before_ms`, and whether it is
    known); given content vectors, these as unit vectors, `brought [V, F]`, and `style [V, 2F]`.

    Durations would leak: only feed views tell them, so that they reveal whether a video came up in the feed later.
    """
    videos = store.videos
    size = len(videos.raw_id)
    longest = max(1, int(np.diff(videos.first_word).max()))  # no column of nothing but padding
    out = {
        "caption": pad_ragged(videos.first_word, videos.words, np.arange(size), min(config.caption_tokens, longest)),
        "author": np.asarray(videos.author, np.int32),
        "category": np.asarray(videos.category, np.int32),
        "numbers": _log_age(np.asarray(videos.upload_ms), np.int64(before_ms)),
    }
    if videos.content is not None:
        brought_VxF = np.asarray(videos.content, np.float32)
        out["brought"] = brought_VxF / np.maximum(np.linalg.norm(brought_VxF, axis=1, keepdims=True), 1e-6)
        out["style"] = styles(out["brought"], out["author"], out["category"])
    return out


def described(catalogue: dict[str, np.ndarray]) -> np.ndarray:
    """bool [V]: has a video a caption, an author, a category or a brought vector? Others need no content vector."""
    known = [catalogue[name] for name in ("caption", "author", "category", "brought") if name in catalogue]
    return np.any([(each != 0).reshape(len(each), -1).any(1) for each in known], axis=0)


def styles(content_VxF: np.ndarray, author_V: np.ndarray, category_VxL: np.ndarray) -> np.ndarray:
    """Style of videos, float32 `[V, 2F]` [ours]: the vector less the mean of its finest category, and the author's mean
    of that, shrunk to zero.

    A vector mostly describes the subject, and is noisy. An author's way of making videos repeats.
    """
    level_V = np.maximum((category_VxL > 0).sum(1) - 1, 0)
    finest_V = category_VxL[np.arange(len(category_VxL)), level_V]
    apart_VxF = content_VxF - _means(content_VxF, finest_V, 0.0)
    by_author_VxF = _means(apart_VxF, author_V, FEW_VIDEOS) * (author_V > 0)[:, None]
    return np.concatenate([apart_VxF, by_author_VxF], axis=1).astype(np.float32)


def _means(value_VxF: np.ndarray, group_V: np.ndarray, prior: float) -> np.ndarray:
    """Mean of each row's group, with `prior` more rows of zeros."""
    order = np.argsort(group_V, kind="stable")
    groups, first = np.unique(group_V[order], return_index=True)
    sums_GxF = np.add.reduceat(value_VxF[order], first)
    size_G = np.diff(np.append(first, len(order)))
    return (sums_GxF / (size_G + prior)[:, None])[np.searchsorted(groups, group_V)]


def log_unigram(videos_N: np.ndarray, size: int) -> np.ndarray:
    """Log share of each video among the positives, `[V]` float32; a video without one counts 0.5."""
    count_V = np.maximum(np.bincount(videos_N, minlength=size), 0.5)
    return np.log(count_V / count_V.sum()).astype(np.float32)
