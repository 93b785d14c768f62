"""What became of every row of a log, what the log is like, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.config import Config
from pr2_jax.data.history.histories import found_before_share
from pr2_jax.data.ingest.log_coverage import lacks
from pr2_jax.data.logs.log_tables import LogTables, iso, log_tables, read_tables, refuse_unusable
from pr2_jax.data.logs.mapping import names_of
from pr2_jax.data.logs.quarantine import Quarantine, described
from pr2_jax.data.logs.reading import TableCount
from pr2_jax.data.logs.sources import open_log
from pr2_jax.data.schema import DAY_MS
from pr2_jax.data.store.assembled import rows_of
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import BadInput

EXAMPLES = 3
"""Bad rows of each kind that are shown."""


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What was read, what was kept, and what the log is like."""

    tables: dict[str, TableCount]
    left_out: dict[str, str]  # tables that were not read, and why
    unread: list[str]  # other files that lie beside the tables
    written: dict[str, int]  # of all search rows, those left out among them: sessions, clicked_rows, reused_ids
    sessions: int
    sessions_by_day: dict[str, int]  # training, validation, test
    clicked_sessions: int
    impressions: int
    shown_again: int  # kept search rows that show a video again within their session: they are one result
    clicks: int
    found_before_share: float  # of clicked results: the person had clicked that video before
    feed_views: int
    median_play_s: float | None  # of feed views and of results with a playing time, None without any
    median_duration_s: float | None
    users: int
    users_without_features: int
    videos: int
    videos_without_features: int
    videos_with_content: int
    brought_unknown: int  # rows of content.npy whose video the log does not know
    words: int
    words_with_text: int
    queries: int
    empty_query_share: float  # of sessions
    unseen_word_share: float  # of sessions: the query has a word that no caption has
    lacks: list[str]  # what the log does not hold, and what is therefore not learned
    start: str  # UTC
    end: str
    days: float

    @staticmethod
    def of(tables: LogTables, store: LogStore) -> IngestReport:
        """Counts over the finished store; row 0 of a vocabulary counts for nothing."""
        sessions, cuts = store.sessions, store.cuts
        time_ms = np.asarray(sessions.time_ms)
        by_day = np.bincount(np.digitize(time_ms, [cuts.validation_ms, cuts.test_ms]), minlength=3)
        starts = np.asarray(sessions.first_impression)[:-1]
        clicks = np.asarray(store.impressions.clicks)
        users, videos = tables.users["user"].to_numpy(), tables.videos["video"].to_numpy()
        brought = np.zeros(0, np.int64) if tables.content is None else tables.content.ids
        known = rows_of(store.videos.raw_id, brought) > 0
        lengths = np.diff(store.queries.first_word)[sessions.query]
        return IngestReport(
            tables=tables.counts,
            left_out=tables.left_out,
            unread=list(tables.unread),
            written=tables.written,
            sessions=len(time_ms),
            sessions_by_day=dict(zip(("training", "validation", "test"), by_day.tolist(), strict=True)),
            clicked_sessions=int((np.add.reduceat(clicks, starts) > 0).sum()),
            impressions=len(clicks),
            shown_again=len(tables.search) - len(clicks),
            clicks=int(clicks.sum()),
            found_before_share=found_before_share(store),
            feed_views=len(tables.feed),
            median_play_s=_median_s(tables, "play_ms"),
            median_duration_s=_median_s(tables, "duration_ms"),
            users=store.counts.users - 1,
            users_without_features=store.counts.users - 1 - len(users),
            videos=store.counts.videos - 1,
            videos_without_features=store.counts.videos - 1 - len(videos),
            videos_with_content=int(known.sum()),
            brought_unknown=int((~known).sum()),
            words=store.counts.words - 1,
            words_with_text=sum(text is not None for text in store.words.text),
            queries=store.counts.queries - 1,
            empty_query_share=float((lengths == 0).mean()),
            unseen_word_share=float(_has_unseen_word(store)[sessions.query].mean()),
            lacks=lacks(store),
            start=iso(cuts.start_ms),
            end=iso(cuts.end_ms - 1),
            days=round((cuts.end_ms - cuts.start_ms) / DAY_MS, 2),
        )

    def lines(self) -> list[str]:
        out = [table_line(name, count) for name, count in self.tables.items()]
        days = ", ".join(f"{count:,} {day}" for day, count in self.sessions_by_day.items())
        out += [
            f"sessions  {self.sessions:,} ({days}); {self.clicked_sessions:,} with a click, {self.queries:,} queries",
            f"shown     {self.impressions:,} results, {self.clicks:,} clicks",
            f"feed      {self.feed_views:,} views{_spans(self)}",
            f"again     {self.found_before_share:.1%} of the clicked results were clicked before by the same person",
            f"users     {self.users:,}, {self.users_without_features:,} of them without features",
            f"videos    {self.videos:,}, {self.videos_without_features:,} of them without features, "
            f"{self.videos_with_content:,} with brought content vectors",
            f"words     {self.words:,}, {self.words_with_text:,} of them readable",
            f"queries   {self.unseen_word_share:.1%} of sessions use a word that no caption has, "
            f"{self.empty_query_share:.1%} have no words",
            f"time      {self.start} to {self.end} UTC, {self.days:g} days",
        ]
        if reused := self.written["reused_ids"]:
            out.append(
                f"odd       {reused:,} sessions reuse an id of an earlier session of the same person: none are joined"
            )
        if self.shown_again:
            out.append(f"odd       {self.shown_again:,} search rows repeat a video of their session: it is one result")
        if self.median_play_s is not None and not 0.5 <= self.median_play_s <= 6 * 3600:
            out.append(
                f"odd       half of the views play more than {self.median_play_s:,.3f} s: is playing_time in ms?"
            )
        out += [f"left out  {name}: {why}" for name, why in self.left_out.items()]
        out += not_read(self.unread)
        out += [f"lacks     {what}" for what in self.lacks]
        if self.brought_unknown:
            out.append(f"odd       {self.brought_unknown:,} rows of content.npy belong to videos that the log lacks")
        return out


def _has_unseen_word(store: LogStore) -> np.ndarray:
    """bool [Nq]: some word of the query stands in no caption."""
    in_caption = np.zeros(store.counts.words, bool)
    in_caption[np.asarray(store.videos.words)] = True
    in_caption[0] = False
    unseen = np.concatenate([[0], np.cumsum(~in_caption[np.asarray(store.queries.words)])])
    return np.diff(unseen[np.asarray(store.queries.first_word)]) > 0


def _median_s(tables: LogTables, name: str) -> float | None:
    """Median of what is above 0, in seconds."""
    frames = [frame[name] for frame in (tables.feed, tables.search) if name in frame.columns]
    known = pl.concat(frames).filter(pl.concat(frames) > 0)
    return float(known.median()) / 1000 if len(known) else None


def _spans(report: IngestReport) -> str:
    if report.median_play_s is None:
        return ""
    long = "" if report.median_duration_s is None else f" of {report.median_duration_s:,.1f} s"
    return f", which play {report.median_play_s:,.1f} s{long} (medians)"


def not_read(files: Iterable[str]) -> list[str]:
    """A line for each file of the log that is no table."""
    return [f"not read  {name}" for name in files]


def table_line(name: str, count: TableCount) -> str:
    """What became of the rows of one table."""
    parts = [f"{name:<18}{count.read:>12,} rows read, {count.kept:,} kept"]
    parts += [f"{count.mended:,} of them with a stray quote in a column that is not read"] if count.mended else []
    parts += [f"{count.repeats:,} exact repeats"] if count.repeats else []
    parts += [f"{count.quarantined:,} bad"] if count.quarantined else []
    parts += [f"{rows:,} {reason}" for reason, rows in count.left_out.items()]
    return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Examination:
    """`problems`: what `pr2 ingest` would refuse, each in one line; `lines` for people to read, these among them."""

    lines: list[str]
    problems: list[str]


def examine(input_path: Path, config: Config) -> Examination:
    """Reads a whole log without writing anything, and finds all problems at once; `pr2 ingest` stops at the first.

    BadInput only where there is no log to read.
    """
    data, problems = config.data, []
    quarantine = Quarantine(data.max_bad_share)
    with open_log(Path(input_path), names_of(data)) as files:
        read = read_tables(files, data, quarantine, problems)
        lines = [table_line(one.name, one.count(quarantine)) for one in read.values()] + not_read(files.unread)
        if not problems:
            try:
                tables = log_tables(read, files, quarantine)
                refuse_unusable(tables)
                lines = IngestReport.of(tables, LogStore.from_tables(tables)).lines()
            except BadInput as error:
                problems.append(str(error))
    bad = quarantine.table()
    left_out = f"; bad cells that would leave out a row, see above: {len(bad):,}" if len(bad) else ""
    verdict = [f"error     {problem}" for problem in problems] or [f"fine      nothing has to be mended{left_out}"]
    return Examination([*lines, *_kinds(bad), *verdict], problems)


def _kinds(bad: pl.DataFrame) -> list[str]:
    """The first bad rows of each kind, with how many there are."""
    lines = []
    for _, kind in bad.group_by("table", "column", "reason", maintain_order=True):
        lines.append(f"bad       {len(kind):,} x {described(kind.row(0, named=True))}")
        lines += [f"          {described(row)}" for row in kind[1:EXAMPLES].iter_rows(named=True)]
    return lines
