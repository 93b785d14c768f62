"""Re-finding policy, fitted on the validation day: does retrieval show or withhold what a person clicked before?

Both are tried on the same searches, each with its own merge weights. A withheld video counts as missed where it was
clicked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pr2_jax import console
from pr2_jax.data.history.histories import seen
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.evaluation.rankings import catalogue_metrics
from pr2_jax.metrics.bootstrap import standard_error
from pr2_jax.metrics.ranking_metrics import NDCG_DEPTH
from pr2_jax.retrieval import merge
from pr2_jax.retrieval.encoded_requests import Channel
from pr2_jax.search.pipelines import COMPARED, pipelines
from pr2_jax.search.system import System

SEARCHES = 1_000
"""Of the validation day, at most, evenly spread."""


def decide(system: System, channels: Mapping[str, Channel]) -> dict[str, Any]:
    """`clicked`: `show` or `withhold`; where the log decided, `clicked_by`: the figures.

    `channels`: exact ones, with the snapshot of the start of the validation day.
    """
    configured, cuts = system.config.search.clicked, system.store.cuts
    if configured != "auto":
        return {"clicked": configured}
    day = day_of(system, cuts.validation_ms, cuts.test_ms, withhold=False)
    share = day.refinding.again / max(1, day.refinding.clicks)
    said = f"{share:.1%} of the clicks of the validation day are on videos that the person had clicked before"
    if not share:
        console.log(f"{said}: withheld")
        return {"clicked": "withhold", "clicked_by": {"share": share}}
    day = day.sample(SEARCHES)
    past = seen(system.store, day.requests.user_B, day.requests.time_ms_B)
    withheld = dataclasses.replace(day, requests=dataclasses.replace(day.requests, seen=past))
    found = {"show": _ndcg(system, day, channels), "withhold": _ndcg(system, withheld, channels)}
    difference_S = found["show"] - found["withhold"]
    gain, error = float(difference_S.mean()), standard_error(difference_S, day.requests.user_B)
    rule = "show" if gain > error else "withhold"  # by more than chance, which decides where such clicks are few
    ndcg = {name: float(ndcg_S.mean()) for name, ndcg_S in found.items()}
    console.log(
        f"{said}; NDCG@10 over all clicks {ndcg['show']:.4f} where they are shown again, {ndcg['withhold']:.4f} where "
        f"they are withheld, {gain:+.4f} with a standard error of {error:.4f} ({len(day.sessions):,} searches, mean of "
        f"base and pr2): {rule}"
    )
    figures = {"share": share, "searches": len(day.sessions), "ndcg@10": ndcg, "gain": gain, "standard_error": error}
    return {"clicked": rule, "clicked_by": figures}


def _ndcg(system: System, day: Day, channels: Mapping[str, Channel]) -> np.ndarray:
    """NDCG@10 of each search, `[S]`: the mean over both pipelines' merged lists."""
    depth, scorers = system.config.retrieval.depth, system.scorers(day.requests)
    encoded = system.encode(day.requests)
    found = {name: channel.retrieve(encoded, depth) for name, channel in channels.items()}
    reached = []
    for pipeline in COMPARED:
        mine = {name: found[name] for name in pipelines(system.config)[pipeline].channels}
        weights = merge.choose_weights(mine, day.clicked, scorers=scorers)
        merged = merge.merge(mine, weights, NDCG_DEPTH, scorers)
        metrics, _ = catalogue_metrics(day, merged.ids_BxK, merged.scores_BxK)
        reached.append(metrics["ndcg@10"])
    return np.mean(reached, axis=0)
