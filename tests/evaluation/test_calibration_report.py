"""Calibration as evaluation reports it, against the run files and the log."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest

from pr2_jax.data.batches.sessions import impressions_of
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.metrics.calibration_curve import BANDS, BINS
from pr2_jax.metrics.ranking_metrics import expected_calibration_error
from pr2_jax.search.system import System

WITHOUT_BANDS = ("click", "long_play", "like")


@pytest.fixture(scope="module")
def system(finished, micro_config) -> System:
    return System.open(finished, micro_config)


@pytest.fixture(scope="module")
def reported(finished) -> dict:
    return json.loads((finished / "eval" / "metrics.json").read_text())


def _shown(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(session row, raw video, clicked) of every result shown on the test day."""
    store = system.store
    sessions = day_of(system, store.cuts.test_ms, store.cuts.end_ms).all_sessions
    rows, owner = impressions_of(store, sessions)
    raw = np.asarray(store.videos.raw_id)[np.asarray(store.impressions.video)[rows]]
    return sessions[owner], raw, np.asarray(store.impressions.clicks)[rows] > 0


@pytest.mark.parametrize("ranker", ["qin", "base"])
def test_raw_figures_are_those_of_the_run_file(system, reported, finished, ranker):
    """By band too, whose counts are taken here from the sessions themselves."""
    store, judged = system.store, reported["calibration"]["rankers"][ranker]
    scores = {}
    for line in (finished / "eval" / f"slate.{ranker}.run").read_text().splitlines():
        session, _, video, _, score, _ = line.split()
        scores[int(session), int(video)] = float(score)
    session_N, video_N, label_N = _shown(system)
    raw_session = np.asarray(store.sessions.raw_id)[session_N]
    logit_N = np.array([scores[key] for key in zip(raw_session.tolist(), video_N.tolist(), strict=True)])
    p_N = 1 / (1 + np.exp(-logit_N))
    time_ms, query = np.asarray(store.sessions.time_ms), np.asarray(store.sessions.query)
    past = collections.Counter(query[time_ms < store.cuts.test_ms].tolist())
    asked_N = np.array([past[one] if one else 0 for one in query[session_N].tolist()])
    least = reported["calibration"]["least_searches_before_the_day"]
    assert [least[band] for band in BANDS] == sorted(least.values(), reverse=True)
    assert sum(judged[f"click, {band} queries"]["rows"] for band in BANDS) == judged["click"]["rows"] == len(p_N)
    above = np.inf
    for band in (None, *BANDS):
        kept = np.ones(len(p_N), bool) if band is None else (asked_N >= least[band]) & (asked_N < above)
        above = above if band is None else least[band]
        part = judged["click" if band is None else f"click, {band} queries"]
        assert part["rows"] == kept.sum()
        assert part["positives"] == label_N[kept].sum()
        if kept.any():
            want = expected_calibration_error(label_N[kept], p_N[kept], BINS)
            assert part["raw_ece"] == pytest.approx(want, abs=1e-9)
    row = reported["rows"][f"slate.{ranker}.run"]
    assert judged["click"]["calibrated_ece"] == row["ece"]
    assert judged["click"]["calibrated_pcoc"] == row["pcoc"]


def test_heads_of_feed_views_are_judged_too(system, reported, finished):
    for judged in reported["calibration"]["rankers"].values():
        assert set(judged) == {*WITHOUT_BANDS, *(f"click, {band} queries" for band in BANDS)}
        assert judged["long_play"]["rows"] == judged["like"]["rows"] > 100
        assert 0 < judged["long_play"]["positives"] < judged["long_play"]["rows"]
    for name in ("calibration.txt", "calibration.md"):
        text = (finished / "eval" / name).read_text()
        assert all(f"{ranker} {part}" in text for ranker in ("qin", "base") for part in WITHOUT_BANDS)
    assert (finished / "eval" / "reliability.png").read_bytes().startswith(b"\x89PNG")
