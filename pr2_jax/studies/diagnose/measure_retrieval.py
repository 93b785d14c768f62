"""What `pr2 evaluate --diagnose` measures of QRCF and PDR, on searches of the validation day."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import latest_days
from pr2_jax.data.schema import DAY_MS
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.evaluation.rankings import list_values
from pr2_jax.retrieval.ann import Index, load_index
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.system import Snapshot, System
from pr2_jax.studies.diagnose.diagnosis import Judge, Sign
from pr2_jax.studies.diagnose.ranking_diagnostics import recall_signs
from pr2_jax.studies.diagnose.retrieval_diagnostics import TOP, list_signs, person_signs, seed_signs, vector_signs
from pr2_jax.types import Requests

SEARCHES = 1_000
"""Searches of a day that are looked at, at most, evenly spread."""
VIDEOS = 2_048
"""Videos whose vectors are looked at, at most, drawn by the evaluation's seed."""
DEPTH = 100
"""Of lists whose recall is asked for."""
SAME_NEIGHBOURS = 0.9
"""A video with this share of its neighbours from content has them all from there: two searches may differ by ties."""


class RetrievalSigns:
    """Measures of one system; each piece is made once."""

    def __init__(self, system: System, config: Config, judge: Judge) -> None:
        self._system, self._config, self._judge = system, config, judge

    def all(self) -> dict[str, Sign]:
        return self._seeds() | self._vectors() | self._lists() | self._persons() | self._recalls()

    @functools.cached_property
    def day(self) -> Day:
        """Searches of the validation day with a click."""
        cuts = self._system.store.cuts
        return day_of(self._system, cuts.validation_ms, cuts.test_ms).sample(SEARCHES)

    @functools.cached_property
    def _snapshot(self) -> Snapshot:
        return self._system.snapshot(self._system.store.cuts.validation_ms)

    @functools.cached_property
    def _index(self) -> dict[str, Index]:
        """Exact, as everything that something is judged by more finely than by recall."""
        return {name: load_index(self._system.workdir / "index" / name, exact=True) for name in ("dr", "pdr")}

    @functools.cached_property
    def _own(self) -> np.ndarray:
        return self._system.pdr(self.day.requests)

    def _best(self, name: str, vectors_SxD: np.ndarray, requests: Requests, k: int) -> np.ndarray:
        return self._index[name].search(vectors_SxD, k, requests.seen).ids_BxK

    def _seeds(self) -> dict[str, Sign]:
        qrcf, system = self._config.retrieval.qrcf, self._system
        told = np.flatnonzero(np.any(system.space.queries(self.day.requests.words_BxQ), axis=1))
        requests = self.day.requests.take(told)
        seeds = system.seeds(requests)
        history = system.reader.engaged(requests.user_B, requests.time_ms_B, qrcf.history)
        real = system.seeds.weights(history) > 0
        query_SxD = system.space.queries(requests.words_BxQ)
        vectors_VxD = np.asarray(system.space.videos_VxD)
        cut_S = np.broadcast_to(np.ravel(system.seeds.cuts(query_SxD)), len(told))
        looked_at = zip(history["history_BxH"], real, query_SxD, cut_S, strict=True)
        passing = [_passes(vectors_VxD[video_H[real_H]] @ query_D, cut) for video_H, real_H, query_D, cut in looked_at]
        quantile = None if qrcf.threshold == "adaptive" else qrcf.epsilon_quantile
        fallback_S = fallback_shares(
            seeds.video_BxK, seeds.strength_BxK, self._snapshot.similarity, self._fallback(seeds.video_BxK)
        )
        kept_S = (seeds.strength_BxK > 0).sum(1)
        passing_S = np.array([each.sum() for each in passing], np.float64)
        if not np.any(vectors_VxD):  # every past view counts (retrieval/qrcf.py)
            passing_S[:] = np.nan
        return seed_signs(requests.user_B, kept_S, real.sum(1), passing_S, quantile, fallback_S, self._judge)

    def _fallback(self, seeds_SxK: np.ndarray) -> np.ndarray:
        """bool [V], known for these seeds alone: whose neighbours the index took from content."""
        similarity = self._snapshot.similarity
        rows = np.setdiff1d(seeds_SxK, [0])
        out_V = np.zeros(len(similarity.neighbour_VxM), bool)
        ids_NxM, cosine_NxM = self._system.content_neighbours.of(rows)
        width = min(ids_NxM.shape[1], similarity.neighbour_VxM.shape[1])
        listed_NxM = np.asarray(similarity.neighbour_VxM)[rows]
        same_N = ((listed_NxM[:, :width] == ids_NxM[:, :width]) & (cosine_NxM[:, :width] > 0)).sum(1)
        given_N = (listed_NxM > 0).sum(1)
        out_V[rows] = (given_N > 0) & (given_N <= width) & (same_N >= SAME_NEIGHBOURS * given_N)
        return out_V

    def _vectors(self) -> dict[str, Sign]:
        vectors_VxD, content_VxD = self._index["pdr"].vectors_VxD, self._system.space.videos_VxD
        videos = len(vectors_VxD) - 1
        drawn = np.random.default_rng(self._config.evaluation.seed).permutation(videos)[:VIDEOS] + 1
        rows = np.sort(drawn).astype(np.int32)
        some_NxD = np.asarray(vectors_VxD)[rows]
        found = self._index["pdr"].search(some_NxD, 1, tuple(rows[:, None]))
        nearest = np.maximum(found.ids_BxK[:, 0], 0)
        content_N = (np.asarray(content_VxD)[rows] * np.asarray(content_VxD)[nearest]).sum(1)
        return vector_signs(some_NxD, found.scores_BxK[:, 0], content_N, self._judge)

    def _lists(self) -> dict[str, Sign]:
        requests = self.day.requests
        pdr_SxK = self._best("pdr", self._own, requests, TOP)
        dr_SxK = self._best("dr", self._system.space.queries(requests.words_BxQ), requests, TOP)
        clicked_N = np.concatenate([np.zeros(0, np.int32), *self.day.clicked])
        return list_signs(pdr_SxK, dr_SxK, np.asarray(self._snapshot.popularity_V), clicked_N)

    def _persons(self) -> dict[str, Sign]:
        system, requests = self._system, self.day.requests
        events = system.reader.engaged(requests.user_B, requests.time_ms_B, 1)["history_BxH"]
        other = another(self.day.query_N)
        rows = np.flatnonzero((events > 0).any(1) & (self.day.query_N[other] != self.day.query_N))
        mine, asked = requests.take(rows), requests.words_BxQ[other[rows]]
        nobody = dataclasses.replace(mine, user_B=np.zeros_like(mine.user_B))  # no past, no profile, no preference
        vectors = [self._own[rows], system.pdr(nobody), system.pdr(dataclasses.replace(mine, words_BxQ=asked))]
        lists = [self._best("pdr", x, mine, TOP) for x in vectors]
        return person_signs(mine.user_B, *vectors, *lists, self._judge)

    def _recalls(self) -> dict[str, Sign]:
        """Of the last training day with searches, whose clicks the towers have learnt from, against the validation
        day's."""
        (start_ms,) = latest_days(self._system.store, 1)
        trained = day_of(self._system, start_ms, start_ms + DAY_MS).sample(SEARCHES)
        encoders = {"pdr": self._system.pdr, "dr": lambda r: self._system.space.queries(r.words_BxQ)}
        out = {}
        for channel, encode in encoders.items():
            found = []
            for day in (trained, self.day):
                best = self._index[channel].search(encode(day.requests), DEPTH, day.requests.seen)
                values, _ = list_values(day, best.ids_BxK, best.scores_BxK) if len(day.sessions) else (None, None)
                found.append((values["recall@100"], values.user_N) if values else (np.zeros(0), np.zeros(0, int)))
            out["content" if channel == "dr" else channel] = tuple(found)
        return recall_signs(out, self._judge)


def _passes(cosine_N: np.ndarray, cut: float) -> np.ndarray:
    """As the filter takes them (models/qrcf_arithmetic.py), before K."""
    return (cosine_N >= cut) & (cosine_N > 0)


def another(query_N: np.ndarray) -> np.ndarray:
    """For each search the row of one with another query, where there is any: half a turn in the order of queries."""
    order = np.argsort(query_N, kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, len(order) // 2)
    return other


def fallback_shares(
    seed_SxK: np.ndarray, strength_SxK: np.ndarray, similarity: ItemSimilarity, fallback_V: np.ndarray
) -> np.ndarray:
    """`[S]`: of the `DEPTH` best results of the walk, the share that owes more than half of its score to seeds whose
    neighbours are those by content; NaN where there is no result."""
    out_S = np.full(len(seed_SxK), np.nan)
    for row, (seeds_K, strength_K) in enumerate(zip(seed_SxK, strength_SxK, strict=True)):
        seeds_K, strength_K = seeds_K[strength_K > 0], strength_K[strength_K > 0]
        reached = np.asarray(similarity.neighbour_VxM)[seeds_K].ravel()
        each = (np.asarray(similarity.weight_VxM)[seeds_K] * strength_K[:, None]).ravel().astype(np.float64)
        kept = (reached > 0) & (each > 0)
        if not kept.any():
            continue
        by_content = np.repeat(fallback_V[seeds_K], similarity.neighbour_VxM.shape[1])
        _, at = np.unique(reached[kept], return_inverse=True)
        total, lent = (np.bincount(at, x) for x in (each[kept], (each * by_content)[kept]))
        best = np.argsort(-total, kind="stable")[:DEPTH]
        out_S[row] = float((lent[best] > total[best] / 2).mean())
    return out_S
