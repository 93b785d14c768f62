"""Failure signatures of the ranker and its probabilities, as numbers over arrays: experts, position, histories,
over-fit, drift by day.

Whoever calls hands in what was measured on a bounded sample of slates (studies/diagnose/measure_ranking.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit
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

    @property
    def undivided(self) -> bool:
        """Was every result clicked? Then any order is a perfect one, and there is no rate of clicks."""
        return bool(self.clicked_NxS[self.real_NxS].all())

    def auc(self, score_NxS: np.ndarray) -> np.ndarray:
        """Session AUC, NaN where a slate cannot tell."""
        return ranking_metrics.session_auc(score_NxS, self.clicked_NxS & self.real_NxS, self.real_NxS)

    def ndcg(self, score_NxS: np.ndarray) -> np.ndarray:
        """NDCG@10, NaN without a click, or where no result went unclicked."""
        if self.undivided:
            return np.full(len(score_NxS), np.nan)
        return ranking_metrics.slate_metrics(score_NxS, self.clicked_NxS, self.real_NxS)["ndcg@10"]

    def log_losses(self, logit_NxS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every real result, and whose it is; none where no result went unclicked."""
        slate, place = np.nonzero(self.real_NxS & (not self.undivided))
        p = expit(logit_NxS[slate, place].astype(np.float64))
        return ranking_metrics.log_losses(self.clicked_NxS[slate, place], p), self.user_N[slate]


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


def position_signs(slate: Slate, logit_NxS: np.ndarray, added_NxS: np.ndarray, judge: Judge) -> dict[str, Sign]:
    """`added_NxS`: what the shown positions add to the click logits when they are known."""
    real = slate.real_NxS
    before_N, after_N = (expit(x[real].astype(np.float64)) for x in (logit_NxS, logit_NxS + added_NxS))
    moved = float(np.abs(after_N - before_N).mean()) if real.any() else np.nan
    mean = float(before_N.mean()) if real.any() else np.nan
    spread = float(added_NxS[real].std() / max(logit_NxS[real].std(), 1e-9)) if real.any() else np.nan
    by_score_N = slate_correlation(logit_NxS, -slate.position_NxS, real)
    by_click_N = slate_correlation(slate.clicked_NxS.astype(np.float64), -slate.position_NxS, real)
    score, click = judge.mean(by_score_N, slate.user_N), judge.mean(by_click_N, slate.user_N)
    # A slate that cannot tell by clicks (none, or all) is left out of both.
    sign = 1.0 if score.mean >= 0 else -1.0
    lean = judge.mean(sign * (by_score_N - by_click_N), slate.user_N)
    return {
        "qin.position_adds": Sign(
            spread, f"p(click) moves by {moved:.3f}, its mean is {mean:.3f}; {len(real):,} slates"
        ),
        "qin.position_lean": Sign(lean, f"scores {score.mean:.3f}, clicks {click.mean:.3f}; {lean.count:,} slates"),
    }


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
    base_NxS: np.ndarray,
    swapped_NxS: np.ndarray,
    stranger_NxS: np.ndarray,
    events_N: np.ndarray,
    bounds: tuple[int, int, int],
    judge: Judge,
) -> dict[str, Sign]:
    """Click logits of the ranker, of the one without the person, of the ranker with another person's history, and with
    another person altogether; each person's past events; a history is short in [first bound, second), long from the
    third on."""
    gain_N = slate.ndcg(logit_NxS) - slate.ndcg(base_NxS)
    least, short, long = bounds
    short_N, long_N = (events_N >= least) & (events_N < short), events_N >= long
    gains = [judge.mean(gain_N[rows], slate.user_N[rows]) for rows in (short_N, long_N)]
    with_past_N = events_N > 0
    same_N = slate_correlation(logit_NxS, swapped_NxS, slate.real_NxS)
    own_N, lent_N, other_N = (slate.auc(x) for x in (logit_NxS, swapped_NxS, stranger_NxS))
    users = slate.user_N[with_past_N]
    moves, worth = judge.mean(1 - same_N[with_past_N], users), judge.mean((own_N - other_N)[with_past_N], users)
    ranges = f"{least} to {short - 1} events, {gains[0].count:,} slates; from {long} on {gains[1].mean:+.3f}"
    return {
        "qin.short_gain": Sign(gains[0], ranges),
        "qin.history_moves": Sign(moves, f"{_lost(own_N - lent_N)}{moves.count:,} slates"),
        "qin.person_worth": Sign(worth, f"{worth.count:,} slates"),
    }


def _lost(auc_N: np.ndarray) -> str:
    return f"session AUC loses {np.nanmean(auc_N):.3f}; " if np.isfinite(auc_N).any() else ""


def fit_signs(
    trained: tuple[Slate, np.ndarray], held: tuple[Slate, np.ndarray], judge: Judge
) -> dict[str, Sign]:  # fmt: skip
    """Slates of a day that the ranker was trained on, and of one that it was not, each with its click logits."""
    aucs = [judge.mean(slate.auc(logit), slate.user_N) for slate, logit in (trained, held)]
    losses = [judge.mean(*slate.log_losses(logit)) for slate, logit in (trained, held)]
    return {
        "fit.qin_auc": Sign(apart(*aucs), _both(*aucs, "slates")),
        "fit.qin_logloss": Sign(apart(*losses[::-1]), _both(*losses, "results")),
    }


def recall_signs(
    recalls: Mapping[str, tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]], judge: Judge
) -> dict[str, Sign]:
    """By model, recall@100 of each search of a training day with whose it is, and the same of a day not trained on."""
    out = {}
    for name, days in recalls.items():
        trained, held = (judge.mean(*day) for day in days)
        out[f"fit.{name}_recall"] = Sign(apart(trained, held), _both(trained, held, "searches"))
    return out


def curve_signs(losses: Mapping[str, np.ndarray]) -> dict[str, Sign]:
    """By model, the training losses that its curve holds, in order."""
    return {
        f"fit.{name}_curve": Sign(last_share(loss_N), f"losses read: {len(loss_N)}") for name, loss_N in losses.items()
    }


def last_share(loss_N: np.ndarray) -> float:
    """Of the fall from the first loss to the mean of the last quarter of them, the share since the quarter before; NaN
    where there are too few, or nothing fell."""
    quarter = len(loss_N) // 4
    if quarter < 2:
        return np.nan
    before, last = loss_N[-2 * quarter : -quarter].mean(), loss_N[-quarter:].mean()
    return float((before - last) / (loss_N[0] - last)) if loss_N[0] > last else np.nan


def _both(trained: Interval, held: Interval, rows: str) -> str:
    days = zip(("training", "validation"), (trained, held), strict=True)
    return ", ".join(f"{name} day {found.mean:.3f} ({found.count:,} {rows})" for name, found in days)


def apart(one: Interval, other: Interval) -> Interval:
    """one - other, of two samples that have nothing to do with each other: half widths add as errors do."""
    mean = one.mean - other.mean
    half = np.hypot((one.high - one.low) / 2, (other.high - other.low) / 2)
    return Interval(mean, float(mean - half), float(mean + half), min(one.count, other.count))


@dataclasses.dataclass(frozen=True)
class DayRows:
    """The calibrated click probabilities of one day's shown results."""

    name: str  # with what it was used for
    probability_N: np.ndarray
    label_N: np.ndarray


def drift_signs(days: Sequence[DayRows]) -> dict[str, Sign]:
    """Spread of predicted over observed (PCOC) over days beyond what chance leaves, and that of the last day."""
    told = [day for day in days if day.label_N.sum() >= FEW_CLICKS and not day.label_N.all()]
    logs = {day.name: _log_pcoc(day) for day in told}
    rows = {day.name: len(day.label_N) for day in days}
    note = ", ".join(f"{name} {np.exp(log):.3f} of {rows[name]:,} results" for name, (log, _) in logs.items())
    log_D, error_D = np.array(list(logs.values()), np.float64).reshape(-1, 2).T
    log, error = logs.get(days[-1].name, (np.nan, np.nan))
    mean, low, high = np.exp([log, log - 1.96 * error, log + 1.96 * error]).tolist()
    return {
        "scores.drift": Sign(spread_beyond_error(log_D, error_D), note),
        "scores.last_day": Sign(Interval(mean, low, high, rows[days[-1].name]), f"{rows[days[-1].name]:,} results"),
    }


def _log_pcoc(day: DayRows) -> tuple[float, float]:
    """log of predicted over observed, and its binomial standard error."""
    p_N = np.asarray(day.probability_N, np.float64)
    log = np.log(ranking_metrics.predicted_over_observed(day.label_N, p_N))
    return float(log), float(np.sqrt((p_N * (1 - p_N)).sum()) / p_N.sum())


def spread_beyond_error(log_D: np.ndarray, error_D: np.ndarray) -> float:
    """Standard deviation of D values over what their own standard errors explain; NaN for fewer than two."""
    if len(log_D) < 2:
        return np.nan
    return float(np.sqrt(max(0.0, np.var(log_D, ddof=1) - np.mean(np.square(error_D)))))
