"""The log: rows read, events by day, query frequencies."""

from __future__ import annotations

import datetime

import numpy as np

from pr2_jax.data.columns import FEED_SURFACE
from pr2_jax.data.ingest.log_coverage import lacks
from pr2_jax.data.schema import DAY_MS
from pr2_jax.drawing.charts import Plot, Series
from pr2_jax.report.blocks import Charts, Note, Section, Table
from pr2_jax.report.workdir_reader import Work

POINTS = 120
"""Points of a curve over ranks, evenly spread on the logarithmic axis."""
SAID = {
    "users": "people",
    "videos": "videos",
    "sessions": "searches",
    "clicked_sessions": "searches with a click",
    "impressions": "results shown",
    "clicks": "clicks on results",
    "feed_views": "feed views",
    "queries": "distinct queries",
    "words": "distinct words",
    "videos_with_content": "videos with content vectors of the log",
    "days": "days",
}


def section(work: Work) -> Section:
    """From store/."""
    report = work.json("store/report.json") or {}
    counts = [[said, report[name]] for name, said in SAID.items() if name in report]
    if "found_before_share" in report:
        counts.append(["clicks on results that the person had clicked before", f"{report['found_before_share']:.1%}"])
    counts += [[f"searches of the {day} {'days' if day == 'training' else 'day'}", n] for day, n in
               report.get("sessions_by_day", {}).items()]  # fmt: skip
    files = [
        [name, *(one[part] for part in ("read", "kept", "repeats", "quarantined")), sum(one["left_out"].values())]
        for name, one in report.get("tables", {}).items()
    ]
    columns = {"file": "text"} | dict.fromkeys(("read", "kept", "repeats", "quarantined", "left out"), "count")
    store, events = work.store, work.store.events
    time_ms, feed = np.asarray(events.time_ms), np.asarray(events.surface) == FEED_SURFACE
    said = ". ".join(sentence[0].upper() + sentence[1:] for sentence in lacks(store))
    lacking = [Note(f"{said}.", "What the log does not hold")] if said else []
    return Section(
        f"{store.counts.users - 1:,} people, {store.counts.videos - 1:,} videos, {store.counts.sessions:,} searches, "
        f"{int(feed.sum()):,} feed views in {(store.cuts.end_ms - store.cuts.start_ms) / DAY_MS:.1f} days.",
        f"From {report.get('start', '')} to {report.get('end', '')} UTC. Models learn from the training days, settings "
        "are chosen on the validation day, the test day is only looked at to report.",
        [
            *lacking,
            Charts([
                _by_day(work, "feed_views", "Feed views a day", time_ms[feed]),
                _by_day(work, "result_clicks", "Clicked results a day", time_ms[~feed]),
                _by_day(work, "searches", "Searches a day", np.asarray(store.sessions.time_ms)),
                *_of_queries(work),
            ]),
            Table("counts", "What the log holds", {"what": "text", "number": "plain"}, counts),
            Table("files", "Rows of each file", columns, files, folded=True),
        ],
    )  # fmt: skip


def _days(work: Work) -> tuple[int, int]:
    """The first and the last day of the log, views before the first search and after the last one included."""
    store = work.store
    days = [work.day_of(times) for times in (store.events.time_ms, store.sessions.time_ms) if len(times)]
    return min(int(day_N.min()) for day_N in days), max(int(day_N.max()) for day_N in days)


def _by_day(work: Work, slug: str, title: str, time_ms: np.ndarray) -> Plot:
    cuts, (first, last) = work.store.cuts, _days(work)
    test, day_D = int(work.day_of(cuts.test_ms)), np.arange(first, last + 1)
    count_D = np.bincount(work.day_of(time_ms) - first, minlength=len(day_D))
    part_D = np.digitize(day_D, (0, test))
    series = [
        Series(name, *(of_D[part_D == n].astype(float).tolist() for of_D in (day_D, count_D)), colour=n + 1)
        for n, name in enumerate(("training", "validation", "test"))
    ]
    labels = [(float(day), _date(cuts.validation_ms + day * DAY_MS)) for day in day_D.tolist()]
    held = "the last two days" if test == 1 else f"the day {test} days before the last and the last"
    about = f"{title}: from {count_D.min():,} to {count_D.max():,}; {held} are for validation and test."
    return Plot(slug, title, about, "day (begins, UTC)", "number", series, bars=labels)


def _date(time_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC):%d %b}"


def _of_queries(work: Work) -> list[Plot]:
    """By rank, the most frequent query first, the empty one left out: searches of each, and what they make up."""
    count_Q = np.bincount(np.asarray(work.store.sessions.query), minlength=1)
    count_Q[0] = 0
    count_R = np.sort(count_Q[count_Q > 0])[::-1]
    share_R = np.cumsum(count_R) / max(1, count_R.sum())
    ranks = np.unique(np.geomspace(1, max(1, len(count_R)), POINTS).round().astype(np.int64))[: len(count_R)]
    once = float((count_R == 1).mean()) if len(count_R) else 0.0
    half = int(np.searchsorted(share_R, 0.5)) + 1
    queries, share = (
        Series(name, ranks.astype(float).tolist(), column_R[ranks - 1].astype(float).tolist())
        for name, column_R in (("queries", count_R), ("share", share_R))
    )
    about = f"Searches of each query by its rank, both axes logarithmic; {once:.0%} of queries were asked once."
    summed = f"Share of all searches that the most frequent queries make up; {half:,} queries make up half."
    return [
        Plot("query_frequency", "How often queries are asked", about, "rank of the query", "searches", [queries],
             log_x=True, log_y=True),
        Plot("query_share", "What the most frequent queries make up", summed, "most frequent queries",
             "share of searches", [share], log_x=True, from_zero=True, percent=True),
    ]  # fmt: skip
