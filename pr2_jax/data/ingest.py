"""Raw log → checks → TFDS dataset → `LogStore`, and a report of what became of every row."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import SOURCES, Config
from pr2_jax.data.assemble import rows_of
from pr2_jax.data.builders.kuaisar import Kuaisar
from pr2_jax.data.builders.log_builder import LogBuilder, write_and_read_back
from pr2_jax.data.files import open_log
from pr2_jax.data.found_before import found_before_share
from pr2_jax.data.quarantine import QUARANTINE_FILE
from pr2_jax.data.schema import CONTENT_FILE, CONTENT_IDS_FILE, DAY_MS
from pr2_jax.data.store import LogStore, save_store
from pr2_jax.data.tables import LogTables, TableCount, iso

REPORT_FILE = "report.json"
STORE, EXCHANGE = "store", "tfds"


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What was read, what was kept, and what the log is like."""

    tables: dict[str, TableCount]
    sessions: int
    sessions_by_day: dict[str, int]  # training, validation, test
    clicked_sessions: int
    impressions: int
    clicks: int
    found_before_share: float  # of clicked results: the person had clicked that video before
    feed_views: int
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
    odd_sessions: int
    start: str  # UTC
    end: str
    days: float

    @staticmethod
    def of(tables: LogTables, store: LogStore) -> IngestReport:
        """Counts over the finished store; row 0 of a vocabulary counts for nothing."""
        sessions, cuts = store.sessions, store.cuts
        time_ms = np.asarray(sessions.time_ms)
        starts = np.asarray(sessions.first_impression)[:-1]
        clicks = np.asarray(store.impressions.clicks)
        users, videos = tables.users["user"].to_numpy(), tables.videos["video"].to_numpy()
        brought = np.zeros(0, np.int64) if tables.content is None else tables.content.ids
        known = rows_of(store.videos.raw_id, brought) > 0
        lengths = np.diff(store.queries.first_word)[sessions.query]
        return IngestReport(
            tables=tables.counts,
            sessions=len(time_ms),
            sessions_by_day={
                "training": int((time_ms < cuts.validation_ms).sum()),
                "validation": int(((time_ms >= cuts.validation_ms) & (time_ms < cuts.test_ms)).sum()),
                "test": int((time_ms >= cuts.test_ms).sum()),
            },
            clicked_sessions=int((np.add.reduceat(clicks, starts) > 0).sum()),
            impressions=len(clicks),
            clicks=int(clicks.sum()),
            found_before_share=found_before_share(store),
            feed_views=len(tables.feed),
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
            odd_sessions=tables.odd_sessions,
            start=iso(cuts.start_ms),
            end=iso(cuts.end_ms - 1),
            days=round((cuts.end_ms - cuts.start_ms) / DAY_MS, 2),
        )

    def lines(self) -> list[str]:
        """For people to read."""
        out = [_table_line(name, count) for name, count in self.tables.items()]
        days = ", ".join(f"{count:,} {day}" for day, count in self.sessions_by_day.items())
        out += [
            f"sessions  {self.sessions:,} ({days}); {self.clicked_sessions:,} with a click, {self.queries:,} queries",
            f"shown     {self.impressions:,} results, {self.clicks:,} clicks; {self.feed_views:,} feed views",
            f"again     {self.found_before_share:.1%} of the clicked results were clicked before by the same person",
            f"users     {self.users:,}, {self.users_without_features:,} of them without features",
            f"videos    {self.videos:,}, {self.videos_without_features:,} of them without features, "
            f"{self.videos_with_content:,} with brought content vectors",
            f"words     {self.words:,}, {self.words_with_text:,} of them readable",
            f"queries   {self.unseen_word_share:.1%} of sessions use a word that no caption has, "
            f"{self.empty_query_share:.1%} have no words",
            f"time      {self.start} to {self.end} UTC, {self.days:g} days",
        ]
        if self.odd_sessions:
            out.append(f"odd       {self.odd_sessions:,} sessions have several queries: the first row's was taken")
        if self.brought_unknown:
            out.append(f"odd       {self.brought_unknown:,} rows of content.npy belong to videos that the log lacks")
        return out


def ingest(input_path: Path | None, config: Config, workdir: Path, builder: type[LogBuilder] = Kuaisar) -> IngestReport:
    """Leaves `workdir/tfds` (exchange format) and `workdir/store`, with report.json and quarantine.csv in it.

    `builder` must be the one that `config.data.source` names. Raises BadInput, before anything is written, where the
    log cannot be used.
    """
    if builder.name != config.data.source:
        raise ValueError(f"config.data.source is {config.data.source!r}, but the builder makes {builder.name!r}")
    workdir = Path(workdir)
    artifacts.refuse_foreign(workdir / STORE)
    artifacts.refuse_unknown(workdir / EXCHANGE, SOURCES)
    said = fingerprint(input_path, config)
    tables = builder.read_source(input_path, config, workdir)
    exchange = workdir / f"{EXCHANGE}.partial"
    shutil.rmtree(exchange, ignore_errors=True)
    try:
        read_back = write_and_read_back(builder, tables, exchange)
        store = LogStore.from_tables(read_back)
        report = IngestReport.of(read_back, store)
        beside = {
            REPORT_FILE: json.dumps(dataclasses.asdict(report), indent=1) + "\n",
            QUARANTINE_FILE: tables.quarantined.write_csv(),
        }
        # The store last: a kill in between leaves an older store, which its fingerprint shows to be stale.
        shutil.rmtree(workdir / EXCHANGE, ignore_errors=True)
        exchange.rename(workdir / EXCHANGE)
        save_store(store, workdir / STORE, said, beside)
    except BaseException:
        shutil.rmtree(exchange, ignore_errors=True)
        raise
    return report


def fingerprint(input_path: Path | None, config: Config) -> dict[str, Any]:
    """What the store depends on: where it comes from, the bytes of the log, or the config of the world."""
    said: dict[str, Any] = {"source": config.data.source, "max_bad_share": config.data.max_bad_share}
    if input_path is None:
        return said | {"world": dataclasses.asdict(config.world)}
    path = Path(input_path)
    if path.is_file():
        return said | {"input": artifacts.digest_file(path)}
    with open_log(path) as files:
        named = {**files.tables, CONTENT_FILE: files.content, CONTENT_IDS_FILE: files.content_ids}
        return said | {"input": {name: artifacts.digest_file(file) for name, file in named.items() if file}}


def _has_unseen_word(store: LogStore) -> np.ndarray:
    """bool [Nq]: some word of the query stands in no caption."""
    in_caption = np.zeros(store.counts.words, bool)
    in_caption[np.asarray(store.videos.words)] = True
    in_caption[0] = False
    unseen = np.concatenate([[0], np.cumsum(~in_caption[np.asarray(store.queries.words)])])
    return np.diff(unseen[np.asarray(store.queries.first_word)]) > 0


def _table_line(name: str, count: TableCount) -> str:
    parts = [f"{name:<18}{count.read:>12,} rows read, {count.kept:,} kept"]
    parts += [f"{count.quarantined:,} bad (see {QUARANTINE_FILE})"] if count.quarantined else []
    parts += [f"{rows:,} {reason}" for reason, rows in count.left_out.items()]
    return ", ".join(parts)
