"""What is fitted on the validation day once a ranker is trained: calibration of each head, then fusion weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.slates import Slates, feed_slates, search_slates
from pr2_jax.evaluation.metrics import retrieval_metrics
from pr2_jax.ranking import calibration, fusion
from pr2_jax.search.searcher import Calibrated, Searcher, relevance
from pr2_jax.search.system import PIPELINES, System
from pr2_jax.stages.days import Day, day_of
from pr2_jax.types import TASKS, Requests

SESSION_BLOCK = 128
FIRST_STAGE = fusion.FusionWeights((0.0,) * len(TASKS), (1.0,) * len(TASKS), 1.0)
"""Relevance alone: the order that the ranker is given."""


def fit_scores(system: System, config: Config, rankers: Path, out: Path) -> None:
    """Writes `pr2.json` and `base.json`. `rankers` holds the trained rankers (still in the making)."""
    cuts = system.store.cuts
    snapshot = system.snapshot(cuts.validation_ms)
    day = day_of(system, cuts.validation_ms, cuts.test_ms)
    for name in PIPELINES:
        unfitted = Calibrated(tuple(calibration.Platt() for _ in TASKS), fusion.FusionWeights((1.0, 0, 0), (1.0,) * 3))
        searcher = Searcher(system, snapshot, name, unfitted, rankers, exact=True)
        heads = _heads(system, config, searcher, day)
        calibrated = Calibrated(heads, unfitted.fusion)
        weights = _fusion(searcher, config, day, calibrated)
        Calibrated(heads, weights).save(out / f"{name}.json")
        alphas = ", ".join(f"{task} {alpha:g}" for task, alpha in zip(TASKS, weights.alpha_T, strict=True))
        console.log(f"{name}: fusion exponents (validation day): {alphas}, relevance {weights.relevance:g}")


def slate_logits(searcher: Searcher, system: System, slates: Slates, is_feed: bool = False) -> np.ndarray:
    """Logits `[N, S, T]` of slates of one day."""
    requests = system.requests_of(slates)
    return searcher.score(requests, slates.query_N, slates.video_NxS, is_feed=is_feed)


def _heads(system: System, config: Config, searcher: Searcher, day: Day) -> tuple[calibration.Calibrator, ...]:
    """Click on the day's search slates; long play and like on its feed views, where alone they are known."""
    size = config.qin.slate
    search = search_slates(system.store, day.all_sessions, size)
    feed = feed_slates(system.reader, day.start_ms, day.stop_ms, size)
    fitted = []
    logits = {False: slate_logits(searcher, system, search), True: slate_logits(searcher, system, feed, is_feed=True)}
    for task, name in enumerate(TASKS):
        is_feed = name != "click"
        slates = feed if is_feed else search
        real = slates.weight_NxSxT[..., task] > 0
        probability = 1 / (1 + np.exp(-logits[is_feed][..., task][real].astype(np.float64)))
        users = np.broadcast_to(slates.user_N[:, None], real.shape)[real]
        fitted.append(calibration.fit(slates.label_NxSxT[..., task][real] > 0, probability, users))
    return tuple(fitted)


def _fusion(searcher: Searcher, config: Config, day: Day, calibrated: Calibrated) -> fusion.FusionWeights:
    depth = config.evaluation.pipeline_candidates
    parts = []
    for start in range(0, len(day.sessions), SESSION_BLOCK):
        rows = slice(start, start + SESSION_BLOCK)
        requests: Requests = day.requests.slice(start, start + SESSION_BLOCK)
        merged = searcher.candidates(requests, searcher.retrieve(requests), depth)
        probability = calibrated.probabilities(searcher.score(requests, day.query_N[rows], merged.ids_BxK))
        hit = np.stack([np.isin(ids, videos) for ids, videos in zip(merged.ids_BxK, day.clicked[rows], strict=True)])
        parts.append((probability, relevance(merged), hit, merged.ids_BxK > 0))
    if not parts:
        return calibrated.fusion
    probability, relevances, hit, valid = (np.concatenate(column) for column in zip(*parts, strict=True))
    positives = np.array([len(videos) for videos in day.clicked])
    weights = fusion.choose_weights(probability, relevances, hit, valid, positives_S=positives)
    reached = [_ndcg(fusion.fuse(probability, relevances, w), hit, valid, positives) for w in (weights, FIRST_STAGE)]
    console.log(f"{searcher.name}: validation NDCG@10 {reached[0]:.4f}, in merged order {reached[1]:.4f}")
    return weights


def _ndcg(score_SxK: np.ndarray, hit_SxK: np.ndarray, valid_SxK: np.ndarray, positives_S: np.ndarray) -> float:
    return float(np.nanmean(retrieval_metrics(score_SxK, hit_SxK, valid_SxK, positives_S)["ndcg@10"]))
