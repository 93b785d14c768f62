"""What `pr2 evaluate --diagnose` measures of QIN and of its calibrated probabilities.

Everything is about the validation day but over-fit (against the last training day, with the features that the ranker
was trained on) and drift by day, which alone looks at the test day, to report it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import Config, QinConfig
from pr2_jax.data.batches.sessions import evenly_spread, latest_days
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.history.histories import past_events
from pr2_jax.data.schema import DAY_MS
from pr2_jax.encoders.batching import in_blocks
from pr2_jax.metrics.slicing import quantiles
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.search.searcher import Calibrated
from pr2_jax.search.system import System
from pr2_jax.stages.train_qin import FEATURE_BLOCK, features_by_day, slate_features
from pr2_jax.studies.diagnose.diagnosis import Judge, Sign
from pr2_jax.studies.diagnose.measure_retrieval import another
from pr2_jax.studies.diagnose.ranking_diagnostics import (
    DayRows,
    Slate,
    drift_signs,
    fit_signs,
    gate_signs,
    history_signs,
    position_signs,
)
from pr2_jax.types import TASKS, ModelFunction

SESSIONS = 1_000
"""Of the validation and of the test day, at most, evenly spread."""
TRAINED_SESSIONS = 500
"""Of each training day: item-to-item similarity is fitted anew for each, which costs more than the slates."""
TRAINED_DAYS = 3
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
        return self._experts() | self._position() | self._histories() | self._fit() | self._drift()

    @functools.cached_property
    def _slates(self) -> Slates:
        """Of the validation day."""
        cuts = self._system.store.cuts
        return self._of_day(cuts.validation_ms, cuts.test_ms, SESSIONS)

    @functools.cached_property
    def _own(self) -> Outputs:
        return self._outputs("qin", self._slates, self._features)

    @functools.cached_property
    def _features(self) -> np.ndarray:
        return self._features_of(self._slates, self._system.store.cuts.validation_ms)

    def _of_day(self, start_ms: int, stop_ms: int, most: int) -> Slates:
        first, last = np.searchsorted(self._system.store.sessions.time_ms, [start_ms, stop_ms])
        return search_slates(self._system.store, first + evenly_spread(last - first, most), self._config.qin.slate)

    def _features_of(self, slates: Slates, day_ms: int, user_N: np.ndarray | None = None) -> np.ndarray:
        """As serving computes them on a day that nothing was trained on; `user_N`: as if these people asked."""
        if not len(slates):
            return np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32)
        asked = slates if user_N is None else dataclasses.replace(slates, user_N=user_N)
        compute, similarity = self._system.features(), self._system.snapshot(day_ms).similarity
        blocks = np.split(np.arange(len(asked)), range(FEATURE_BLOCK, len(asked), FEATURE_BLOCK))
        return np.concatenate([slate_features(self._system, compute, asked, rows, similarity) for rows in blocks])

    def _ranker(self, name: str) -> tuple[QinConfig, SlateReader, ModelFunction]:
        config = self._config.qin if name == "qin" else self._config.base
        reader = SlateReader(self._system.reader, self._system.query_vectors_NqxD, config, self._config.data)
        return config, reader, self._insides(name)

    @functools.cache  # noqa: B019  lives as long as the command
    def _insides(self, name: str) -> ModelFunction:
        return self._system.trained.insides(name, self._system.workdir / "qin" / name)

    def _outputs(self, name: str, slates: Slates, features: np.ndarray, past_of_N: np.ndarray | None = None) -> Outputs:
        """Of `qin` or `base`. `past_of_N`: whose history is put in place of each person's own."""
        config, reader, insides = self._ranker(name)
        if not len(slates):
            size = slates.video_NxS.shape[1]
            empty = np.zeros((0, size, len(TASKS)), np.float32)
            return empty, empty, np.zeros((0, size, len(TASKS), config.experts), np.float32)
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
        """Gates of clicks on search results, of the other tasks on feed views."""
        cuts = self._system.store.cuts
        views = feed_slates(self._system.reader, cuts.validation_ms, cuts.test_ms, self._config.qin.slate)
        feed = views.sample(FEED_SLATES)
        features = self._features_of(feed, cuts.validation_ms)
        _, _, of_feed = self._outputs("qin", feed, features)
        _, _, of_search = self._own
        gates = {task: of_feed[feed.video_NxS > 0][:, t] for t, task in enumerate(TASKS)}
        gates["click"] = of_search[self._slates.video_NxS > 0][:, 0]
        return gate_signs(gates, {task: "search results" if task == "click" else "feed views" for task in gates})

    def _position(self) -> dict[str, Sign]:
        logit, added, _ = self._own
        return position_signs(_slate(self._slates), logit[..., 0], added[..., 0], self._judge)

    def _histories(self) -> dict[str, Sign]:
        slates, store, search = self._slates, self._system.store, self._config.search
        day_ms = store.cuts.validation_ms
        other_N = slates.user_N[another(slates.user_N)] if len(slates) else slates.user_N
        strange = dataclasses.replace(slates, user_N=other_N)
        own, _, _ = self._own
        base, _, _ = self._outputs("base", slates, self._features)
        lent, _, _ = self._outputs("qin", slates, self._features, past_of_N=other_N)
        stranger, _, _ = self._outputs("qin", strange, self._features_of(strange, day_ms))
        events_N = past_events(store, slates.user_N, slates.time_ms_N)
        enough_N = events_N[events_N >= search.least_events]
        quarter, half, _ = quantiles(enough_N, 4)
        bounds = search.least_events, quarter, half
        logits = [x[..., 0] for x in (own, base, lent, stranger)]
        return history_signs(_slate(slates), *logits, events_N, bounds, self._judge)

    @functools.cached_property
    def _trained(self) -> list[tuple[Slates, np.ndarray]]:
        """By training day with searches, the earliest first: its slates, and their logits by the features that were
        trained on."""
        starts = latest_days(self._system.store, TRAINED_DAYS)
        days = [self._of_day(start_ms, start_ms + DAY_MS, TRAINED_SESSIONS) for start_ms in starts]
        features = features_by_day(self._system, days)
        return [(day, self._outputs("qin", day, x)[0]) for day, x in zip(days, features, strict=True)]

    def _fit(self) -> dict[str, Sign]:
        slates, logit = self._trained[-1]
        return fit_signs((_slate(slates), logit[..., 0]), (_slate(self._slates), self._own[0][..., 0]), self._judge)

    def _drift(self) -> dict[str, Sign]:
        cuts = self._system.store.cuts
        test = self._of_day(cuts.test_ms, cuts.end_ms, SESSIONS)
        logit, _, _ = self._outputs("qin", test, self._features_of(test, cuts.test_ms))
        days = {f"training -{len(self._trained) - n} (in-sample)": day for n, day in enumerate(self._trained)}
        days |= {"validation (calibrated on)": (self._slates, self._own[0]), "test": (test, logit)}
        return drift_signs([_calibrated(self._system, self._calibrated, name, *day) for name, day in days.items()])


def _calibrated(system: System, calibrated: Calibrated, name: str, slates: Slates, logit: np.ndarray) -> DayRows:
    real = slates.video_NxS > 0
    query = system.query_numbers(system.requests_of(slates), slates.query_N) if calibrated.reads_query else None
    p = calibrated.probabilities(logit, query)[..., 0] if len(slates) else logit[..., 0]
    return DayRows(name, p[real], slates.label_NxSxT[..., 0][real] > 0)


def _slate(slates: Slates) -> Slate:
    return Slate(slates.user_N, slates.video_NxS > 0, slates.label_NxSxT[..., 0] > 0, slates.position_NxS)
