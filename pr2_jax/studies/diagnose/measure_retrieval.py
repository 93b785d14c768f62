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
from pr2_jax.retrieval.ann import Index
from pr2_jax.search.system import System
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
    def _index(self) -> dict[str, Index]:
        """Exact, as everything that something is judged by more finely than by recall."""
        return {name: self._system.fitted.index(name, exact=True) for name in ("dr", "pdr")}

    @functools.cached_property
    def _own(self) -> np.ndarray:
        return self._system.pdr(self._system.encode(self.day.requests))

    def _best(self, name: str, vectors_SxD: np.ndarray, requests: Requests, k: int) -> np.ndarray:
        return self._index[name].search(vectors_SxD, k, requests.seen).ids_BxK

    def _seeds(self) -> dict[str, Sign]:
        system, requests = self._system, self.day.requests
        told = requests.take(np.flatnonzero(np.any(system.space.queries(requests.words_BxQ), axis=1)))
        kept_S = (system.seeds(told).strength_BxK > 0).sum(1)
        history = system.log.reader.engaged(told.user_B, told.time_ms_B, self._config.retrieval.qrcf.history)
        past_S = (system.seeds.weights(history) > 0).sum(1)
        return seed_signs(told.user_B, kept_S, past_S, self._judge)

    def _vectors(self) -> dict[str, Sign]:
        vectors_VxD = self._index["pdr"].vectors_VxD
        rows = np.random.default_rng(self._config.evaluation.seed).permutation(len(vectors_VxD) - 1)[:VIDEOS] + 1
        return vector_signs(np.asarray(vectors_VxD)[np.sort(rows)])

    def _lists(self) -> dict[str, Sign]:
        requests = self.day.requests
        pdr_SxK = self._best("pdr", self._own, requests, TOP)
        dr_SxK = self._best("dr", self._system.space.queries(requests.words_BxQ), requests, TOP)
        return list_signs(pdr_SxK, dr_SxK, self._system.store.counts.videos)

    def _persons(self) -> dict[str, Sign]:
        system, requests = self._system, self.day.requests
        events = system.log.reader.engaged(requests.user_B, requests.time_ms_B, 1)["history_BxH"]
        rows = np.flatnonzero((events > 0).any(1))
        mine = requests.take(rows)
        nobody = dataclasses.replace(mine, user_B=np.zeros_like(mine.user_B))  # no past, no profile, no preference
        without = system.pdr(system.encode(nobody))
        own, without = (self._best("pdr", x, mine, TOP) for x in (self._own[rows], without))
        return person_signs(mine.user_B, own, without, self._judge)

    def _recalls(self) -> dict[str, Sign]:
        """Of the last training day with searches, whose clicks the towers have learnt from, against the validation
        day's."""
        (start_ms,) = latest_days(self._system.store, 1)
        trained = day_of(self._system, start_ms, start_ms + DAY_MS).sample(SEARCHES)
        encoders = {"pdr": self._system.pdr, "dr": lambda encoded: encoded.query_BxD}
        out = {}
        for channel, encode in encoders.items():
            found = []
            for day in (trained, self.day):
                best = self._index[channel].search(encode(self._system.encode(day.requests)), DEPTH, day.requests.seen)
                values, _ = list_values(day, best.ids_BxK, best.scores_BxK) if len(day.sessions) else (None, None)
                found.append((values["recall@100"], values.user_N) if values else (np.zeros(0), np.zeros(0, int)))
            out["content" if channel == "dr" else channel] = tuple(found)
        return recall_signs(out, self._judge)


def another(query_N: np.ndarray) -> np.ndarray:
    """For each search the row of one with another query, where there is any: half a turn in the order of queries."""
    order = np.argsort(query_N, kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, len(order) // 2)
    return other
