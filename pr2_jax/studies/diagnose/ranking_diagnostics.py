"""Failure signatures of the ranker and its probabilities, as numbers over arrays: experts, position, histories,
over-fit, calibration.

Whoever calls hands in what was measured on a bounded sample of slates (studies/diagnose/measure_ranking.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.studies.diagnose.diagnosis import Judge, Sign

FEW_CLICKS = 20
"""A day with fewer says nothing about predicted over observed, nor does one on which everything was clicked."""


@dataclasses.dataclass(frozen=True)
class Slate:
    """N slates of S shown results; whose they are, which results are real and which were clicked."""

    user_N: np.ndarray
    real_NxS: np.ndarray  # bool
    clicked_NxS: np.ndarray  # bool
    position_NxS: np.ndarray  # shown position from 0

    def auc(self, score_NxS: np.ndarray) -> np.ndarray:
        """Session AUC, NaN where a slate cannot tell."""
        return ranking_metrics.session_auc(score_NxS, self.clicked_NxS & self.real_NxS, self.real_NxS)


def gate_signs(gates: Mapping[str, np.ndarray], rows: Mapping[str, str]) -> dict[str, Sign]:
    """By task, gates `[N, E]` of the results that the task is asked about, and what these are in words: the mean weight
    of the most used expert, and how sure a single gate is."""
    return {f"qin.expert_{task}": _most_used(gate_NxE, rows[task]) for task, gate_NxE in gates.items()}


def _most_used(gate_NxE: np.ndarray, rows: str) -> Sign:
    if not len(gate_NxE) or gate_NxE.shape[1] < 2:  # nothing to lean on but the one
        return Sign(np.nan)
    gate_NxE = gate_NxE.astype(np.float64)
    mean_E = gate_NxE.mean(0)
    entropy = float(-(gate_NxE * np.log(gate_NxE + 1e-12)).sum(1).mean() / np.log(len(mean_E)))
    uses = " ".join(f"{share:.2f}" for share in np.sort(mean_E)[::-1])
    note = f"experts {uses}; entropy of a gate {entropy:.2f} of what is possible; {len(gate_NxE):,} {rows}"
    return Sign(float(mean_E.max()), note)


def position_signs(slate: Slate, logit_NxS: np.ndarray, judge: Judge) -> dict[str, Sign]:
    """By the click logits."""
    by_score_N = slate_correlation(logit_NxS, -slate.position_NxS, slate.real_NxS)
    by_click_N = slate_correlation(slate.clicked_NxS.astype(np.float64), -slate.position_NxS, slate.real_NxS)
    score, click = judge.mean(by_score_N, slate.user_N), judge.mean(by_click_N, slate.user_N)
    # A slate that cannot tell by clicks (none, or all) is left out of both.
    sign = 1.0 if score.mean >= 0 else -1.0
    lean = judge.mean(sign * (by_score_N - by_click_N), slate.user_N)
    note = f"scores {score.mean:.3f}, clicks {click.mean:.3f}; {lean.count:,} slates"
    return {"qin.position_lean": Sign(lean, note)}


def slate_correlation(one_NxS: np.ndarray, other_NxS: np.ndarray, real_NxS: np.ndarray) -> np.ndarray:
    """Spearman's within each slate, `[N]`; NaN where either does not vary or fewer than two results are real."""
    ranked = [rankdata(np.where(real_NxS, x, np.inf), axis=1) for x in (one_NxS, other_NxS)]  # padding ranks last
    count_Nx1 = np.maximum(real_NxS.sum(1, keepdims=True), 1)
    parts = [np.where(real_NxS, r - np.where(real_NxS, r, 0).sum(1, keepdims=True) / count_Nx1, 0) for r in ranked]
    norm_N = np.sqrt(np.square(parts[0]).sum(1) * np.square(parts[1]).sum(1))
    return np.divide((parts[0] * parts[1]).sum(1), norm_N, out=np.full(len(norm_N), np.nan), where=norm_N > 1e-9)


def history_signs(
    slate: Slate,
    logit_NxS: np.ndarray,
    swapped_NxS: np.ndarray,
    stranger_NxS: np.ndarray,
    events_N: np.ndarray,
    judge: Judge,
) -> dict[str, Sign]:
    """Click logits of the ranker, of the ranker with another person's history, and with another person altogether;
    each person's past events."""
    with_past_N = events_N > 0
    same_N = slate_correlation(logit_NxS, swapped_NxS, slate.real_NxS)
    own_N, lent_N, other_N = (slate.auc(x) for x in (logit_NxS, swapped_NxS, stranger_NxS))
    users = slate.user_N[with_past_N]
    moves, worth = judge.mean(1 - same_N[with_past_N], users), judge.mean((own_N - other_N)[with_past_N], users)
    return {
        "qin.history_moves": Sign(moves, f"{_lost(own_N - lent_N)}{moves.count:,} slates"),
        "qin.person_worth": Sign(worth, f"{worth.count:,} slates"),
    }


def _lost(auc_N: np.ndarray) -> str:
    return f"session AUC loses {np.nanmean(auc_N):.3f}; " if np.isfinite(auc_N).any() else ""


def recall_signs(
    recalls: Mapping[str, tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]], judge: Judge
) -> dict[str, Sign]:
    """By model, recall@100 of each search of a training day with whose it is, and the same of a day not trained on."""
    out = {}
    for name, days in recalls.items():
        trained, held = (judge.mean(*day) for day in days)
        out[f"fit.{name}_recall"] = Sign(apart(trained, held), _both(trained, held, "searches"))
    return out


def _both(trained: Interval, held: Interval, rows: str) -> str:
    days = zip(("training", "validation"), (trained, held), strict=True)
    return ", ".join(f"{name} day {found.mean:.3f} ({found.count:,} {rows})" for name, found in days)


def apart(one: Interval, other: Interval) -> Interval:
    """one - other, of two samples that have nothing to do with each other: half widths add as errors do."""
    mean = one.mean - other.mean
    half = np.hypot((one.high - one.low) / 2, (other.high - other.low) / 2)
    return Interval(mean, float(mean - half), float(mean + half), min(one.count, other.count))


def calibration_signs(probability_N: np.ndarray, label_N: np.ndarray) -> dict[str, Sign]:
    """Predicted over observed clicks (PCOC) of the shown results of one day, by their calibrated probabilities."""
    note = f"{len(label_N):,} results"
    if label_N.sum() < FEW_CLICKS or label_N.all():
        return {"scores.last_day": Sign(np.nan, note)}
    p_N = np.asarray(probability_N, np.float64)
    log = np.log(ranking_metrics.predicted_over_observed(label_N, p_N))
    half = 1.96 * np.sqrt((p_N * (1 - p_N)).sum()) / p_N.sum()
    mean, low, high = np.exp([log, log - half, log + half]).tolist()
    return {"scores.last_day": Sign(Interval(mean, low, high, len(label_N)), note)}
