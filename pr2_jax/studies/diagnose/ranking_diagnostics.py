"""Diagnostics of QIN on the validation day: experts, position, histories, the person; of the test day calibration."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy.stats import rankdata

from pr2_jax import artifacts
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import evenly_spread
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.history.histories import past_events
from pr2_jax.encoders.batching import in_blocks
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.ranking.query_map import QueryNumbers
from pr2_jax.search.searcher import Calibrated
from pr2_jax.search.system import System
from pr2_jax.stages.slate_features import FEATURE_BLOCK, slate_features
from pr2_jax.studies.diagnose.findings import Diagnostic, Mean

SESSIONS = 1_000
"""Of the validation and of the test day, at most, evenly spread."""
FEED_SLATES = 300
"""Of the validation day's feed views, where alone long play and like are known."""
SLATE_BLOCK = 64
FEW_CLICKS = 20
"""A day with fewer says nothing about predicted over observed, nor does one on which everything was clicked."""
HISTORY = ("history_BxH", "signals_BxHxG", "gap_seconds_BxH", "recent_BxR", "recent_signals_BxRxG", "recent_gap_BxR")
"""What a batch knows of a person's past; the profile and all numbers about results are told beside it."""

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Logits, what positions add, gates."""


@dataclasses.dataclass(frozen=True)
class Slate:
    """N slates of S shown results."""

    user_N: np.ndarray
    real_NxS: np.ndarray  # bool
    clicked_NxS: np.ndarray  # bool
    position_NxS: np.ndarray  # shown position from 0

    @staticmethod
    def of(slates: Slates) -> Slate:
        return Slate(slates.user_N, slates.video_NxS > 0, slates.label("click"), slates.position_NxS)

    def auc(self, score_NxS: np.ndarray) -> np.ndarray:
        """Session AUC, NaN where a slate cannot tell."""
        return ranking_metrics.session_auc(score_NxS, self.clicked_NxS & self.real_NxS, self.real_NxS)


class RankingDiagnostics:
    """Measures one system; what several checks need is computed once."""

    def __init__(self, system: System, config: Config, mean: Mean) -> None:
        self._system, self._config, self._mean = system, config, mean
        with artifacts.reading(system.workdir / "qin"):
            self._scaler = Scaler.load(system.workdir / "qin" / "scaler.npz")
            self._calibrated = Calibrated.load(system.workdir / "qin" / "pr2.json")
        self._reader = SlateReader(system.log.reader, system.fitted.query_vectors_NqxD, config.qin, config.data)
        self._insides = system.models.insides("qin", system.workdir / "qin" / "qin")

    def all(self) -> dict[str, Diagnostic]:
        lean = position_lean(Slate.of(self._slates), self._own[0][..., 0], self._mean)
        return {"qin.position_lean": lean, "scores.last_day": self.calibration()} | self.experts() | self.histories()

    @functools.cached_property
    def _slates(self) -> Slates:
        cuts = self._system.store.cuts
        return self._of_day(cuts.validation_ms, cuts.test_ms)

    @functools.cached_property
    def _own(self) -> Outputs:
        return self._outputs(self._slates, self._features)

    @functools.cached_property
    def _features(self) -> np.ndarray:
        return self._features_of(self._slates, self._system.store.cuts.validation_ms)

    def _of_day(self, start_ms: int, stop_ms: int) -> Slates:
        first, last = np.searchsorted(self._system.store.sessions.time_ms, [start_ms, stop_ms])
        return search_slates(self._system.store, first + evenly_spread(last - first, SESSIONS), self._config.qin.slate)

    def _features_of(self, slates: Slates, day_ms: int) -> np.ndarray:
        """As serving computes them on a day that nothing was trained on."""
        if not len(slates):
            return np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32)
        similarity = self._system.fitted.snapshot(day_ms).similarity
        blocks = np.split(np.arange(len(slates)), range(FEATURE_BLOCK, len(slates), FEATURE_BLOCK))
        return np.concatenate([slate_features(self._system, slates, rows, similarity) for rows in blocks])

    def _outputs(self, slates: Slates, features: np.ndarray, past_of_N: np.ndarray | None = None) -> Outputs:
        """`past_of_N`: users whose history takes the place of each person's own."""
        batch = self._reader(slates.user_N, slates.time_ms_N, slates.query_N)
        if past_of_N is not None:
            lent = self._reader(past_of_N, slates.time_ms_N, slates.query_N)
            batch |= {key: lent[key] for key in HISTORY if key in lent}
        batch |= {
            "is_feed_B": slates.is_feed_N.astype(np.float32),
            "video_BxS": slates.video_NxS,
            "position_BxS": slates.position_NxS,
            "features_BxSxF": self._scaler(features)[..., self._system.columns(self._config.qin)],
        }
        return in_blocks(self._insides, batch, SLATE_BLOCK, least=SLATE_BLOCK)

    def experts(self) -> dict[str, Diagnostic]:
        """Gates of heads that learn clicks on search results, of the others on feed views."""
        cuts = self._system.store.cuts
        feed = feed_slates(self._system.log.reader, cuts.validation_ms, cuts.test_ms, self._config.qin.slate)
        feed = feed.sample(FEED_SLATES)
        samples = {
            "feed views": (feed, self._outputs(feed, self._features_of(feed, cuts.validation_ms))[2]),
            "search results": (self._slates, self._own[2]),
        }
        found = {}
        for t, head in enumerate(self._config.qin.prediction_heads):
            rows = "search results" if head.label == "click" else "feed views"
            slates, gates = samples[rows]
            found[f"qin.expert_{head.name}"] = most_used_expert(gates[slates.video_NxS > 0][:, t], rows)
        return found

    def histories(self) -> dict[str, Diagnostic]:
        """The same slates with another person's history, and asked by another person altogether."""
        slates, store = self._slates, self._system.store
        other_N = slates.user_N[another(slates.user_N)] if len(slates) else slates.user_N
        strange = dataclasses.replace(slates, user_N=other_N)
        lent, _, _ = self._outputs(slates, self._features, past_of_N=other_N)
        stranger, _, _ = self._outputs(strange, self._features_of(strange, store.cuts.validation_ms))
        events_N = past_events(store, slates.user_N, slates.time_ms_N)
        slate, own = Slate.of(slates), self._own[0][..., 0]
        return {
            "qin.history_moves": history_moves(slate, own, lent[..., 0], events_N, self._mean),
            "qin.person_worth": person_worth(slate, own, stranger[..., 0], events_N, self._mean),
        }

    def calibration(self) -> Diagnostic:
        system, cuts = self._system, self._system.store.cuts
        slates = self._of_day(cuts.test_ms, cuts.end_ms)
        logit, _, _ = self._outputs(slates, self._features_of(slates, cuts.test_ms))
        real, reads = slates.video_NxS > 0, self._calibrated.reads_query
        query = QueryNumbers(system.log.counters)(system.log.requests_of(slates)) if reads else None
        p = self._calibrated.probabilities(logit, query)[..., 0] if len(slates) else logit[..., 0]
        return pcoc(p[real], slates.label("click")[real] > 0)


def another(user_N: np.ndarray) -> np.ndarray:
    """For each slate the row of one by another person, where there is any: half a turn in the order of people."""
    order = np.argsort(user_N, kind="stable")
    other = np.empty_like(order)
    other[order] = np.roll(order, len(order) // 2)
    return other


def most_used_expert(gate_NxE: np.ndarray, rows: str) -> Diagnostic:
    """Its mean weight in one task's gates; `rows` says in words whose gates they are."""
    if not len(gate_NxE) or gate_NxE.shape[1] < 2:  # nothing to lean on but the one
        return Diagnostic(np.nan)
    gate_NxE = gate_NxE.astype(np.float64)
    mean_E = gate_NxE.mean(0)
    entropy = float(-(gate_NxE * np.log(gate_NxE + 1e-12)).sum(1).mean() / np.log(len(mean_E)))
    uses = " ".join(f"{share:.2f}" for share in np.sort(mean_E)[::-1])
    note = f"experts {uses}; entropy of a gate {entropy:.2f} of what is possible; {len(gate_NxE):,} {rows}"
    return Diagnostic(float(mean_E.max()), note)


def position_lean(slate: Slate, logit_NxS: np.ndarray, mean: Mean) -> Diagnostic:
    """By click logits: how much more scores follow the shown order than clicks do."""
    by_score_N = slate_correlation(logit_NxS, -slate.position_NxS, slate.real_NxS)
    by_click_N = slate_correlation(slate.clicked_NxS.astype(np.float64), -slate.position_NxS, slate.real_NxS)
    score, click = mean(by_score_N, slate.user_N), mean(by_click_N, slate.user_N)
    # A slate that cannot tell by clicks (none, or all) is left out of both.
    sign = 1.0 if score.mean >= 0 else -1.0
    lean = mean(sign * (by_score_N - by_click_N), slate.user_N)
    return Diagnostic(lean, f"scores {score.mean:.3f}, clicks {click.mean:.3f}; {lean.count:,} slates")


def slate_correlation(one_NxS: np.ndarray, other_NxS: np.ndarray, real_NxS: np.ndarray) -> np.ndarray:
    """Spearman's within each slate, `[N]`; NaN where either does not vary or fewer than two results are real."""
    ranked = [rankdata(np.where(real_NxS, x, np.inf), axis=1) for x in (one_NxS, other_NxS)]  # padding ranks last
    count_Nx1 = np.maximum(real_NxS.sum(1, keepdims=True), 1)
    parts = [np.where(real_NxS, r - np.where(real_NxS, r, 0).sum(1, keepdims=True) / count_Nx1, 0) for r in ranked]
    norm_N = np.sqrt(np.square(parts[0]).sum(1) * np.square(parts[1]).sum(1))
    return np.divide((parts[0] * parts[1]).sum(1), norm_N, out=np.full(len(norm_N), np.nan), where=norm_N > 1e-9)


def history_moves(
    slate: Slate, own_NxS: np.ndarray, lent_NxS: np.ndarray, events_N: np.ndarray, mean: Mean
) -> Diagnostic:
    """By click logits with the own and with another's history; only people with a past event count."""
    past_N = events_N > 0
    moves = mean(1 - slate_correlation(own_NxS, lent_NxS, slate.real_NxS)[past_N], slate.user_N[past_N])
    lost_N = slate.auc(own_NxS) - slate.auc(lent_NxS)
    lost = f"session AUC loses {np.nanmean(lost_N):.3f}; " if np.isfinite(lost_N).any() else ""
    return Diagnostic(moves, f"{lost}{moves.count:,} slates")


def person_worth(
    slate: Slate, own_NxS: np.ndarray, stranger_NxS: np.ndarray, events_N: np.ndarray, mean: Mean
) -> Diagnostic:
    """By click logits for the own person and for another one; only people with a past event count."""
    past_N = events_N > 0
    lost = mean((slate.auc(own_NxS) - slate.auc(stranger_NxS))[past_N], slate.user_N[past_N])
    return Diagnostic(lost, f"{lost.count:,} slates")


def pcoc(probability_N: np.ndarray, label_N: np.ndarray) -> Diagnostic:
    """Predicted over observed clicks of the shown results of one day, by their calibrated probabilities."""
    note = f"{len(label_N):,} results"
    if label_N.sum() < FEW_CLICKS or label_N.all():
        return Diagnostic(np.nan, note)
    p_N = np.asarray(probability_N, np.float64)
    log = np.log(ranking_metrics.predicted_over_observed(label_N, p_N))
    half = 1.96 * np.sqrt((p_N * (1 - p_N)).sum()) / p_N.sum()
    mean, low, high = np.exp([log, log - half, log + half]).tolist()
    return Diagnostic(Interval(mean, low, high, len(label_N)), note)
