"""The judged day by slices: query frequency, the person's past, and the clicked video.

Bounds and counts are those of the start of the day, histories and ages those of the search. Only sessions with a click
are sliced: the measures compared here are NaN elsewhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import impressions_of
from pr2_jax.data.columns import NEVER_MS
from pr2_jax.data.history.counters import Counters, pair
from pr2_jax.data.history.histories import past_events
from pr2_jax.data.history.labels import popularity
from pr2_jax.data.history.probe import Searches
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.evaluation import results_table
from pr2_jax.evaluation.judged_day import Day
from pr2_jax.metrics.bootstrap import number
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.metrics.slicing import (
    FEW_USERS,
    UNKNOWN,
    Compared,
    Measure,
    Slicing,
    compare,
    compare_slices,
    least,
    quantiles,
    thirds,
)
from pr2_jax.search.system import System

TEXT, MARKDOWN = "slices.txt", "slices.md"
MEASURES = (
    Measure("pipeline.pr2", "pipeline.base", "ndcg@10"),
    Measure("retrieval.pr2", "retrieval.bm25+dr", "recall@100"),
    Measure("retrieval.pr2", "retrieval.bm25+dr", "ndcg@10"),
    Measure("slate.qin", "slate.base", "ndcg@10"),
    Measure("slate.qin", "slate.base", "auc"),
)
WIDTH = 110
"""Of the text."""
INTERVAL = "95 % interval"
FREQUENCIES = ("tail", "torso", "head")


def slicings(
    store: LogStore, searches: Searches, clicked: Sequence[np.ndarray], day_ms: int, counters: Counters | None = None
) -> list[Slicing]:
    """Slices of searches of the day that begins at `day_ms`; `clicked`: the video rows clicked in each.

    Of the store only what is strictly before a search is read. ValueError where nothing was clicked in one.
    """
    past = int(np.searchsorted(store.sessions.time_ms, day_ms))
    user_P = np.asarray(store.sessions.user)[:past]  # of the searches before the day
    video_M, sizes = np.concatenate([np.zeros(0, np.int32), *clicked]), [len(videos) for videos in clicked]
    return [
        _by_query(store, searches, past),
        _by_history(store, searches, user_P, day_ms),
        _by_person(store, searches, user_P, day_ms),
        _by_popularity(store, video_M, sizes, day_ms),
        _by_age(store, searches, video_M, sizes, past),
        _by_refinding(counters or Counters(store), searches, video_M, sizes),
    ]


def write(system: System, config: Config, day: Day, metrics: dict[str, PerSession], out: Path) -> dict[str, Any]:
    """Writes `slices.txt` and `slices.md`; returns the same for metrics.json."""
    draws, seed = config.evaluation.bootstrap, config.evaluation.seed
    sessions, searches = day.clicked_sessions, Searches.of(system.store, day.clicked_sessions)
    cut = slicings(system.store, searches, day.clicked_videos, day.start_ms, system.log.counters)
    compared = [compare_slices(metrics, MEASURES, slicing, sessions, draws, seed) for slicing in cut]
    notes = [
        f"Slices of the judged day: {len(sessions):,} searches with a click, by {len(np.unique(searches.user_N)):,} "
        "people. Differences are paired, their intervals are by bootstrap over people, none where there are fewer than "
        f"{FEW_USERS}. AUC leaves out searches in which everything shown was clicked. {day.refinding.note} Every "
        "search is in one slice by each of:",
        *(f"- {slicing.name}: {slicing.what}" for slicing in cut),
    ]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  " * note.startswith("-")) for note in notes]
    plain, marked = ["\n".join(wrapped) + "\n"], ["\n".join([notes[0], "", *notes[1:]]) + "\n"]
    for m in MEASURES:
        title = f"{m.metric} of {m.ranking} against {m.against}"
        lines = [results_table.Row("all", _cells(m, compare(metrics, m, sessions, draws, seed)), "all")]
        for slicing, found in zip(cut, compared, strict=True):
            for k, one in enumerate(found):
                lines.append(results_table.Row(slicing.label(k), _cells(m, one[m.name]), slicing.name))
        plain.append(results_table.plain(lines, title=title))
        marked.append(f"{title}\n\n{results_table.markdown(lines)}")
    (out / TEXT).write_text("\n".join(plain))
    (out / MARKDOWN).write_text("\n".join(marked))
    report = {}
    for slicing, found in zip(cut, compared, strict=True):
        numbers = [_numbers(slicing, k, searches.user_N, one) for k, one in enumerate(found)]
        report[slicing.name] = {"what": slicing.what, "slices": numbers}
    return report


def _cells(measure: Measure, found: Compared) -> dict[str, float | str]:
    """Sessions and users are those in which the metric is known."""
    v = found.difference
    return {
        "sessions": f"{v.count:,}",
        "users": f"{found.users:,}",
        measure.against.partition(".")[2]: found.against,
        measure.ranking.partition(".")[2]: found.ranking,
        "difference": f"{v.mean:+.4f}" if v.count else results_table.MISSING,
        INTERVAL: f"[{v.low:+.4f}, {v.high:+.4f}]" if np.isfinite(v.low) else results_table.MISSING,
    }


def _numbers(slicing: Slicing, k: int, user_N: np.ndarray, found: dict[str, Compared]) -> dict[str, Any]:
    """One slice for metrics.json. `from` and `to` are the range of the slicing's number, both included."""
    measures = {}
    for m in MEASURES:
        one = found[m.name]
        means = {m.against: number(one.against), m.ranking: number(one.ranking)}
        measures[m.name] = means | {"difference": number(one.difference), "users": one.users}
    people_N = user_N[slicing.slice_N == k]
    low, high = slicing.bounds(k)
    counts = {"from": low, "to": high, "sessions": len(people_N), "users": len(np.unique(people_N))}
    return {"name": slicing.names_K[k], "measures": measures} | counts


def _by_query(store: LogStore, searches: Searches, past: int) -> Slicing:
    count_Q = np.bincount(np.asarray(store.sessions.query)[:past], minlength=store.counts.queries)
    what = (
        "searches for the query before the day, by anybody; head, torso and tail: the most frequent queries that make "
        "up the first third of those searches, the second third, the rest"
    )
    return Slicing("query", what, ("unseen", *FREQUENCIES), (0, 1, *thirds(count_Q)), count_Q[searches.query_N])


def _by_history(store: LogStore, searches: Searches, user_P: np.ndarray, day_ms: int) -> Slicing:
    """The median is over past searches, not over people: active people search more, and half of all people would make
    a small share of the searches."""
    length_N = past_events(store, user_P, np.full(len(user_P), day_ms))
    (long,) = quantiles(length_N[length_N > 0], 2)
    what = (
        "events of the person before the search, feed views and clicked results; short: up to the median, at the start "
        "of the day, of those who made the searches before it, one each search"
    )
    number_N = past_events(store, searches.user_N, searches.time_ms_N)
    return Slicing("history", what, ("none", "short", "long"), (0, 1, max(1, long)), number_N)


def _by_person(store: LogStore, searches: Searches, user_P: np.ndarray, day_ms: int) -> Slicing:
    count_U = np.bincount(user_P, minlength=store.counts.users)
    number_N = count_U[searches.user_N] + past_events(store, searches.user_N, np.full(len(searches), day_ms))
    what = "events and searches of the person before the day"
    return Slicing("person", what, ("new", "known"), (0, 1), number_N)


def _by_popularity(store: LogStore, video_M: np.ndarray, sizes: list[int], day_ms: int) -> Slicing:
    clicks_V = popularity(store, day_ms).astype(np.int64)
    number_V = np.where(_in_training(store, day_ms), clicks_V, UNKNOWN)
    what = (
        "clicks on the clicked video before the day, in the feed and in searches, of several videos the fewest; head, "
        "torso and tail: thirds of those clicks; unseen in training: neither shown nor viewed before the validation day"
    )
    names = ("unseen in training", *FREQUENCIES)
    return Slicing("popularity", what, names, (UNKNOWN, 0, *thirds(clicks_V)), least(number_V[video_M], sizes))


def _in_training(store: LogStore, day_ms: int) -> np.ndarray:
    """bool [V]: was there an event or an impression of the video before the validation cut, or the day if earlier?"""
    cut_ms = min(day_ms, store.cuts.validation_ms)
    seen_V = np.zeros(store.counts.videos, bool)
    seen_V[np.asarray(store.events.video)[np.asarray(store.events.time_ms) < cut_ms]] = True
    shown = store.sessions.first_impression[np.searchsorted(store.sessions.time_ms, cut_ms)]
    seen_V[np.asarray(store.impressions.video)[:shown]] = True
    return seen_V


def _by_age(store: LogStore, searches: Searches, video_M: np.ndarray, sizes: list[int], past: int) -> Slicing:
    rows, owner = impressions_of(store, np.arange(past))
    hit = np.asarray(store.impressions.clicks)[rows] > 0
    before = _days(store, store.impressions.video[rows[hit]], store.sessions.time_ms[owner[hit]])
    middle, old = quantiles(before[before >= 0], 3)
    days = _days(store, video_M, np.repeat(searches.time_ms_N, sizes))
    # What is not known is left out of the minimum, unless there is nothing else.
    number_N = least(np.where(days >= 0, days, NEVER_MS), sizes)
    number_N = np.where(number_N == NEVER_MS, UNKNOWN, number_N)
    what = (
        "whole days from the upload of the clicked video to the search, of several videos the newest; new, middle and "
        "old: thirds of the results clicked before the day"
    )
    return Slicing("age", what, ("unknown", "new", "middle", "old"), (UNKNOWN, 0, middle, old), number_N)


def _by_refinding(counters: Counters, searches: Searches, video_M: np.ndarray, sizes: list[int]) -> Slicing:
    keys = pair(np.repeat(searches.user_N, sizes), video_M)
    clicks = counters.user_video_clicks.before(keys, np.repeat(searches.time_ms_N, sizes))
    what = (
        "clicks of the same person on the clicked video before the search, in the feed and in searches, of several "
        "videos the fewest"
    )
    return Slicing("found", what, ("new", "before"), (0, 1), least(clicks, sizes))


def _days(store: LogStore, video_M: np.ndarray, time_ms_M: np.ndarray) -> np.ndarray:
    """Whole days since the upload, 0 before it, UNKNOWN where the log does not say."""
    upload_ms_M = np.asarray(store.videos.upload_ms)[video_M]
    return np.where(upload_ms_M > 0, np.maximum(time_ms_M - upload_ms_M, 0) // DAY_MS, UNKNOWN)
