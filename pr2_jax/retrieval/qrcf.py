"""QRCF, query-relevant collaborative filtering: the seeds of a request (docs/method.md, QRCF).

Seeds are the past events b most similar to the query: `S(u, q) = topK_b cos(e_q, e_b), kept where cos >= epsilon`.
From each seed QRCF walks to its item-to-item neighbours (channels.py):
`score(v | u, q) = sum_{b in S} w_b cos(e_q, e_b)^gamma sim(b, v)`. Epsilon is one number, or one per query
(`retrieval.qrcf.threshold = "adaptive"`), and is fitted on the training days.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from pr2_jax.config import QrcfConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders.batching import REQUEST_BLOCK, in_blocks, padded_size
from pr2_jax.encoders.space_encoders import ContentEncoder
from pr2_jax.models.qrcf_arithmetic import adaptive_epsilon, filter_ids
from pr2_jax.types import Requests

DAY_SECONDS = 86_400.0
ROUNDING = 1e-6
"""Tolerance between two cosines of the same float32 vectors, which depend on the block size in the last bits: the video
that sets an adaptive threshold must pass it as a past event."""
ENGAGEMENT_WEIGHTS = {"click": 1.0, "like": 1.0, "follow": 1.0, "forward": 1.0, "long_play": 0.5}
"""Weights of an event's signals in w_b [ours]."""


@dataclasses.dataclass(frozen=True)
class Seeds:
    """What the filter kept for each request: video rows (0 = none), strengths and relevances, `[B, K]`."""

    video_BxK: np.ndarray
    strength_BxK: np.ndarray
    relevance_BxK: np.ndarray

    @staticmethod
    def joined(parts: Sequence[Seeds]) -> Seeds:
        """Of several batches, one below the other."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Seeds(*(np.concatenate(column) for column in columns))

    @property
    def coverage(self) -> float:
        """Share of requests with at least one seed."""
        return float((self.strength_BxK > 0).any(1).mean())


class SeedFilter:
    """Selects query-relevant past events, weighted by engagement and age."""

    def __init__(
        self,
        reader: EventReader,
        space: ContentEncoder,
        config: QrcfConfig,
        epsilon: float,
        sample_N: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """`sample_N`: video rows (`cosine_sample`), for the adaptive threshold in place of `epsilon`."""
        self._reader, self.space, self._config = reader, space, config
        self.epsilon = epsilon
        self._vectors_VxD = jnp.asarray(space.videos_VxD)
        # Without content vectors no past event is nearer to a query than another: the latest are the seeds.
        self._told = bool(np.any(space.videos_VxD))
        if config.threshold == "adaptive":
            if sample_N is None:
                raise ValueError("threshold = 'adaptive' needs the sample of videos that it was fitted with")
            self._sample_NxD = self._vectors_VxD[np.asarray(sample_N, np.int32)]

    def weights(self, history: dict[str, np.ndarray]) -> np.ndarray:
        """w_b `[B, H]`: log of the engagement, decayed by age; 0 for padding."""
        signals_BxHxG = history["signals_BxHxG"]
        columns = [SIGNALS.index(name) for name in ENGAGEMENT_WEIGHTS]
        engagement_BxH = signals_BxHxG[..., columns] @ np.array([*ENGAGEMENT_WEIGHTS.values()], np.float32)
        age_days_BxH = history["gap_seconds_BxH"] / DAY_SECONDS
        decay_BxH = 0.5 ** (age_days_BxH / self._config.age_half_life_days)
        return (np.log1p(engagement_BxH) * decay_BxH * (history["history_BxH"] > 0)).astype(np.float32)

    def __call__(self, requests: Requests, query_BxD: np.ndarray | None = None) -> Seeds:
        """Seeds of each request; the latest ones where the log tells nothing of any video.

        `query_BxD`: content vectors of the queries, if already computed.
        """
        return self.both(requests, query_BxD)[0]

    def both(self, requests: Requests, query_BxD: np.ndarray | None = None) -> tuple[Seeds, Seeds]:
        """The seeds by the query, and the latest K behaviours whatever the query (those of plain item-to-item CF, the
        latest first), from one reading of the past."""
        if self._told and query_BxD is None:
            query_BxD = self.space.queries(requests.words_BxQ)
        parts = []
        for start in range(0, max(len(requests), 1), REQUEST_BLOCK):
            rows = slice(start, start + REQUEST_BLOCK)
            history = self._reader.engaged(requests.user_B[rows], requests.time_ms_B[rows], self._config.history)
            past = history["history_BxH"], self.weights(history)
            latest = self._latest(*past)
            parts.append((self._relevant(query_BxD[rows], *past) if self._told else latest, latest))
        return tuple(Seeds.joined(each) for each in zip(*parts, strict=True))

    def _latest(self, video_BxH: np.ndarray, weight_BxH: np.ndarray) -> Seeds:
        video_BxK, weight_BxK = (x[:, ::-1][:, : self._config.k] for x in (video_BxH, weight_BxH))
        video_BxK = np.where(weight_BxK > 0, video_BxK, 0).astype(np.int32)
        return Seeds(video_BxK, weight_BxK, (weight_BxK > 0).astype(np.float32))

    def cuts(self, query_BxD: np.ndarray) -> np.ndarray | np.float32:
        """The least cosine of a seed: `[B, 1]` if adaptive, else epsilon."""
        if self._config.threshold != "adaptive":
            return np.float32(self.epsilon)
        passing = round((1 - self._config.adaptive_quantile) * len(self._sample_NxD))
        return adaptive_epsilon(query_BxD, self._sample_NxD, max(passing, 1)) - ROUNDING

    def _relevant(self, query_BxD: np.ndarray, video_BxH: np.ndarray, weight_BxH: np.ndarray) -> Seeds:
        """Filters a block on the device, where the content vectors are: the history travels as ids."""
        c = self._config
        # Few people have long histories: use no more columns (a power of two) than this block needs.
        longest = max(int((video_BxH > 0).sum(1).max(initial=0)), c.k)
        width = padded_size(longest, video_BxH.shape[1])
        # Latest first, so that the latest wins a tie.
        video_BxH, weight_BxH = video_BxH[:, -width:][:, ::-1], weight_BxH[:, -width:][:, ::-1]

        def kept(batch: dict[str, np.ndarray]) -> tuple:
            query_BxD, *past = batch.values()
            return filter_ids(self._vectors_VxD, query_BxD, *past, self.cuts(query_BxD), np.float32(c.gamma), c.k)

        batch = {"query_BxD": query_BxD, "video_BxH": video_BxH, "weight_BxH": weight_BxH}
        position, strength, relevance = in_blocks(kept, batch, REQUEST_BLOCK)
        video_BxK = np.where(strength > 0, np.take_along_axis(video_BxH, position, 1), 0)
        return Seeds(video_BxK.astype(np.int32), strength, relevance)


def past_cosines(reader: EventReader, space: ContentEncoder, config: QrcfConfig, requests: Requests) -> np.ndarray:
    """cos(query, past event) `[N]` of the histories of these searches; queries without a known word are left out."""
    history = reader.engaged(requests.user_B, requests.time_ms_B, config.history)
    query_BxD = space.queries(requests.words_BxQ)
    told_B = np.any(query_BxD, axis=1)
    cosine_BxH = np.einsum("bd,bhd->bh", query_BxD, np.asarray(space.videos_VxD)[history["history_BxH"]])
    return cosine_BxH[(history["history_BxH"] > 0) & told_B[:, None]]


def fit_epsilon(reader: EventReader, space: ContentEncoder, config: QrcfConfig, requests: Requests) -> float:
    """Epsilon: a quantile of cos(query, past event) over training requests. Refit it after every new embedding."""
    return epsilon_at(past_cosines(reader, space, config, requests), config.epsilon_quantile)


def epsilon_at(cosine_N: np.ndarray, quantile: float) -> float:
    """A quantile of `past_cosines`; 0 without any."""
    return float(np.quantile(cosine_N, quantile)) if len(cosine_N) else 0.0


def cosine_sample(store: LogStore, before_ms: int, size: int) -> np.ndarray:
    """Sample of videos for the adaptive threshold: ascending rows `[N]`, at most `size`, engaged with before
    `before_ms`. Every such video is equally likely, however popular (docs/decisions/014-qrcf-threshold.md).

    Row 0, whose cosines are 0, where there is none.
    """
    index = store.engaged_index
    past = index.rows[index.known_ms < before_ms]
    video_N = np.setdiff1d(np.asarray(store.events.video)[past], [0])
    drawn_N = np.random.default_rng(0).permutation(video_N)[:size]
    return np.sort(drawn_N) if len(drawn_N) else np.zeros(1, np.int32)
