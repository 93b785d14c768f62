"""Fits score calibration of each head, then fusion weights, on the validation day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import expit

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches.slates import feed_slates, search_slates
from pr2_jax.data.ingest.log_coverage import labels_told
from pr2_jax.evaluation.judged_day import Day, day_of
from pr2_jax.metrics.ranking_metrics import retrieval_metrics
from pr2_jax.ranking import calibration, fusion
from pr2_jax.ranking.query_map import QueryNumbers
from pr2_jax.search.pipelines import COMPARED, pipelines
from pr2_jax.search.searcher import Calibrated, Searcher, relevance
from pr2_jax.search.system import System

SESSION_BLOCK = 128


def fit_scores(system: System, config: Config, rankers: Path, out: Path) -> None:
    """Writes `pr2.json` and `base.json`. `rankers` holds the trained rankers (still in the making)."""
    cuts = system.store.cuts
    snapshot = system.fitted.snapshot(cuts.validation_ms)
    day = day_of(system, cuts.validation_ms, cuts.test_ms)
    names = [head.name for head in config.qin.prediction_heads]
    clicks_alone = fusion.FusionWeights((1.0, *(0.0 for _ in names[1:])), (1.0,) * len(names))
    for name in COMPARED:
        pipeline = pipelines(config)[name]
        unfitted = Calibrated(tuple(calibration.Platt() for _ in names), clicks_alone)
        channels = system.channels(snapshot, pipeline.channels, exact=True)
        ranker = system.ranker(pipeline.ranker, rankers)
        searcher = Searcher(system, snapshot, pipeline, channels, ranker, unfitted)
        heads = _heads(system, config, searcher, day)
        weights = _fusion(system, searcher, config, day, Calibrated(heads, clicks_alone))
        Calibrated(heads, weights).save(out / f"{name}.json")
        alphas = ", ".join(f"{task} {alpha:g}" for task, alpha in zip(names, weights.alpha_T, strict=True))
        kinds = ", ".join(f"{task} {type(head).__name__}" for task, head in zip(names, heads, strict=True))
        console.log(f"{name}: calibration (validation day): {kinds}")
        relevances = f"relevance {weights.relevance:g}, its floor {weights.relevance_floor:g}"
        console.log(f"{name}: fusion exponents (validation day): {alphas}, {relevances}")


def _heads(system: System, config: Config, searcher: Searcher, day: Day) -> tuple[calibration.Calibrator, ...]:
    """Click is calibrated on the day's search slates, another head there too where the log tells its label of results,
    else on feed views."""
    size = config.qin.slate
    slates_of = {
        False: search_slates(system.store, day.all_sessions, size, system.log.long_play, day.stop_ms),
        True: feed_slates(system.log.reader, day.start_ms, day.stop_ms, size),
    }
    fitted: list[calibration.Calibrator] = []
    query_numbers, told = QueryNumbers(system.log.counters), labels_told(system.store)
    logits = {
        is_feed: searcher.score(system.encode(system.log.requests_of(slates)), slates.video_NxS, is_feed=is_feed)
        for is_feed, slates in slates_of.items()
    }
    for t, head in enumerate(config.qin.prediction_heads):
        if not told[head.label]:
            fitted.append(calibration.Unlearned())
            continue
        is_feed = head.label != "click" and not slates_of[False].told(head.label).any()
        slates = slates_of[is_feed]
        real = slates.told(head.label)
        probability = expit(logits[is_feed][..., t][real].astype(np.float64))
        slate = np.nonzero(real)[0]
        rows = slates.label(head.label)[real], probability, slates.user_N[slate]
        # Feed views have no query.
        query = None if is_feed else query_numbers(system.log.requests_of(slates))[slate]
        fitted.append(calibration.fit(*rows, kind=config.scores.calibration, query_NxF=query))
    return tuple(fitted)


def _fusion(
    system: System, searcher: Searcher, config: Config, day: Day, calibrated: Calibrated
) -> fusion.FusionWeights:
    depth, query_numbers = config.search.candidates, QueryNumbers(system.log.counters)
    parts = []
    for start in range(0, len(day.sessions), SESSION_BLOCK):
        encoded = system.encode(day.requests.slice(start, start + SESSION_BLOCK))
        merged = searcher.candidates(encoded, searcher.retrieve(encoded), depth)
        logits = searcher.score(encoded, merged.ids_BxK)
        probability = calibrated.probabilities(logits, query_numbers(encoded.requests))
        clicked = day.clicked[start : start + SESSION_BLOCK]
        hit = np.stack([np.isin(ids, videos) for ids, videos in zip(merged.ids_BxK, clicked, strict=True)])
        parts.append((probability, relevance(merged), hit, merged.ids_BxK > 0))
    if not parts:
        return calibrated.fusion
    probability, relevances, hit, valid = (np.concatenate(column) for column in zip(*parts, strict=True))
    positives = np.array([len(videos) for videos in day.clicked])
    free = fusion.choose_weights(probability, relevances, hit, valid, positives_S=positives)
    lists, tolerance = (probability, relevances, hit, valid, day.requests.user_B), config.scores.floor_tolerance
    weights = fusion.choose_floor(*lists, free, tolerance, positives)
    heads = len(free.alpha_T)
    relevance_alone = fusion.FusionWeights((0.0,) * heads, (1.0,) * heads, 1.0)  # the order that the ranker is given
    orders = [fusion.fuse(probability, relevances, each) for each in (weights, free, relevance_alone)]
    ndcgs = [retrieval_metrics(order, hit, valid, positives)["ndcg@10"] for order in orders]
    reached, bare, merged_order = (float(np.nanmean(ndcg_S)) for ndcg_S in ndcgs)
    console.log(
        f"{searcher.pipeline.name}: validation NDCG@10 {reached:.4f}, without relevance floor {bare:.4f}, in merged "
        f"order {merged_order:.4f}"
    )
    return weights
