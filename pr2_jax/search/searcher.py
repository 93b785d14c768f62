"""Retrieve, merge, rank, calibrate, fuse: batches of requests in, ranked videos out. One path for every caller."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.special import expit

from pr2_jax.data.history.histories import past_events
from pr2_jax.encoders.batching import REQUEST_BLOCK
from pr2_jax.ranking import calibration
from pr2_jax.ranking.fusion import FusionWeights, fuse
from pr2_jax.ranking.ranker import Ranker
from pr2_jax.retrieval.merge import Merged
from pr2_jax.search.system import RANKERS, SCORES, Snapshot, System
from pr2_jax.types import TASKS, Candidates, Channel, Requests

LEAST_CANDIDATES = 50
"""Candidates that the ranker gets at least, popular ones if the channels find fewer."""


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """The maps from logits to probabilities and from probabilities to one score, fitted on the validation day."""

    heads: tuple[calibration.Calibrator, ...]  # one a task
    fusion: FusionWeights

    @property
    def reads_query(self) -> bool:
        """Whether a head's map depends on the query."""
        return any(isinstance(head, calibration.QueryMap) for head in self.heads)

    def probabilities(self, logits_xT: np.ndarray, query_BxF: np.ndarray | None = None) -> np.ndarray:
        """Calibrated probabilities of the same shape; `query_BxF` (query_numbers.py) of the first axis' requests."""
        raw_xT = expit(np.asarray(logits_xT, np.float64))
        return np.stack([head.apply(raw_xT[..., t], query=query_BxF) for t, head in enumerate(self.heads)], axis=-1)

    def save(self, path: Path) -> None:
        heads = [{name: array.tolist() for name, array in head.to_dict().items()} for head in self.heads]
        path.write_text(json.dumps({"heads": heads, "fusion": self.fusion.to_dict()}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Calibrated:
        stored = json.loads(path.read_text())
        heads = [{name: np.array(values) for name, values in head.items()} for head in stored["heads"]]
        return cls(tuple(calibration.from_dict(head) for head in heads), FusionWeights.from_dict(stored["fusion"]))


@dataclasses.dataclass(frozen=True)
class Ranked:
    """K results a request, best first; -1 = padding."""

    ids_BxK: np.ndarray  # int32 video rows
    scores_BxK: np.ndarray  # float32, fused, higher is better; -inf for padding
    probabilities_BxKxT: np.ndarray  # calibrated heads, NaN for one that was not learned
    relevance_BxK: np.ndarray  # merged retrieval score, 1 = the request's best
    sources_BxKxC: np.ndarray  # normalised channel scores
    found_BxKxC: np.ndarray  # whether the channel itself returned it
    channels: tuple[str, ...]
    heads: tuple[str, ...] = TASKS


class Searcher:
    """One of `PIPELINES`, or of the steps between them, over one snapshot."""

    def __init__(
        self,
        system: System,
        snapshot: Snapshot,
        name: str = "pr2",
        calibrated: Calibrated | None = None,
        rankers: Path | None = None,
        *,
        exact: bool = False,
        opened: Mapping[str, Channel] | None = None,
    ) -> None:
        """`calibrated` and `rankers` are given while the ranker's stage is still made; `exact` as in `channels`.

        `opened`: channels instead of its own, which are then not opened.
        """
        rankers = rankers or system.workdir / "qin"
        self._rankers = rankers
        self.name, self._system, self._snapshot = name, system, snapshot
        self.channels = opened
        if opened is None:
            everything = system.channels(snapshot, exact=exact)
            self.channels = {channel: everything[channel] for channel in system.channels_of(name)}
        self._ranker: Ranker = system.ranker(RANKERS[name], rankers)
        self._features = system.features()
        self.calibrated = calibrated or Calibrated.load(rankers / f"{SCORES[RANKERS[name]]}.json")

    @property
    def impersonal(self) -> bool:
        """Whether neither its channels nor its ranker know the person."""
        return impersonal(self.name, self.channels)

    def retrieve(self, requests: Requests) -> dict[str, Candidates]:
        """Every channel's results, to the configured depth."""
        depth = self._system.config.retrieval.depth
        return {name: channel.retrieve(requests, depth) for name, channel in self.channels.items()}

    def merge(self, requests: Requests, found: Mapping[str, Candidates], k: int) -> Merged:
        """One list of this pipeline's channels, with the weights of the validation day."""
        return self._system.merged(self.name, requests, found, k)

    def candidates(self, requests: Requests, found: Mapping[str, Candidates], k: int) -> Merged:
        """The merged list for ranking. Where the channels find next to nothing (no known word, no person), what is
        popular fills up, below everything found."""
        merged = self.merge(requests, found, k)
        short_B = (merged.ids_BxK > 0).sum(1) < min(LEAST_CANDIDATES, k)
        for row in np.flatnonzero(short_B):
            have = merged.ids_BxK[row][merged.ids_BxK[row] > 0]
            taken = np.union1d(have, requests.seen[row] if requests.seen else [])
            fill = self._popular[~np.isin(self._popular, taken)][: min(LEAST_CANDIDATES, k) - len(have)]
            merged.ids_BxK[row, len(have) : len(have) + len(fill)] = fill
            merged.scores_BxK[row, len(have) : len(have) + len(fill)] = 0.0
        return merged

    @functools.cached_property
    def _popular(self) -> np.ndarray:
        """The most clicked videos of the snapshot, best first; enough that a person's own past cannot exhaust them."""
        clicks_V = np.asarray(self._snapshot.popularity_V)
        best = np.argsort(-clicks_V, kind="stable")[: 20 * LEAST_CANDIDATES]
        return best[best > 0].astype(np.int32)

    def score(
        self, requests: Requests, query_B: np.ndarray, video_BxS: np.ndarray, is_feed: bool = False
    ) -> np.ndarray:
        """Logits `[B, S, T]` of given videos (0 or -1 = padding), a block of requests at a time."""
        video_BxS, parts = np.maximum(video_BxS, 0), []
        for start in range(0, len(requests), REQUEST_BLOCK):
            part, rows = requests.slice(start, start + REQUEST_BLOCK), slice(start, start + REQUEST_BLOCK)
            features = self._features(
                part, query_B[rows], video_BxS[rows], self._snapshot.similarity, self._ranker.needs
            )
            content_BxD = self._system.space.queries(part.words_BxQ)
            logits = self._ranker.logits(
                part.user_B, part.time_ms_B, part.words_BxQ, content_BxD, video_BxS[rows], features, is_feed
            )
            parts.append(logits)
        return np.concatenate(parts) if parts else np.zeros((*video_BxS.shape, len(TASKS)), np.float32)

    def probabilities(self, requests: Requests, query_B: np.ndarray, logits_BxSxT: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[B, S, T]` of what `score` gave."""
        query_BxF = self._system.query_numbers(requests, query_B) if self.calibrated.reads_query else None
        return self.calibrated.probabilities(logits_BxSxT, query_BxF)

    def rank(self, requests: Requests, query_B: np.ndarray, merged: Merged) -> Ranked:
        """The merged candidates in the ranker's order."""
        relevance_BxK = relevance(merged)
        score_BxK = np.empty(merged.ids_BxK.shape, np.float32)
        probabilities = np.empty((*score_BxK.shape, len(TASKS)))
        stranger_B = self._strangers(requests)
        for searcher, rows in ((self, np.flatnonzero(~stranger_B)), (self._plain, np.flatnonzero(stranger_B))):
            if len(rows):
                part = requests.take(rows)
                logits = searcher.score(part, query_B[rows], merged.ids_BxK[rows])
                probabilities[rows] = searcher.probabilities(part, query_B[rows], logits)
                score_BxK[rows] = fuse(probabilities[rows], relevance_BxK[rows], searcher.calibrated.fusion)
        score_BxK = np.where(merged.ids_BxK > 0, score_BxK, -np.inf)
        order_BxK = np.argsort(-score_BxK, axis=1, kind="stable")

        def ordered(x: np.ndarray) -> np.ndarray:
            return np.take_along_axis(x, order_BxK.reshape(*order_BxK.shape, *[1] * (x.ndim - 2)), axis=1)

        return Ranked(
            ordered(merged.ids_BxK),
            ordered(score_BxK),
            ordered(probabilities),
            ordered(relevance_BxK),
            ordered(merged.sources_BxKxC),
            ordered(merged.found_BxKxC),
            merged.channels,
        )

    def _strangers(self, requests: Requests) -> np.ndarray:
        """Whose past is too short for the personal ranker: they get the other one's order of the same candidates."""
        if self.name == "base":
            return np.zeros(len(requests), bool)
        events_B = past_events(self._system.store, requests.user_B, requests.time_ms_B)
        return events_B < self._system.config.search.least_events

    @functools.cached_property
    def _plain(self) -> Searcher:
        """The base ranker with its own calibration and fusion. It only scores: what the other opened is good enough."""
        return Searcher(self._system, self._snapshot, "base", rankers=self._rankers, opened=self.channels)


def impersonal(pipeline: str, channels: Iterable[str]) -> bool:
    """Whether neither these channels nor its ranker know the person."""
    return RANKERS[pipeline] == "base" and not {"qrcf", "pdr"} & set(channels)


def relevance(merged: Merged) -> np.ndarray:
    """Merged score as a share of the request's best, `[B, K]` in [0, 1]."""
    score_BxK = np.where(merged.ids_BxK > 0, merged.scores_BxK, 0.0)
    return np.maximum(score_BxK, 0) / np.maximum(score_BxK.max(1, keepdims=True, initial=0), 1e-9)
