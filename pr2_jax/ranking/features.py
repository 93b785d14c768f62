"""Ranking features of a request and a result, as of the moment of the request.

Counters, durations and ages answer for any time (data/history). Item-to-item scores come from a snapshot made before
the request's day. Content and preference vectors are frozen; training rows need encoders that were not trained on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from pr2_jax.config import PREFERENCE_LABELS, QinConfig
from pr2_jax.data.history.counters import Counters, pair
from pr2_jax.data.history.video_attributes import VIDEO_NUMBERS, VideoNumbers
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.qrcf import Seeds
from pr2_jax.types import Requests

PLAIN, HEAVY = False, True
GROUPS: dict[str, dict[str, bool]] = {
    "relevance": {
        "bm25": HEAVY,
        "content_cosine": PLAIN,
        "query_words": PLAIN,
        "query_searches": HEAVY,
        "query_video_clicks": HEAVY,
        "query_video_share": PLAIN,
    },
    "video": {
        "clicks": HEAVY,
        "search_clicks": HEAVY,
        "shown": HEAVY,
        "search_ctr": PLAIN,
        **dict.fromkeys(VIDEO_NUMBERS, PLAIN),
        **{f"appeal_{label}": PLAIN for label in PREFERENCE_LABELS},
    },
    "links": {"item_cf": HEAVY, "item_cf_by_clicks": HEAVY, "qrcf": HEAVY},
    "habits": {
        "category_share": PLAIN,
        "author_clicks": HEAVY,
        "author_share": PLAIN,
        "user_clicks": HEAVY,
        "views_of_video": HEAVY,
    },
    "preference": {
        **{f"preference_{label}": PLAIN for label in PREFERENCE_LABELS},
        "preference_fit": PLAIN,
        "preference_fit_doubt": PLAIN,
        "preference_fit_author": PLAIN,
        "preference_fit_category": PLAIN,
    },
    "again": {"clicks_of_video": HEAVY},
}
"""The columns by group, each with whether its tail is heavy. `QinConfig.inputs` names the groups of a ranker; "again"
joins "habits" where people may find again what they clicked."""
IMPERSONAL = ("relevance", "video")
FEATURES = tuple(name for group in GROUPS.values() for name in group)
HEAVY_TAILED = tuple(name for group in GROUPS.values() for name, heavy in group.items() if heavy)
DENSE_VIDEOS, DENSE_CELLS = 1_000_000, 8_000_000
"""`walked` reads dense rows up to this catalogue size, so many cells at once. Beyond it, it searches sparse rows, whose
time does not grow with the catalogue."""
PRIOR_SHOWN = 3.0
"""Shrinks a rate: clicks / (shown + prior)."""


def groups(config: QinConfig, *, again: bool = False) -> tuple[str, ...]:
    """The groups that a ranker reads. `again`: people may find again what they clicked."""
    named = (*config.inputs, *["again"] * (again and "habits" in config.inputs))
    return tuple(name for name in named if config.personal or name in IMPERSONAL)


def columns(config: QinConfig, *, again: bool = False) -> np.ndarray:
    """The columns that a ranker reads, ascending. A ranker that is not personal reads none of the person."""
    return np.flatnonzero(np.isin(FEATURES, [name for group in groups(config, again=again) for name in GROUPS[group]]))


@dataclasses.dataclass(frozen=True)
class Scaler:
    """Standardises columns. Heavy-tailed ones first become `log1p(x / median of the non-zero)`."""

    unit_F: np.ndarray  # 0 = not heavy-tailed
    mean_F: np.ndarray
    deviation_F: np.ndarray

    @classmethod
    def fit(cls, features_NxF: np.ndarray) -> Scaler:
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
        heavy = np.flatnonzero(unit_F)  # alone, because the logarithm is most of the cost
        part_xH = np.maximum(np.take(features_xF, heavy, -1), 0) / unit_F[heavy]
        bent = features_xF.astype(np.float32)
        bent[..., heavy] = np.log1p(part_xH, out=part_xH)
        return bent

    def of(self, columns: np.ndarray) -> Scaler:
        """A scaler of these columns alone."""
        return Scaler(self.unit_F[columns], self.mean_F[columns], self.deviation_F[columns])

    def __call__(self, features_xF: np.ndarray) -> np.ndarray:
        """Standardised and clipped to ±5, so that a value outside the training range cannot dominate a head."""
        scaled = self._bend(features_xF, self.unit_F)
        scaled -= self.mean_F
        scaled /= self.deviation_F
        return np.clip(scaled, -5, 5, out=scaled)

    def save(self, path: Path) -> None:
        np.savez(path, unit=self.unit_F, mean=self.mean_F, deviation=self.deviation_F)

    @classmethod
    def load(cls, path: Path) -> Scaler:
        with np.load(path) as stored:
            return cls(stored["unit"], stored["mean"], stored["deviation"])


class RankingFeatures:
    """Raw features `[N, S, F]` of N requests with S results each."""

    def __init__(self, counters: Counters, numbers: VideoNumbers, bm25: Bm25Channel, *, again: bool = False) -> None:
        """`again`: count the person's own clicks on each result; else that column is 0."""
        self._counters, self._numbers, self._bm25, self._again = counters, numbers, bm25, again

    def __call__(
        self,
        encoded: EncodedRequests,
        video_NxS: np.ndarray,
        similarity: ItemSimilarity | None,
        needed: Collection[str] = tuple(GROUPS),
    ) -> np.ndarray:
        """Without a personal group among `needed`, personal columns are 0, and neither the person nor `similarity` (the
        snapshot to walk) is read."""
        personal = not set(needed) <= set(IMPERSONAL)
        requests, preference = encoded.requests, encoded.encoders.preference
        nobody_N = np.zeros_like(requests.user_B)
        people = encoded.people if personal else preference.people(nobody_N, requests.time_ms_B)
        logits, appeal = preference.logits(people, video_NxS)
        found = self._relevance(encoded, video_NxS) | self._video(requests, video_NxS)
        found |= _named(appeal, *(f"appeal_{label}" for label in PREFERENCE_LABELS))
        if personal:
            found |= self._personal(encoded, video_NxS, similarity) | self._preferences(encoded, video_NxS, logits)
        columns = [found.pop(name, np.zeros((1, 1))) for name in FEATURES]
        if found:
            raise ValueError(f"no feature is called {', '.join(found)}")
        return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float32)

    def _relevance(self, encoded: EncodedRequests, video_NxS: np.ndarray) -> dict[str, np.ndarray]:
        counters, requests = self._counters, encoded.requests
        time_Nx1 = requests.time_ms_B[:, None]
        vectors_NxSxD = np.asarray(encoded.encoders.space.videos_VxD)[video_NxS]
        query_Nx1 = requests.query_B[:, None]
        searches_Nx1 = np.where(query_Nx1 > 0, counters.query_searches.before(query_Nx1, time_Nx1), 0)
        clicks_NxS = counters.query_video_clicks.before(pair(query_Nx1, video_NxS), time_Nx1)
        clicks_NxS = np.where(query_Nx1 > 0, clicks_NxS, 0)
        return {
            "bm25": self._bm25.scores(requests.words_BxQ, video_NxS),
            "content_cosine": np.einsum("nd,nsd->ns", encoded.query_BxD, vectors_NxSxD),
            "query_words": (requests.words_BxQ > 0).sum(1, keepdims=True),
            "query_searches": searches_Nx1,
            "query_video_clicks": clicks_NxS,
            "query_video_share": clicks_NxS / (searches_Nx1 + PRIOR_SHOWN),
        }

    def _video(self, requests: Requests, video_NxS: np.ndarray) -> dict[str, np.ndarray]:
        counters, time_Nx1 = self._counters, requests.time_ms_B[:, None]
        search_clicks_NxS = counters.video_search_clicks.before(video_NxS, time_Nx1)
        shown_NxS = counters.video_shown.before(video_NxS, time_Nx1)
        clicks_NxS = counters.video_clicks.before(video_NxS, time_Nx1)
        return {
            "clicks": clicks_NxS,
            "search_clicks": search_clicks_NxS,
            "shown": shown_NxS,
            "search_ctr": search_clicks_NxS / (shown_NxS + PRIOR_SHOWN),
            **_named(self._numbers(video_NxS, time_Nx1), *VIDEO_NUMBERS),
        }

    def _personal(
        self, encoded: EncodedRequests, video_NxS: np.ndarray, similarity: ItemSimilarity
    ) -> dict[str, np.ndarray]:
        counters, videos, requests = self._counters, self._counters.store.videos, encoded.requests
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
        item_cf, qrcf = np.split(walked((encoded.latest, encoded.seeds), np.tile(video_NxS, (2, 1)), similarity), 2)
        found = {
            "item_cf": item_cf,
            "item_cf_by_clicks": item_cf / (popularity_NxS + PRIOR_SHOWN),
            "qrcf": qrcf,
            "category_share": share_NxS,
            "author_clicks": by_author,
            "author_share": by_author / (total_Nx1 + 1),
            "user_clicks": total_Nx1,
            "views_of_video": views,
        }
        if self._again:
            clicks_NxS = counters.user_video_clicks.before(pair(user_Nx1, video_NxS), time_Nx1)
            found["clicks_of_video"] = clicks_NxS * known_Nx1
        return found

    def _preferences(
        self, encoded: EncodedRequests, video_NxS: np.ndarray, preference_NxSxT: np.ndarray
    ) -> dict[str, np.ndarray]:
        fit, fits = encoded.encoders.preference.fit, encoded.fits
        durations = self._numbers.durations(video_NxS, encoded.requests.time_ms_B[:, None])
        return (
            _named(preference_NxSxT, *(f"preference_{label}" for label in PREFERENCE_LABELS))
            | _named(fit.logits(fits, video_NxS, durations), "preference_fit", "preference_fit_doubt")
            | _named(fit.leanings(fits, video_NxS), "preference_fit_author", "preference_fit_category")
        )


def _named(part_xF: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """The last axis as columns by name."""
    return dict(zip(names, np.moveaxis(part_xF, -1, 0), strict=True))


def walked(seeds: Sequence[Seeds], video_NxS: np.ndarray, similarity: ItemSimilarity) -> np.ndarray:
    """QRCF's score of given results: `sum_b strength_b sim(b, v)`.

    All batches of seeds share one sparse product, because its set-up costs more than its arithmetic.
    """
    size, requests = len(similarity.neighbour_VxM), len(video_NxS)
    strength_NxK, seed_NxK = (np.concatenate([getattr(s, x) for s in seeds]) for x in ("strength_BxK", "video_BxK"))
    kept = np.nonzero(strength_NxK > 0)
    strength = sp.csr_array((strength_NxK[kept], (kept[0], seed_NxK[kept])), shape=(requests, size))
    reached = (strength @ similarity.matrix).tocsr()
    if size <= DENSE_VIDEOS:
        step = max(DENSE_CELLS // size, 1)
        blocks = [reached] if requests <= step else [reached[n : n + step] for n in range(0, requests, step)]
        parts = [block.toarray() for block in blocks]
        found = [np.take_along_axis(part, video_NxS[n * step :][: len(part)], 1) for n, part in enumerate(parts)]
        return np.concatenate(found)
    rows = np.repeat(np.arange(requests), video_NxS.shape[1])
    return np.asarray(reached[rows, video_NxS.reshape(-1)]).reshape(video_NxS.shape)
