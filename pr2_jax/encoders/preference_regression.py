"""Per-person Bayesian logistic regression of clicks in the preference space [ours].

A mean over past events (models/preference.py) does not tell preference from exposure, and counts ten views of one kind
ten times. The regression does neither. Its features are the videos' vectors, its offset is each video's appeal, and it
takes one step from zero on a bound of the likelihood (`latent_factors.likelihood`):

    u = (P + sum_b w_b z_b z_b^T)^-1 sum_b (y_b - p_b) z_b,    p_b = sigmoid(appeal_b),  w_b = (p_b - 1/2) / appeal_b

`z` is 1, the video's vector and the log duration. Vectors, appeals and the prior's precision P come from the responses
of all training days (encoders/latent_factors.py). The cost of a past is linear in its length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pr2_jax.config import PreferenceConfig
from pr2_jax.data.columns import CLICK
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import known, laid_out
from pr2_jax.encoders.batching import event_blocks
from pr2_jax.encoders.latent_factors import likelihood

FILE, DURATIONS, PRECISION = FILES = ("fit_vectors.npy", "fit_durations.npy", "fit_precision.npy")
"""Appeal logit and vector of videos, `[V, 1 + D]`; mean and deviation of the training days' log durations; and P,
`[2 + D, 2 + D]`."""
LEAST_VARIANCE = 1e-6
MOST_SAMPLED = 200_000
"""Videos from which the whitening is estimated."""
EVENTS_AT_ONCE = 50_000
"""Events whose outer products are held at a time."""
AUTHOR_PRIOR, CATEGORY_PRIOR = 1.0, 4.0
"""Prior precision of a person's effects of single authors and categories."""


class Fits(NamedTuple):
    """N people: posterior of their coefficients, and the range of their past in `outcome_index`."""

    mean_NxZ: np.ndarray
    covariance_NxZxZ: np.ndarray
    first_N: np.ndarray
    end_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Whitened:
    """Vectors whitened where they are read, float64, so that no second copy of all of them is held."""

    vectors_VxD: np.ndarray
    mean_D: np.ndarray
    axes_DxW: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.vectors_VxD), self.axes_DxW.shape[1]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return (np.asarray(self.vectors_VxD[rows], np.float64) - self.mean_D) @ self.axes_DxW


def whitened(video_VxD: np.ndarray, most: int | None = None) -> Whitened:
    """The vectors whitened over the catalogue; axes of hardly any variance become zero.

    `most`: keeps at most so many axes, those of the largest variance.
    """
    sample = np.asarray(video_VxD[1 :: max(1, len(video_VxD) // MOST_SAMPLED)], np.float64)
    if len(sample) < 2:
        return Whitened(video_VxD, np.zeros(video_VxD.shape[1]), np.zeros((video_VxD.shape[1],) * 2)[:, :most])
    mean_D = sample.mean(0)
    variance_D, axes_DxD = np.linalg.eigh(np.atleast_2d(np.cov(sample.T)))
    least = max(LEAST_VARIANCE * variance_D.max(), np.finfo(np.float32).tiny)
    scale_D = np.where(variance_D > least, 1 / np.sqrt(np.maximum(variance_D, least)), 0.0)
    return Whitened(video_VxD, mean_D, (axes_DxD * scale_D)[:, -(most or len(scale_D)) :])


def duration_scale(reader: EventReader, before_ms: int) -> np.ndarray:
    """Mean and deviation of `log(1 + seconds)` of views before a time, float64 `[2]`: the content of `DURATIONS`."""
    e = reader.store.events
    known_E = (np.asarray(e.duration_ms) > 0) & (np.asarray(e.time_ms) < before_ms)
    log = np.log1p(np.asarray(e.duration_ms)[known_E] / 1000)
    return np.array([log.mean(), log.std() or 1.0]) if len(log) else np.array([0.0, 1.0])


def standardised(duration_ms_x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardised log durations; 0 where a duration is not known."""
    mean, deviation = scale
    return np.where(duration_ms_x > 0, (np.log1p(duration_ms_x / 1000) - mean) / deviation, 0.0)


class PreferenceRegression:
    """People's regressions at any moment, and their logits for videos."""

    def __init__(self, config: PreferenceConfig, directory: Path, reader: EventReader) -> None:
        self._config, self._reader = config, reader
        self._vectors = np.load(directory / FILE, mmap_mode="r")
        self._scale, self._precision = np.load(directory / DURATIONS), np.load(directory / PRECISION)

    def people(self, user_N: np.ndarray, time_ms_N: np.ndarray) -> Fits:
        """N people, from their events strictly before each time."""
        first_N, end_N = known(self._reader.store, user_N, time_ms_N, self._config.history)
        size = len(self._precision)
        gram_NxZxZ, pull_NxZ = np.zeros((len(end_N), size, size)), np.zeros((len(end_N), size))
        for rows in event_blocks(first_N, end_N, EVENTS_AT_ONCE):
            gram_NxZxZ[rows], pull_NxZ[rows] = self._sums(first_N[rows], end_N[rows])
        covariance_NxZxZ = np.linalg.inv(gram_NxZxZ + self._precision)
        mean_NxZ = np.einsum("nyz,nz->ny", covariance_NxZxZ, pull_NxZ)
        return Fits(mean_NxZ, covariance_NxZxZ, first_N, end_N)

    def _events(self, first_N: np.ndarray, end_N: np.ndarray) -> tuple[np.ndarray, ...]:
        """Events of each range, end to end: `z`, appeal, click, whether the click is known (1 or 0), and video."""
        e = self._reader.store.events
        event_E = self._reader.store.outcome_index.rows[laid_out(first_N, end_N - first_N)]
        video_E, known_E = np.asarray(e.video)[event_E], (np.asarray(e.told)[event_E] & CLICK) > 0
        z_ExZ, appeal_E = self._described(video_E, np.asarray(e.duration_ms)[event_E])
        return z_ExZ, appeal_E, np.asarray(e.click)[event_E], known_E.astype(np.float64), video_E

    def _sums(self, first_N: np.ndarray, end_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`sum w z z^T` and `sum (y - p) z` over the events of each range, none of them empty."""
        ends_N = np.cumsum(end_N - first_N)
        z_ExZ, appeal_E, click_E, known_E, _ = self._events(first_N, end_N)
        p_E, weight_E = likelihood(appeal_E)
        weighted_ExZ = z_ExZ * (weight_E * known_E)[:, None]
        # One product a person: outer products of single events would take Z times the memory traffic.
        parts = zip(np.split(weighted_ExZ, ends_N[:-1]), np.split(z_ExZ, ends_N[:-1]), strict=True)
        gram_NxZxZ = np.stack([weighted.T @ z for weighted, z in parts])
        pull_NxZ = np.add.reduceat(z_ExZ * ((click_E - p_E) * known_E)[:, None], ends_N - (end_N - first_N))
        return gram_NxZxZ, pull_NxZ

    def _described(self, video_x: np.ndarray, duration_ms_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`z [..., Z]` and the appeal of videos."""
        vectors = np.asarray(self._vectors[video_x], np.float64)
        one_x1, duration_x1 = np.ones((*np.shape(video_x), 1)), standardised(duration_ms_x, self._scale)[..., None]
        return np.concatenate([one_x1, vectors[..., 1:], duration_x1], axis=-1), vectors[..., 0]

    def appeal(self, video_x: np.ndarray) -> np.ndarray:
        """Logit of each video without a person."""
        return np.asarray(self._vectors[video_x, 0], np.float64)

    def logits(self, fits: Fits, video_NxS: np.ndarray, duration_ms_NxS: np.ndarray) -> np.ndarray:
        """`[N, S, 2]`: the person's logit beside the appeal, and its standard deviation.

        `duration_ms_NxS` as known at the requests, 0 = unknown.
        """
        z_NxSxZ, _ = self._described(video_NxS, duration_ms_NxS)
        doubt_NxS = np.einsum("nsy,nyz,nsz->ns", z_NxSxZ, fits.covariance_NxZxZ, z_NxSxZ, optimize=True)
        return np.stack([np.einsum("nsz,nz->ns", z_NxSxZ, fits.mean_NxZ), np.sqrt(doubt_NxS)], axis=-1)

    def leanings(self, fits: Fits, video_NxS: np.ndarray) -> np.ndarray:
        """`[N, S, 2]`: the person's further logits for the author and for the categories of a video.

        An effect is one step from zero on the events of its author or category, `sum (y - p) / (sum w + prior)`. It
        holds what a short vector cannot, such as a favourite among thousands of authors.
        """
        videos = self._reader.store.videos
        kinds = ((np.asarray(videos.author)[:, None], AUTHOR_PRIOR), (np.asarray(videos.category), CATEGORY_PRIOR))
        out_NxSx2 = np.zeros((*video_NxS.shape, len(kinds)))
        for rows in event_blocks(fits.first_N, fits.end_N, EVENTS_AT_ONCE):
            length_N = fits.end_N[rows] - fits.first_N[rows]
            z_ExZ, appeal_E, click_E, known_E, video_E = self._events(fits.first_N[rows], fits.end_N[rows])
            person_E = np.repeat(np.arange(len(rows)), length_N)
            p_E, weight_E = likelihood(appeal_E + np.einsum("ez,ez->e", z_ExZ, fits.mean_NxZ[rows][person_E]))
            for kind, (group_VxL, prior) in enumerate(kinds):
                key_ExL = _keys(person_E[:, None], group_VxL[video_E])
                effects = _effects(key_ExL, (click_E - p_E) * known_E, weight_E * known_E, prior)
                request_NxSxL = _keys(np.arange(len(rows))[:, None, None], group_VxL[video_NxS[rows]])
                out_NxSx2[rows, :, kind] = effects(request_NxSxL).sum(-1)
        return out_NxSx2


def _keys(person_x: np.ndarray, group_x: np.ndarray) -> np.ndarray:
    """A number for each person and group; -1 where the group is unknown."""
    return np.where(group_x > 0, person_x * np.int64(1 << 40) + group_x, -1)


def _effects(
    key_ExL: np.ndarray, left_E: np.ndarray, weight_E: np.ndarray, prior: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Effects by key; 0 for -1 and for keys without an event."""
    keys_K, place_P = np.unique(key_ExL.reshape(-1), return_inverse=True)
    levels = key_ExL.shape[1]
    left_K, weight_K = (np.bincount(place_P, np.repeat(x, levels)) for x in (left_E, weight_E))
    effect_K = np.where(keys_K >= 0, left_K / (weight_K + prior), 0.0)

    def of(key_x: np.ndarray) -> np.ndarray:
        at_x = np.minimum(np.searchsorted(keys_K, key_x), len(keys_K) - 1)
        return np.where(keys_K[at_x] == key_x, effect_K[at_x], 0.0)

    return of
