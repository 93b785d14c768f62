"""Judges the rankers' probabilities on a day: by head, and clicks by how often the query had been asked before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from pr2_jax.config import Config
from pr2_jax.data.batches.slates import Slates, feed_slates
from pr2_jax.drawing.charts import Plot, Series
from pr2_jax.drawing.painters import png
from pr2_jax.evaluation import results_table
from pr2_jax.evaluation.judged_day import Day
from pr2_jax.evaluation.rankings import Answers
from pr2_jax.metrics import calibration_curve
from pr2_jax.metrics.bootstrap import Interval, number
from pr2_jax.metrics.calibration_curve import BANDS, Rows
from pr2_jax.metrics.slicing import thirds
from pr2_jax.ranking.calibration import Unlearned
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System

FEED_SLATES = 1_000
"""Slates of feed views at most on which long play and like are judged: scoring them costs what searches cost."""
COLUMNS = (
    "raw_ece",
    "calibrated_ece",
    "chance_ece",
    "raw_pcoc",
    "calibrated_pcoc",
    "raw_logloss",
    "calibrated_logloss",
)

BEFORE_AFTER = (("before", 2), ("after", 1))
"""Of calibration, with the colour of each."""

Judged = dict[str, dict[str, Interval | float]]


def write(system: System, config: Config, given: Answers, out: Path) -> dict[str, Any]:
    """Writes `calibration.txt`, `calibration.md` and `reliability.png`; returns the same for metrics.json.

    Click probabilities are those of `given`; long play and like are scored here, on shown results where the log tells
    them, else on feed views: on what they were calibrated on.
    """
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    searches_Nq = _searches(system, given.day.start_ms)
    bands = thirds(searches_Nq)
    found: dict[str, Judged] = {}
    curves = {}
    results = any(given.slates.told(head.label).any() for head in config.qin.prediction_heads if head.label != "click")
    told = given.slates.sample(FEED_SLATES) if results else _feed(system, config, given.day)
    for searcher in given.searchers.values():
        ranker = searcher.pipeline.ranker
        click, query_N = _clicks(given, f"slate.{ranker}")
        band_N = calibration_curve.band_of(searches_Nq[query_N], bands)
        parts = {"click": click} | {f"click, {b} queries": click.kept(band_N == i) for i, b in enumerate(BANDS)}
        parts |= _others(system, searcher, told, is_feed=not results)
        found[ranker] = {part: calibration_curve.judge(rows, draws, seed) for part, rows in parts.items()}
        before, after = (
            calibration_curve.curve(click.label_N, p_N, click.user_N, draws, seed)
            for p_N in (click.raw_N, click.calibrated_N)
        )
        title = f"{ranker}: clicks on {len(click.label_N):,} results"
        curves[title] = {"before": before, "after": after}
    _write(found, bands, out)
    png([chart for title, parts in curves.items() for chart in charts_of(title, parts)], out / "reliability.png", 2)
    return {
        "least_searches_before_the_day": dict(zip(BANDS, (*reversed(bands), 1, 0), strict=True)),
        "rankers": {
            ranker: {part: {name: number(value) for name, value in judged.items()} for part, judged in parts.items()}
            for ranker, parts in found.items()
        },
        "curves": curves,
    }


def _searches(system: System, before_ms: int) -> np.ndarray:
    """Searches of each query before the day; the empty query counts as never asked, as ranking takes it."""
    counts_Nq = system.log.counters.query_searches.before(np.arange(system.store.counts.queries), before_ms)
    counts_Nq[0] = 0
    return counts_Nq


def _clicks(given: Answers, name: str) -> tuple[Rows, np.ndarray]:
    """All results shown, and the query row of each."""
    slates, ranking = given.slates, given.rankings[name]
    slate_N, place_N = np.nonzero(slates.video_NxS > 0)
    raw_N = expit(ranking.scores_SxK[slate_N, place_N].astype(np.float64))
    labels_N = slates.label("click")[slate_N, place_N]
    rows = Rows(labels_N, raw_N, ranking.probability_SxK[slate_N, place_N], slates.user_N[slate_N])
    return rows, slates.query_N[slate_N]


def _feed(system: System, config: Config, day: Day) -> Slates:
    return feed_slates(system.log.reader, day.start_ms, day.stop_ms, config.qin.slate).sample(FEED_SLATES)


def _others(system: System, searcher: Searcher, slates: Slates, is_feed: bool) -> dict[str, Rows]:
    if not len(slates):
        return {}
    requests = system.log.requests_of(slates)
    logits = searcher.score(system.encode(requests), slates.video_NxS, is_feed=is_feed)
    calibrated = searcher.probabilities(requests, logits)
    out = {}
    for t, head in enumerate(system.config.qin.prediction_heads):
        told_NxS = slates.told(head.label)
        if head.label != "click" and told_NxS.any() and not isinstance(searcher.calibrated.heads[t], Unlearned):
            slate_N, place_N = np.nonzero(told_NxS)
            raw_N = expit(logits[slate_N, place_N, t].astype(np.float64))
            labels_N = slates.label(head.label)[slate_N, place_N]
            out[head.name] = Rows(labels_N, raw_N, calibrated[slate_N, place_N, t], slates.user_N[slate_N])
    return out


def _write(found: dict[str, Judged], bands: tuple[int, int], out: Path) -> None:
    rows = [
        results_table.Row(
            f"{ranker} {part} ({judged['rows']:,.0f} rows, {judged['positives']:,.0f} yes)", judged, ranker
        )
        for ranker, parts in found.items()
        for part, judged in parts.items()
    ]
    title = "Calibration on the test day, before (raw) and after"
    notes = (
        f"ECE over {calibration_curve.BINS} bins of equally many rows; chance_ece: what is left of it on average where "
        "every calibrated\nprobability is true. PCOC: predicted over observed. "
        f"Queries by searches before the day: head {bands[1]} or more, torso\n{bands[0]} or more, tail fewer, unseen "
        "none. Long play and like on feed views.\n"
    )
    (out / "calibration.txt").write_text(f"{results_table.plain(rows, COLUMNS, title)}\n{notes}")
    (out / "calibration.md").write_text(f"{title}\n\n{results_table.markdown(rows, COLUMNS)}\n{notes}")


def charts_of(name: str, parts: dict[str, dict]) -> list[Plot]:
    """Of the curves of one ranker as metrics.json has them: observed against predicted, and how often what is said."""
    ranker = name.partition(":")[0]
    curves = [
        Series(f"{when} calibration", parts[when]["predicted_B"], parts[when]["observed_B"], parts[when]["low_B"],
               parts[when]["high_B"], marks=True, colour=colour)
        for when, colour in BEFORE_AFTER
    ]  # fmt: skip
    spreads = []
    for when, colour in BEFORE_AFTER:
        spread = parts[when]["spread_W"]
        filled = [(n + 0.5) / len(spread) for n, count in enumerate(spread) if count]
        spreads.append(Series(f"{when} calibration", filled, [c for c in spread if c], colour=colour))
    about = f"Observed share of clicks against the predicted probability of {name}, in bins of equally many rows."
    return [
        Plot(f"reliability_{ranker}", name, about, "predicted probability", "share clicked", curves, diagonal=True),
        Plot(f"spread_{ranker}", f"{ranker}: how often it says what", f"Rows by the probability that {ranker} gives.",
             "predicted probability", "rows per 0.01", spreads, log_y=True),
    ]  # fmt: skip
