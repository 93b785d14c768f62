"""The search path of every caller: retrieve, merge, rank, calibrate and fuse batches of requests."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.special import expit

from pr2_jax.data.history.histories import past_events
from pr2_jax.encoders.batching import REQUEST_BLOCK
from pr2_jax.ranking import calibration
from pr2_jax.ranking.fusion import FusionWeights, fuse
from pr2_jax.ranking.query_map import QueryNumbers
from pr2_jax.ranking.ranker import Ranker
from pr2_jax.retrieval.encoded_requests import Channel, EncodedRequests
from pr2_jax.retrieval.merge import Merged
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.pipelines import BASE, Pipeline, pipelines
from pr2_jax.search.system import System
from pr2_jax.types import Candidates, Requests

LEAST_CANDIDATES = 50
"""Least number of candidates for the ranker. Popular videos fill up."""


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """Calibration of every head and fusion of the heads, fitted on the validation day."""

    heads: tuple[calibration.Calibrator, ...]
    fusion: FusionWeights

    @property
    def reads_query(self) -> bool:
        return any(isinstance(head, calibration.QueryMap) for head in self.heads)

    def probabilities(self, logits_xT: np.ndarray, query_BxF: np.ndarray | None = None) -> np.ndarray:
        """Calibrated probabilities; `query_BxF` (query_map.py) belongs to the first axis."""
        raw_xT = expit(np.asarray(logits_xT, np.float64))
        return np.stack([head.apply(raw_xT[..., t], query=query_BxF) for t, head in enumerate(self.heads)], axis=-1)

    def save(self, path: Path) -> None:
        heads = [{name: array.tolist() for name, array in head.to_dict().items()} for head in self.heads]
        path.write_text(json.dumps({"heads": heads, "fusion": dataclasses.asdict(self.fusion)}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Calibrated:
        stored = json.loads(path.read_text())
        heads = [{name: np.array(values) for name, values in head.items()} for head in stored["heads"]]
        return cls(tuple(calibration.from_dict(head) for head in heads), FusionWeights.from_dict(stored["fusion"]))


@dataclasses.dataclass(frozen=True)
class Ranked:
    """K results per request, best first; -1 = padding."""

    ids_BxK: np.ndarray  # int32 video rows
    scores_BxK: np.ndarray  # float32, fused, higher is better; -inf for padding
    probabilities_BxKxT: np.ndarray  # calibrated heads, NaN for one that was not learned
    relevance_BxK: np.ndarray  # merged retrieval score, 1 = the request's best
    sources_BxKxC: np.ndarray  # normalised channel scores
    found_BxKxC: np.ndarray  # whether the channel returned it
    channels: tuple[str, ...]
    heads: tuple[str, ...]  # names of the last axis of `probabilities`


@dataclasses.dataclass(frozen=True, eq=False)
class Searcher:
    """A pipeline over one snapshot."""

    system: System
    snapshot: Snapshot
    pipeline: Pipeline
    channels: Mapping[str, Channel]
    ranker: Ranker
    calibrated: Calibrated

    @classmethod
    def open(
        cls,
        system: System,
        snapshot: Snapshot,
        name: str = "pr2",
        *,
        exact: bool = False,
        channels: Mapping[str, Channel] | None = None,
    ) -> Searcher:
        """Opens a pipeline of a finished directory. `exact` as in `System.channels`; `channels` replace its own."""
        pipeline, rankers = pipelines(system.config)[name], system.workdir / "qin"
        if channels is None:
            channels = system.channels(snapshot, pipeline.channels, exact=exact)
        calibrated = Calibrated.load(rankers / f"{pipeline.scores_from}.json")
        return cls(system, snapshot, pipeline, channels, system.ranker(pipeline.ranker, rankers), calibrated)

    def retrieve(self, encoded: EncodedRequests) -> dict[str, Candidates]:
        """The results of every channel, to the configured depth."""
        depth = self.system.config.retrieval.depth
        return {name: channel.retrieve(encoded, depth) for name, channel in self.channels.items()}

    def candidates(self, encoded: EncodedRequests, found: Mapping[str, Candidates], k: int) -> Merged:
        """The merged list for ranking. If the channels find too little, popular videos fill up below."""
        return self.filled(encoded, self.system.merged(self.pipeline, encoded.requests, found, k))

    def filled(self, encoded: EncodedRequests, merged: Merged) -> Merged:
        """As `candidates`, from the merged list."""
        ids_BxK, scores_BxK, seen = merged.ids_BxK.copy(), merged.scores_BxK.copy(), encoded.requests.seen
        least = min(LEAST_CANDIDATES, ids_BxK.shape[1])
        for row in np.flatnonzero((ids_BxK > 0).sum(1) < least):
            have = ids_BxK[row][ids_BxK[row] > 0]
            taken = np.union1d(have, seen[row] if seen else [])
            fill = self._popular[~np.isin(self._popular, taken)][: least - len(have)]
            filled = slice(len(have), len(have) + len(fill))
            ids_BxK[row, filled], scores_BxK[row, filled] = fill, 0.0
        return dataclasses.replace(merged, ids_BxK=ids_BxK, scores_BxK=scores_BxK)

    @functools.cached_property
    def _popular(self) -> np.ndarray:
        """The most clicked videos, best first, more than a person is likely to have seen."""
        clicks_V = np.asarray(self.snapshot.popularity_V)
        best = np.argsort(-clicks_V, kind="stable")[: 20 * LEAST_CANDIDATES]
        return best[best > 0].astype(np.int32)

    def score(self, encoded: EncodedRequests, video_BxS: np.ndarray, is_feed: bool = False) -> np.ndarray:
        """Logits `[B, S, T]` of given videos (0 or -1 = padding), by blocks of requests."""
        video_BxS, rows_B = np.maximum(video_BxS, 0), np.arange(len(encoded))
        parts = [np.zeros((0, *video_BxS.shape[1:], len(self.heads)), np.float32)]
        for start in range(0, len(encoded), REQUEST_BLOCK):
            rows = rows_B[start : start + REQUEST_BLOCK]
            part, videos = encoded.take(rows), video_BxS[rows]
            features = self.system.features(part, videos, self.snapshot.similarity, self.ranker.needs)
            parts.append(self.ranker.logits(part, videos, features, is_feed))
        return np.concatenate(parts)

    def probabilities(self, requests: Requests, logits_BxSxT: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[B, S, T]` of the logits from `score`."""
        query_BxF = QueryNumbers(self.system.log.counters)(requests) if self.calibrated.reads_query else None
        return self.calibrated.probabilities(logits_BxSxT, query_BxF)

    def rank(self, encoded: EncodedRequests, merged: Merged) -> Ranked:
        """The merged candidates in the ranker's order."""
        relevance_BxK = relevance(merged)
        score_BxK = np.empty(merged.ids_BxK.shape, np.float32)
        probabilities = np.empty((*score_BxK.shape, len(self.heads)))
        stranger_B = self._strangers(encoded.requests)
        for known, rows in ((True, np.flatnonzero(~stranger_B)), (False, np.flatnonzero(stranger_B))):
            if len(rows):
                searcher, part = self if known else self._plain, encoded.take(rows)
                logits = searcher.score(part, merged.ids_BxK[rows])
                probabilities[rows] = searcher.probabilities(part.requests, logits)
                score_BxK[rows] = fuse(probabilities[rows], relevance_BxK[rows], searcher.calibrated.fusion)
        score_BxK = np.where(merged.ids_BxK > 0, score_BxK, -np.inf)
        order_BxK = np.argsort(-score_BxK, axis=1, kind="stable")

        unordered = merged.ids_BxK, score_BxK, probabilities, relevance_BxK, merged.sources_BxKxC, merged.found_BxKxC
        columns = (np.take_along_axis(x, np.expand_dims(order_BxK, (*range(2, x.ndim),)), axis=1) for x in unordered)
        return Ranked(*columns, merged.channels, self.heads)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads, the same for both rankers."""
        return tuple(head.name for head in self.system.config.qin.prediction_heads)

    def _strangers(self, requests: Requests) -> np.ndarray:
        """People with too short a past for the personal ranker. The base ranker orders their candidates."""
        if self.pipeline.ranker == BASE.ranker:
            return np.zeros(len(requests), bool)
        events_B = past_events(self.system.store, requests.user_B, requests.time_ms_B)
        return events_B < self.system.config.search.least_events

    @functools.cached_property
    def _plain(self) -> Searcher:
        """The base ranker with its own calibration and fusion. It only scores, and shares the channels."""
        return Searcher.open(self.system, self.snapshot, BASE.name, channels=self.channels)


def relevance(merged: Merged) -> np.ndarray:
    """Merged score over the request's best, `[B, K]` in [0, 1]."""
    score_BxK = np.where(merged.ids_BxK > 0, merged.scores_BxK, 0.0)
    return np.maximum(score_BxK, 0) / np.maximum(score_BxK.max(1, keepdims=True, initial=0), 1e-9)
