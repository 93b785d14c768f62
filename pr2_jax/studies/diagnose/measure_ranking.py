"""What `pr2 evaluate --diagnose` measures of QIN and of its calibrated probabilities.

Everything is about the validation day but calibration, which alone looks at the test day, to report it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import evenly_spread
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.history.histories import past_events
from pr2_jax.encoders.batching import in_blocks
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.ranking.query_map import QueryNumbers
from pr2_jax.search.searcher import Calibrated
from pr2_jax.search.system import System
from pr2_jax.stages.train_qin import FEATURE_BLOCK, slate_features
from pr2_jax.studies.diagnose.diagnosis import Judge, Sign
from pr2_jax.studies.diagnose.measure_retrieval import another
from pr2_jax.studies.diagnose.ranking_diagnostics import (
    Slate,
    calibration_signs,
    gate_signs,
    history_signs,
    position_signs,
)
from pr2_jax.types import ModelFunction

SESSIONS = 1_000
"""Of the validation and of the test day, at most, evenly spread."""
FEED_SLATES = 300
"""Of the validation day's feed views, where alone long play and like are known."""
SLATE_BLOCK = 64
HISTORY = ("history_BxH", "signals_BxHxG", "gap_seconds_BxH", "recent_BxR", "recent_signals_BxRxG", "recent_gap_BxR")
"""What a batch knows of a person's past; the profile and all numbers about results are told beside it."""

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits, what positions add, gates."""


class RankingSigns:
    """Measures of one system; each piece is made once."""

    def __init__(self, system: System, config: Config, judge: Judge) -> None:
        self._system, self._config, self._judge = system, config, judge
        with artifacts.reading(system.workdir / "qin"):
            self._scaler = Scaler.load(system.workdir / "qin" / "scaler.npz")
            self._calibrated = Calibrated.load(system.workdir / "qin" / "pr2.json")

    def all(self) -> dict[str, Sign]:
        return self._experts() | self._position() | self._histories() | self._calibration()

    @functools.cached_property
    def _slates(self) -> Slates:
        cuts = self._system.store.cuts
        return self._of_day(cuts.validation_ms, cuts.test_ms, SESSIONS)

    @functools.cached_property
    def _own(self) -> Outputs:
        return self._outputs(self._slates, self._features)

    @functools.cached_property
    def _features(self) -> np.ndarray:
        return self._features_of(self._slates, self._system.store.cuts.validation_ms)

    def _of_day(self, start_ms: int, stop_ms: int, most: int) -> Slates:
        first, last = np.searchsorted(self._system.store.sessions.time_ms, [start_ms, stop_ms])
        return search_slates(self._system.store, first + evenly_spread(last - first, most), self._config.qin.slate)

    def _features_of(self, slates: Slates, day_ms: int) -> np.ndarray:
        """As serving computes them on a day that nothing was trained on."""
        if not len(slates):
            return np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32)
        similarity = self._system.fitted.snapshot(day_ms).similarity
        blocks = np.split(np.arange(len(slates)), range(FEATURE_BLOCK, len(slates), FEATURE_BLOCK))
        return np.concatenate([slate_features(self._system, slates, rows, similarity) for rows in blocks])

    @functools.cached_property
    def _ranker(self) -> tuple[SlateReader, ModelFunction]:
        system, config = self._system, self._config
        reader = SlateReader(system.log.reader, system.fitted.query_vectors_NqxD, config.qin, config.data)
        return reader, system.models.insides("qin", system.workdir / "qin" / "qin")

    def _outputs(self, slates: Slates, features: np.ndarray, past_of_N: np.ndarray | None = None) -> Outputs:
        """`past_of_N`: whose history is put in place of each person's own."""
        reader, insides = self._ranker
        config = self._config.qin
        if not len(slates):
            shape = (0, slates.video_NxS.shape[1], len(config.prediction_heads))
            empty = np.zeros(shape, np.float32)
            return empty, empty, np.zeros((*shape, config.experts), np.float32)
        scaled = self._scaler(features)[..., self._system.columns(config)]
        parts = []
        for start in range(0, len(slates), SLATE_BLOCK):
            rows = slice(start, start + SLATE_BLOCK)
            asked = slates.time_ms_N[rows], slates.query_N[rows]
            batch = reader(slates.user_N[rows], *asked)
            if past_of_N is not None:
                lent = reader(past_of_N[rows], *asked)
                batch |= {key: lent[key] for key in HISTORY if key in lent}
            batch |= {
                "is_feed_B": slates.is_feed_N[rows].astype(np.float32),
                "video_BxS": slates.video_NxS[rows],
                "position_BxS": slates.position_NxS[rows],
                "features_BxSxF": scaled[rows],
            }
            parts.append(in_blocks(insides, batch, SLATE_BLOCK, least=SLATE_BLOCK))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _experts(self) -> dict[str, Sign]:
        """Gates of heads that learn clicks on search results, of the others on feed views."""
        cuts = self._system.store.cuts
        views = feed_slates(self._system.log.reader, cuts.validation_ms, cuts.test_ms, self._config.qin.slate)
        feed = views.sample(FEED_SLATES)
        features = self._features_of(feed, cuts.validation_ms)
        _, _, of_feed = self._outputs(feed, features)
        _, _, of_search = self._own
        gates, rows = {}, {}
        for t, head in enumerate(self._config.qin.prediction_heads):
            gate, slates = (of_search, self._slates) if head.label == "click" else (of_feed, feed)
            gates[head.name] = gate[slates.video_NxS > 0][:, t]
            rows[head.name] = "search results" if head.label == "click" else "feed views"
        return gate_signs(gates, rows)

    def _position(self) -> dict[str, Sign]:
        return position_signs(_slate(self._slates), self._own[0][..., 0], self._judge)

    def _histories(self) -> dict[str, Sign]:
        slates, store = self._slates, self._system.store
        other_N = slates.user_N[another(slates.user_N)] if len(slates) else slates.user_N
        strange = dataclasses.replace(slates, user_N=other_N)
        lent, _, _ = self._outputs(slates, self._features, past_of_N=other_N)
        stranger, _, _ = self._outputs(strange, self._features_of(strange, store.cuts.validation_ms))
        events_N = past_events(store, slates.user_N, slates.time_ms_N)
        logits = [x[..., 0] for x in (self._own[0], lent, stranger)]
        return history_signs(_slate(slates), *logits, events_N, self._judge)

    def _calibration(self) -> dict[str, Sign]:
        system, cuts = self._system, self._system.store.cuts
        slates = self._of_day(cuts.test_ms, cuts.end_ms, SESSIONS)
        logit, _, _ = self._outputs(slates, self._features_of(slates, cuts.test_ms))
        real, reads = slates.video_NxS > 0, self._calibrated.reads_query
        query = QueryNumbers(system.log.counters)(system.log.requests_of(slates)) if reads else None
        p = self._calibrated.probabilities(logit, query)[..., 0] if len(slates) else logit[..., 0]
        return calibration_signs(p[real], slates.label("click")[real] > 0)


def _slate(slates: Slates) -> Slate:
    return Slate(slates.user_N, slates.video_NxS > 0, slates.label("click"), slates.position_NxS)
