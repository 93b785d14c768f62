"""What came of shown results beside clicks, where the log tells it: how well the rankers' heads foresee it."""

from __future__ import annotations

import numpy as np

from pr2_jax.config import Config
from pr2_jax.evaluation.rankings import Answers
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.bootstrap import Interval, interval

COLUMNS = ("auc", "gauc", "logloss", "ece", "rate")


def judged(given: Answers, config: Config) -> dict[str, dict[str, Interval | float]]:
    """, its figures over the results of which it is told. Empty where the log has clicks alone.

    `rate` is the share of these results with the label.
    """
    out: dict[str, dict[str, Interval | float]] = {}
    draws, seed, slates = config.evaluation.bootstrap, config.evaluation.seed, given.slates
    for name, ranking in given.rankings.items():
        if ranking.heads_SxKxT is None:
            continue
        for t, head in enumerate(config.qin.prediction_heads):
            told_NxS = slates.told(head.label)
            labels = slates.label(head.label)[told_NxS]
            if head.label == "click" or not len(labels):
                continue
            chance = ranking.heads_SxKxT[..., t][told_NxS]
            users = np.broadcast_to(slates.user_N[:, None], told_NxS.shape)[told_NxS]
            each, weight = ranking_metrics.user_auc(labels, chance, users)
            out[f"{name}.{head.name}"] = {
                "auc": ranking_metrics.auc(labels, chance),
                "gauc": interval(each, np.arange(len(each)), weight, draws, seed),
                "logloss": interval(ranking_metrics.log_losses(labels, chance), users, None, draws, seed),
                "ece": ranking_metrics.expected_calibration_error(labels, chance),
                "rate": float(labels.mean()),
            }
    return out
