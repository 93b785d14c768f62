"""What is fitted on the validation day once a ranker is trained: calibration of each head, then fusion weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import expit

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.ingest.log_coverage import heads_told
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.metrics.ranking_metrics import retrieval_metrics
from pr2_jax.ranking import calibration, fusion
from pr2_jax.search.searcher import Calibrated, Searcher, relevance
from pr2_jax.search.system import PIPELINES, System
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
        weights = _fusion(system, searcher, config, day, calibrated)
        Calibrated(heads, weights).save(out / f"{name}.json")
        alphas = ", ".join(f"{task} {alpha:g}" for task, alpha in zip(TASKS, weights.alpha_T, strict=True))
        kinds = ", ".join(f"{task} {type(head).__name__}" for task, head in zip(TASKS, heads, strict=True))
        console.log(f"{name}: calibration (validation day): {kinds}")
        relevances = f"relevance {weights.relevance:g}, its floor {weights.relevance_floor:g}"
        console.log(f"{name}: fusion exponents (validation day): {alphas}, {relevances}")


def slate_logits(searcher: Searcher, system: System, slates: Slates, is_feed: bool = False) -> np.ndarray:
    """Logits `[N, S, T]` of slates of one day."""
    requests = system.requests_of(slates)
    return searcher.score(requests, slates.query_N, slates.video_NxS, is_feed=is_feed)


def _heads(system: System, config: Config, searcher: Searcher, day: Day) -> tuple[calibration.Calibrator, ...]:
    """Click on the day's search slates; long play and like there too where the log tells them of results, else on its
    feed views."""
    size = config.qin.slate
    search = search_slates(system.store, day.all_sessions, size, system.reader.long_play, day.stop_ms)
    feed = feed_slates(system.reader, day.start_ms, day.stop_ms, size)
    fitted: list[calibration.Calibrator] = []
    told = heads_told(system.store)
    logits = {False: slate_logits(searcher, system, search), True: slate_logits(searcher, system, feed, is_feed=True)}
    for task, name in enumerate(TASKS):
        if not told[name]:
            fitted.append(calibration.Unlearned())
            continue
        is_feed = name != "click" and not search.weight_NxSxT[..., task].any()
        slates = feed if is_feed else search
        real = slates.weight_NxSxT[..., task] > 0
        probability = expit(logits[is_feed][..., task][real].astype(np.float64))
        slate = np.nonzero(real)[0]
        # Feed views have no query, so that nothing could be learned from one.
        query = None if is_feed else system.query_numbers(system.requests_of(slates), slates.query_N)[slate]
        labels = slates.label_NxSxT[..., task][real] > 0
        kind = config.scores.calibration
        fitted.append(calibration.fit(labels, probability, slates.user_N[slate], kind=kind, query_NxF=query))
    return tuple(fitted)


def _fusion(
    system: System, searcher: Searcher, config: Config, day: Day, calibrated: Calibrated
) -> fusion.FusionWeights:
    depth = config.evaluation.pipeline_candidates
    parts = []
    for start in range(0, len(day.sessions), SESSION_BLOCK):
        rows = slice(start, start + SESSION_BLOCK)
        requests: Requests = day.requests.slice(start, start + SESSION_BLOCK)
        merged = searcher.candidates(requests, searcher.retrieve(requests), depth)
        logits = searcher.score(requests, day.query_N[rows], merged.ids_BxK)
        probability = calibrated.probabilities(logits, system.query_numbers(requests, day.query_N[rows]))
        hit = np.stack([np.isin(ids, videos) for ids, videos in zip(merged.ids_BxK, day.clicked[rows], strict=True)])
        parts.append((probability, relevance(merged), hit, merged.ids_BxK > 0))
    if not parts:
        return calibrated.fusion
    probability, relevances, hit, valid = (np.concatenate(column) for column in zip(*parts, strict=True))
    positives = np.array([len(videos) for videos in day.clicked])
    free = fusion.choose_weights(probability, relevances, hit, valid, positives_S=positives)
    lists, tolerance = (probability, relevances, hit, valid, day.requests.user_B), config.scores.floor_tolerance
    weights = fusion.choose_floor(*lists, free, tolerance, positives)
    orders = [fusion.fuse(probability, relevances, each) for each in (weights, free, FIRST_STAGE)]
    reached, bare, merged_order = (_ndcg(order, hit, valid, positives) for order in orders)
    console.log(
        f"{searcher.name}: validation NDCG@10 {reached:.4f}, without relevance floor {bare:.4f}, in merged order "
        f"{merged_order:.4f}"
    )
    return weights


def _ndcg(score_SxK: np.ndarray, hit_SxK: np.ndarray, valid_SxK: np.ndarray, positives_S: np.ndarray) -> float:
    return float(np.nanmean(retrieval_metrics(score_SxK, hit_SxK, valid_SxK, positives_S)["ndcg@10"]))
