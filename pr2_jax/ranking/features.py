"""What the ranker is told in numbers about a request and a result, as it stood at the moment of the request.

Counters, durations and ages answer for any time (data/history/counters.py, data/history/video_attributes.py);
item-to-item scores come from the snapshot of the request's own day, which saw nothing of that day
(retrieval/item_similarity.py). Content and preference vectors are frozen: whoever computes features of training rows
hands in spaces that have not learnt from those rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from pr2_jax.config import QinConfig
from pr2_jax.data.history.counters import Counters, pair
from pr2_jax.data.history.video_attributes import VideoNumbers
from pr2_jax.encoders.content_encoder import ContentEncoder
from pr2_jax.encoders.preference_encoder import PreferenceEncoder
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import SeedFilter
from pr2_jax.types import TASKS, Requests

RELEVANCE = ("bm25", "content_cosine", "query_words", "query_searches", "query_video_clicks", "query_video_share")
VIDEO = ("clicks", "search_clicks", "shown", "search_ctr", "log_duration", "has_duration", "log_age", "has_age")
VIDEO += tuple(f"appeal_{task}" for task in TASKS)
LINKS = ("item_cf", "item_cf_by_clicks", "qrcf")
HABITS = ("category_share", "author_clicks", "author_share", "user_clicks", "views_of_video")
PREFERENCE = (
    *(f"preference_{task}" for task in TASKS),
    "preference_fit",
    "preference_fit_doubt",
    "preference_fit_author",
    "preference_fit_category",
)
AGAIN = ("clicks_of_video",)
GROUPS = {
    "relevance": RELEVANCE,
    "video": VIDEO,
    "links": LINKS,
    "habits": HABITS,
    "preference": PREFERENCE,
    "again": AGAIN,
}
"""By the names that `QinConfig.inputs` gives; the last goes with habits where people find again what they clicked."""
IMPERSONAL = ("relevance", "video")
FEATURES = tuple(name for group in GROUPS.values() for name in group)
HEAVY_TAILED = ("bm25", "query_searches", "query_video_clicks", "clicks", "search_clicks", "shown")
HEAVY_TAILED += ("item_cf", "item_cf_by_clicks", "qrcf", "author_clicks", "user_clicks", "views_of_video", *AGAIN)
DENSE_VIDEOS, DENSE_CELLS = 1_000_000, 8_000_000
"""Catalogues up to which a request's reached videos are laid out whole to be read, and cells laid out at once; of
larger ones each read searches its row, which takes longer but no longer the larger they are."""
PRIOR_SHOWN = 3.0
"""Results shown that a rate has to earn before it counts: rate = clicks / (shown + prior)."""


def groups(config: QinConfig, *, again: bool = False) -> tuple[str, ...]:
    """Which of `GROUPS` a ranker reads. `again`: people find again what they clicked."""
    asked = config.inputs.split("+")
    asked += ["again"] * (again and "habits" in asked)
    return tuple(name for name in asked if config.personal or name in IMPERSONAL)


def columns(config: QinConfig, *, again: bool = False) -> np.ndarray:
    """Which columns a ranker reads, ascending; the base ranker knows nothing of the person, whatever it names."""
    return np.flatnonzero(np.isin(FEATURES, [name for group in groups(config, again=again) for name in GROUPS[group]]))


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Standardises columns; heavy-tailed ones first become `log1p(x / median of the non-zero)`."""

    unit_F: np.ndarray  # 0 = not heavy-tailed
    mean_F: np.ndarray
    deviation_F: np.ndarray

    @classmethod
    def fit(cls, features_NxF: np.ndarray) -> Scaler:
        """From rows of the training days."""
        heavy_F = np.isin(FEATURES, HEAVY_TAILED)
        unit_F = np.zeros(len(FEATURES), np.float32)
        for column in np.flatnonzero(heavy_F):
            positive = features_NxF[:, column][features_NxF[:, column] > 0]
            unit_F[column] = np.median(positive) if len(positive) else 1.0
        bent = cls._bend(features_NxF, unit_F)
        deviation_F = bent.std(0)
        return cls(unit_F, bent.mean(0), np.where(deviation_F > 1e-6, deviation_F, 1.0).astype(np.float32))

    @staticmethod
    def _bend(features_xF: np.ndarray, unit_F: np.ndarray) -> np.ndarray:
        divisor_F = np.where(unit_F > 0, unit_F, 1.0)
        return np.where(unit_F > 0, np.log1p(np.maximum(features_xF, 0) / divisor_F), features_xF).astype(np.float32)

    def __call__(self, features_xF: np.ndarray) -> np.ndarray:
        """Standardised, clipped to ±5: a value far outside the training days' range must not run away with a head."""
        scaled = (self._bend(features_xF, self.unit_F) - self.mean_F) / self.deviation_F
        return np.clip(scaled, -5, 5).astype(np.float32)

    def save(self, path: Path) -> None:
        np.savez(path, unit=self.unit_F, mean=self.mean_F, deviation=self.deviation_F)

    @classmethod
    def load(cls, path: Path) -> Scaler:
        with np.load(path) as stored:
            return cls(stored["unit"], stored["mean"], stored["deviation"])


class RankingFeatures:
    """Computes `[N, S, F]` raw features of N requests with S results each."""

    def __init__(
        self,
        counters: Counters,
        space: ContentEncoder,
        preference: PreferenceEncoder,
        bm25: Bm25Channel,
        numbers: VideoNumbers,
        seeds: SeedFilter,
        *,
        again: bool = False,
    ) -> None:
        """`again`: the person's clicks on each result are counted; else that column is 0."""
        self._again = again
        self._counters, self._space, self._preference = counters, space, preference
        self._bm25, self._numbers, self._seeds = bm25, numbers, seeds

    def __call__(
        self,
        requests: Requests,
        query_N: np.ndarray,
        video_NxS: np.ndarray,
        similarity: ItemSimilarity | None,
        needed: Collection[str] = tuple(GROUPS),
    ) -> np.ndarray:
        """`query_N` are query rows (0 = a query that the log does not know); `similarity` the snapshot to walk.

        Where no group of the person is `needed`, their columns are 0 and nothing of the person is read, no
        `similarity` either.
        """
        personal = not set(needed) <= set(IMPERSONAL)
        asked = requests if personal else dataclasses.replace(requests, user_B=np.zeros_like(requests.user_B))
        preference, appeal = self._preference.logits(self._preference.people(asked.user_B, asked.time_ms_B), video_NxS)
        parts = [*self._relevance(requests, query_N, video_NxS), *self._video(requests, video_NxS)]
        parts += [*np.moveaxis(appeal, -1, 0)]
        if personal:
            parts += self._personal(requests, video_NxS, similarity) + self._preferences(
                requests, video_NxS, preference
            )
            parts += [self._clicks(requests, video_NxS)] if self._again else []
        parts += [np.zeros((1, 1))] * (len(FEATURES) - len(parts))
        return np.stack(np.broadcast_arrays(*parts), axis=-1).astype(np.float32)

    def _relevance(self, requests: Requests, query_N: np.ndarray, video_NxS: np.ndarray) -> list[np.ndarray]:
        counters, time_Nx1 = self._counters, requests.time_ms_B[:, None]
        query_NxD = self._space.queries(requests.words_BxQ)
        vectors_NxSxD = np.asarray(self._space.videos_VxD)[video_NxS]
        known_N = query_N > 0
        searches_Nx1 = np.where(known_N, counters.query_searches.before(query_N, requests.time_ms_B), 0)[:, None]
        clicks_NxS = counters.query_video_clicks.before(pair(query_N[:, None], video_NxS), time_Nx1)
        clicks_NxS = np.where(known_N[:, None], clicks_NxS, 0)
        return [
            self._bm25.scores(requests.words_BxQ, video_NxS),
            np.einsum("nd,nsd->ns", query_NxD, vectors_NxSxD),
            (requests.words_BxQ > 0).sum(1, keepdims=True),
            searches_Nx1,
            clicks_NxS,
            clicks_NxS / (searches_Nx1 + PRIOR_SHOWN),
        ]

    def _video(self, requests: Requests, video_NxS: np.ndarray) -> list[np.ndarray]:
        counters, time_Nx1 = self._counters, requests.time_ms_B[:, None]
        search_clicks_NxS = counters.video_search_clicks.before(video_NxS, time_Nx1)
        shown_NxS = counters.video_shown.before(video_NxS, time_Nx1)
        clicks_NxS = counters.video_clicks.before(video_NxS, time_Nx1)
        rate_NxS = search_clicks_NxS / (shown_NxS + PRIOR_SHOWN)
        numbers_NxSx4 = self._numbers(video_NxS, time_Nx1)
        return [clicks_NxS, search_clicks_NxS, shown_NxS, rate_NxS, *np.moveaxis(numbers_NxSx4, -1, 0)]

    def _personal(self, requests: Requests, video_NxS: np.ndarray, similarity: ItemSimilarity) -> list[np.ndarray]:
        counters, videos = self._counters, self._counters.store.videos
        user_Nx1, time_Nx1 = requests.user_B[:, None], requests.time_ms_B[:, None]
        known_Nx1 = user_Nx1 > 0
        total_Nx1 = np.where(known_Nx1, counters.user_clicks.before(user_Nx1, time_Nx1), 0)
        category_NxSxL = np.asarray(videos.category)[video_NxS]
        keys = pair(user_Nx1[..., None], category_NxSxL)
        in_category = counters.user_category_clicks.before(keys, time_Nx1[..., None]) * known_Nx1[..., None]
        levels_NxS = np.maximum((category_NxSxL > 0).sum(-1), 1)
        share_NxS = (in_category * (category_NxSxL > 0)).sum(-1) / levels_NxS / (total_Nx1 + 1)
        author_NxS = np.asarray(videos.author)[video_NxS]
        by_author = counters.user_author_clicks.before(pair(user_Nx1, author_NxS), time_Nx1)
        by_author = np.where((author_NxS > 0) & known_Nx1, by_author, 0)
        views = counters.user_video_views.before(pair(user_Nx1, video_NxS), time_Nx1) * known_Nx1
        popularity_NxS = counters.video_clicks.before(video_NxS, time_Nx1)
        item_cf = self._walked(requests, video_NxS, similarity, by_query=False)
        qrcf = self._walked(requests, video_NxS, similarity, by_query=True)
        return [
            item_cf,
            item_cf / (popularity_NxS + PRIOR_SHOWN),
            qrcf,
            share_NxS,
            by_author,
            by_author / (total_Nx1 + 1),
            total_Nx1,
            views,
        ]

    def _clicks(self, requests: Requests, video_NxS: np.ndarray) -> np.ndarray:
        """The person's own clicks on each result."""
        user_Nx1, time_Nx1 = requests.user_B[:, None], requests.time_ms_B[:, None]
        return self._counters.user_video_clicks.before(pair(user_Nx1, video_NxS), time_Nx1) * (user_Nx1 > 0)

    def _preferences(self, requests: Requests, video_NxS: np.ndarray, preference_NxSxT: np.ndarray) -> list[np.ndarray]:
        fit, durations = self._preference.fit, self._numbers.durations(video_NxS, requests.time_ms_B[:, None])
        fits = fit.people(requests.user_B, requests.time_ms_B)
        own = (fit.logits(fits, video_NxS, durations), fit.leanings(fits, video_NxS))
        return [column for part in (preference_NxSxT, *own) for column in np.moveaxis(part, -1, 0)]

    def _walked(
        self, requests: Requests, video_NxS: np.ndarray, similarity: ItemSimilarity, *, by_query: bool
    ) -> np.ndarray:
        """`sum_b strength_b sim(b, v)` for given results: the channel's score, read off for chosen videos."""
        seeds = self._seeds(requests, by_query=by_query)
        size = len(similarity.neighbour_VxM)
        kept = np.nonzero(seeds.strength_BxK > 0)
        strength = sp.csr_array(
            (seeds.strength_BxK[kept], (kept[0], seeds.video_BxK[kept])), shape=(len(requests), size)
        )
        reached = (strength @ similarity.matrix).tocsr()
        if size <= DENSE_VIDEOS:
            step = max(DENSE_CELLS // size, 1)
            parts = [reached[n : n + step].toarray() for n in range(0, len(requests), step)]
            found = [np.take_along_axis(part, video_NxS[n * step :][: len(part)], 1) for n, part in enumerate(parts)]
            return np.concatenate(found)
        rows = np.repeat(np.arange(len(requests)), video_NxS.shape[1])
        return np.asarray(reached[rows, video_NxS.reshape(-1)]).reshape(video_NxS.shape)
