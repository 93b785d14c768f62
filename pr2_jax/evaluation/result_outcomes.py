"""Long play and like of shown results, where the log tells them: how well the rankers' heads foresee them."""

from __future__ import annotations

import numpy as np

from pr2_jax.config import Config
from pr2_jax.evaluation.rankings import Answers
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval, interval
from pr2_jax.types import TASKS

COLUMNS = ("auc", "gauc", "logloss", "ece", "rate")


def judged(given: Answers, config: Config) -> dict[str, dict[str, Interval | float]]:
    """By `ranker.task`, its figures over the results of which it is told. Empty where the log has clicks alone.

    `rate` is the share of these results with the label.
    """
    out: dict[str, dict[str, Interval | float]] = {}
    draws, seed, slates = config.evaluation.bootstrap, config.evaluation.seed, given.slates
    for name, ranking in given.rankings.items():
        if ranking.heads_SxKxT is None:
            continue
        for t, task in enumerate(TASKS[1:], start=1):
            told_NxS = slates.weight_NxSxT[..., t] > 0
            labels = slates.label_NxSxT[..., t][told_NxS] > 0
            if not len(labels):
                continue
            chance = ranking.heads_SxKxT[..., t][told_NxS]
            users = np.broadcast_to(slates.user_N[:, None], told_NxS.shape)[told_NxS]
            each, weight = ranking_metrics.user_auc(labels, chance, users)
            out[f"{name}.{task}"] = {
                "auc": ranking_metrics.auc(labels, chance),
                "gauc": interval(each, np.arange(len(each)), weight, draws, seed),
                "logloss": interval(ranking_metrics.log_losses(labels, chance), users, None, draws, seed),
                "ece": ranking_metrics.expected_calibration_error(labels, chance),
                "rate": float(labels.mean()),
            }
    return out
