"""Diagnostics of QRCF and PDR on searches of the validation day: seed coverage, collapse, hubs, over-fit."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy.stats import entropy

from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import latest_days
from pr2_jax.data.schema import DAY_MS
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.evaluation.rankings import catalogue_metrics
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.retrieval.ann import Index
from pr2_jax.search.system import System
from pr2_jax.studies.diagnose.findings import Diagnostic, Mean
from pr2_jax.types import Requests

SEARCHES = 1_000
"""Searches of a day that are looked at, at most, evenly spread."""
VIDEOS = 2_048
"""Videos whose vectors are looked at, at most, drawn by the evaluation's seed."""
TOP, DEPTH = 10, 100
"""Results of a list that are compared, and within which recall is measured."""
HUBS = 0.01
"""Share of the catalogue that counts as its most retrieved videos."""


class RetrievalDiagnostics:
    """Measures one system; what several checks need is computed once."""

    def __init__(self, system: System, config: Config, mean: Mean) -> None:
        self._system, self._config, self._mean = system, config, mean

    def all(self) -> dict[str, Diagnostic]:
        return {
            "qrcf.coverage": self.coverage(),
            "pdr.rank": self.rank(),
            "pdr.hubs": self.hubs(),
            "pdr.without_person": self.without_person(),
            "fit.pdr_recall": self.recall_gap("pdr"),
            "fit.content_recall": self.recall_gap("dr"),
        }

    @functools.cached_property
    def day(self) -> Day:
        """Searches of the validation day with a click."""
        cuts = self._system.store.cuts
        return day_of(self._system, cuts.validation_ms, cuts.test_ms).sample(SEARCHES)

    @functools.cached_property
    def _trained_day(self) -> Day:
        """The last training day with searches, whose clicks the towers have learnt from."""
        (start_ms,) = latest_days(self._system.store, 1)
        return day_of(self._system, start_ms, start_ms + DAY_MS).sample(SEARCHES)

    @functools.cached_property
    def _index(self) -> dict[str, Index]:
        """Exact: an approximate search would blur what is measured here."""
        return {name: self._system.fitted.index(name, exact=True) for name in ("dr", "pdr")}

    @functools.cached_property
    def _pdr_SxD(self) -> np.ndarray:
        return self._system.pdr(self._system.encode(self.day.requests))

    def _top(self, name: str, vectors_SxD: np.ndarray, requests: Requests) -> np.ndarray:
        return self._index[name].search(vectors_SxD, TOP, requests.seen).ids_BxK

    def coverage(self) -> Diagnostic:
        system, requests = self._system, self.day.requests
        told = requests.take(np.flatnonzero(np.any(system.space.queries(requests.words_BxQ), axis=1)))
        kept_S = (system.seeds(told).strength_BxK > 0).sum(1)
        history = system.log.reader.engaged(told.user_B, told.time_ms_B, self._config.retrieval.qrcf.history)
        past_S = (system.seeds.weights(history) > 0).sum(1)
        return seed_coverage(told.user_B, kept_S, past_S, self._mean)

    def rank(self) -> Diagnostic:
        vectors_VxD = self._index["pdr"].vectors_VxD
        rows = np.random.default_rng(self._config.evaluation.seed).permutation(len(vectors_VxD) - 1)[:VIDEOS] + 1
        return rank_share(np.asarray(vectors_VxD)[np.sort(rows)])

    def hubs(self) -> Diagnostic:
        requests = self.day.requests
        dr_SxK = self._top("dr", self._system.space.queries(requests.words_BxQ), requests)
        return hub_excess(self._top("pdr", self._pdr_SxD, requests), dr_SxK, self._system.store.counts.videos)

    def without_person(self) -> Diagnostic:
        """Of searches by people with a past."""
        system, requests = self._system, self.day.requests
        events = system.log.reader.engaged(requests.user_B, requests.time_ms_B, 1)["history_BxH"]
        rows = np.flatnonzero((events > 0).any(1))
        mine = requests.take(rows)
        nobody = dataclasses.replace(mine, user_B=np.zeros_like(mine.user_B))  # no past, no profile, no preference
        own = self._top("pdr", self._pdr_SxD[rows], mine)
        without = self._top("pdr", system.pdr(system.encode(nobody)), mine)
        return Diagnostic(self._mean(overlaps(own, without), mine.user_B))

    def recall_gap(self, channel: str) -> Diagnostic:
        return gap(*(self._mean(*self._recall(channel, day)) for day in (self._trained_day, self.day)))

    def _recall(self, channel: str, day: Day) -> tuple[np.ndarray, np.ndarray]:
        """recall@100 of each search, and its user."""
        if not len(day.sessions):
            return np.zeros(0), np.zeros(0, int)
        encoded = self._system.encode(day.requests)
        vectors_SxD = self._system.pdr(encoded) if channel == "pdr" else encoded.query_BxD
        best = self._index[channel].search(vectors_SxD, DEPTH, day.requests.seen)
        found, _ = catalogue_metrics(day, best.ids_BxK, best.scores_BxK)
        return found["recall@100"], found.user_N


def seed_coverage(user_S: np.ndarray, seeds_S: np.ndarray, past_S: np.ndarray, mean: Mean) -> Diagnostic:
    """By the seeds kept and the past views looked at of each search whose query has a known word."""
    rows = np.flatnonzero(past_S > 0)
    return Diagnostic(mean(seeds_S[rows] > 0, user_S[rows]), f"{len(rows):,} searches")


def rank_share(vectors_NxD: np.ndarray) -> Diagnostic:
    """The effective rank as a share of the width."""
    rank, (videos, width) = effective_rank(vectors_NxD), vectors_NxD.shape
    return Diagnostic(rank / width, f"{rank:.1f} of {width} axes; {videos:,} videos")


def effective_rank(vectors_NxD: np.ndarray) -> float:
    """Axes in use: exp of the entropy of the spectrum of second moments [lit: Roy and Vetterli 2007]. These are not
    centred, so that equal vectors have rank 1."""
    x_NxD = vectors_NxD.astype(np.float64)
    spectrum_D = np.maximum(np.linalg.eigvalsh(x_NxD.T @ x_NxD), 0)
    return float(np.exp(entropy(spectrum_D))) if spectrum_D.sum() else np.nan


def hub_excess(pdr_SxK: np.ndarray, dr_SxK: np.ndarray, videos: int) -> Diagnostic:
    """Lists of both channels for the same searches. dr knows nothing of the person: its hubs are those that the log's
    queries make inevitable."""
    if not (dr_SxK > 0).any():  # no video has a content vector, say: there is nothing to measure by
        return Diagnostic(np.nan, "dr finds nothing")
    hubs, by_dr = (hub_share(ids_SxK, videos) for ids_SxK in (pdr_SxK, dr_SxK))
    return Diagnostic(hubs - by_dr, f"pdr {hubs:.3f}, dr {by_dr:.3f}")


def hub_share(ids_SxK: np.ndarray, videos: int) -> float:
    """Share of all slots that the most retrieved hundredth of the videos fill."""
    count_V = np.bincount(ids_SxK[ids_SxK > 0], minlength=videos)[1:]
    best = np.sort(count_V)[::-1][: max(1, round(HUBS * len(count_V)))]
    return float(best.sum() / max(count_V.sum(), 1))


def overlaps(one_SxK: np.ndarray, other_SxK: np.ndarray) -> np.ndarray:
    """`[S]`: share of the results of one list that the other has too, NaN where there are none."""
    real_SxK = one_SxK > 0
    both_S = ((one_SxK[:, :, None] == other_SxK[:, None, :]) & real_SxK[:, :, None]).any(2).sum(1)
    length_S = real_SxK.sum(1)
    return np.divide(both_S, length_S, out=np.full(len(length_S), np.nan), where=length_S > 0)


def gap(trained: Interval, held: Interval) -> Diagnostic:
    """trained - held, of independent samples: half widths add as errors do."""
    mean, half = trained.mean - held.mean, np.hypot((trained.high - trained.low) / 2, (held.high - held.low) / 2)
    difference = Interval(mean, float(mean - half), float(mean + half), min(trained.count, held.count))
    days = (("training", trained), ("validation", held))
    return Diagnostic(difference, ", ".join(f"{day} day {v.mean:.3f} ({v.count:,} searches)" for day, v in days))
