"""Calibration of the rankers on a day: by head, and of clicks by query frequency."""

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
from pr2_jax.evaluation.rankings import Rankings
from pr2_jax.metrics import calibration_curve
from pr2_jax.metrics.bootstrap import Interval, number
from pr2_jax.metrics.calibration_curve import BANDS, Rows
from pr2_jax.metrics.slicing import thirds
from pr2_jax.ranking.calibration import Unlearned
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System

FEED_SLATES = 1_000
"""Slates on which long play and like are judged, at most: scoring them costs what searches cost."""
COLUMNS = (
    "raw_ece", "calibrated_ece", "chance_ece", "raw_pcoc", "calibrated_pcoc", "raw_logloss", "calibrated_logloss",
)  # fmt: skip
BEFORE_AFTER = (("before", 2), ("after", 1))
"""Of calibration, with the colour of each."""

Judged = dict[str, dict[str, Interval | float]]


def write(system: System, config: Config, rankings: Rankings, out: Path) -> dict[str, Any]:
    """Writes `calibration.txt`, `calibration.md` and `reliability.png`; returns the same for metrics.json.

    Click probabilities are those of `rankings`. Other heads are scored here on what they were calibrated on: shown
    results where the log tells their label, else feed views.
    """
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    shown, day = rankings.slates, rankings.day
    searches_Nq = system.log.counters.query_searches.before(np.arange(system.store.counts.queries), day.start_ms)
    searches_Nq[0] = 0  # the empty query, as in the ranker's features
    bands = thirds(searches_Nq)
    on_results = any(shown.told(head.label).any() for head in config.qin.prediction_heads if head.label != "click")
    of_heads = shown if on_results else feed_slates(system.log.reader, day.start_ms, day.stop_ms, config.qin.slate)
    of_heads = of_heads.sample(FEED_SLATES)
    found: dict[str, Judged] = {}
    curves = {}
    for searcher in rankings.searchers.values():
        ranker = searcher.pipeline.ranker
        of_ranker = rankings.by_name[f"slate.{ranker}"]
        click, slate_N = _rows(shown, "click", shown.video_NxS > 0, of_ranker.scores_SxK, of_ranker.probability_SxK)
        band_N = calibration_curve.band_of(searches_Nq[shown.query_N[slate_N]], bands)
        parts = {"click": click} | {f"click, {b} queries": click.kept(band_N == i) for i, b in enumerate(BANDS)}
        parts |= _other_heads(system, searcher, of_heads, is_feed=not on_results)
        found[ranker] = {part: calibration_curve.judge(rows, draws, seed) for part, rows in parts.items()}
        curves[f"{ranker}: clicks on {len(click.label_N):,} results"] = {
            when: calibration_curve.curve(click.label_N, p_N, click.user_N, draws, seed)
            for when, p_N in (("before", click.raw_N), ("after", click.calibrated_N))
        }
    _write_tables(found, bands, out)
    png([chart for title, parts in curves.items() for chart in charts_of(title, parts)], out / "reliability.png", 2)
    return {
        "least_searches_before_the_day": dict(zip(BANDS, (*reversed(bands), 1, 0), strict=True)),
        "rankers": {
            ranker: {part: {name: number(value) for name, value in judged.items()} for part, judged in parts.items()}
            for ranker, parts in found.items()
        },
        "curves": curves,
    }


def _rows(
    slates: Slates, label: str, kept_NxS: np.ndarray, logit_NxS: np.ndarray, calibrated_NxS: np.ndarray
) -> tuple[Rows, np.ndarray]:
    """The kept results of one head, and the slate of each."""
    raw_N = expit(logit_NxS[kept_NxS].astype(np.float64))
    slate_N = np.nonzero(kept_NxS)[0]
    return Rows(slates.label(label)[kept_NxS], raw_N, calibrated_NxS[kept_NxS], slates.user_N[slate_N]), slate_N


def _other_heads(system: System, searcher: Searcher, slates: Slates, is_feed: bool) -> dict[str, Rows]:
    if not len(slates):
        return {}
    requests = system.log.requests_of(slates)
    logits = searcher.score(system.encode(requests), slates.video_NxS, is_feed=is_feed)
    calibrated = searcher.probabilities(requests, logits)
    out = {}
    for t, head in enumerate(system.config.qin.prediction_heads):
        told = slates.told(head.label)
        if head.label != "click" and told.any() and not isinstance(searcher.calibrated.heads[t], Unlearned):
            out[head.name], _ = _rows(slates, head.label, told, logits[..., t], calibrated[..., t])
    return out


def _write_tables(found: dict[str, Judged], bands: tuple[int, int], out: Path) -> None:
    rows = []
    for ranker, parts in found.items():
        for part, judged in parts.items():
            name = f"{ranker} {part} ({judged['rows']:,.0f} rows, {judged['positives']:,.0f} yes)"
            rows.append(results_table.Row(name, judged, ranker))
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
    """Reliability curve and histogram of predictions of one ranker, from its `curves` in metrics.json."""
    ranker = name.partition(":")[0]
    curves, spreads = [], []
    for when, colour in BEFORE_AFTER:
        curve = [parts[when][name] for name in ("predicted_B", "observed_B", "low_B", "high_B")]
        curves.append(Series(f"{when} calibration", *curve, marks=True, colour=colour))
        spread = parts[when]["spread_W"]
        filled = [(n + 0.5) / len(spread) for n, count in enumerate(spread) if count]
        spreads.append(Series(f"{when} calibration", filled, [c for c in spread if c], colour=colour))
    about = f"Observed share of clicks against the predicted probability of {name}, in bins of equally many rows."
    return [
        Plot(f"reliability_{ranker}", name, about, "predicted probability", "share clicked", curves, diagonal=True),
        Plot(f"spread_{ranker}", f"{ranker}: how often it says what", f"Rows by the probability that {ranker} gives.",
             "predicted probability", "rows per 0.01", spreads, log_y=True),
    ]  # fmt: skip
