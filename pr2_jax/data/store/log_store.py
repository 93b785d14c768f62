"""The log store: memory-mapped columns. The same log gives the same bytes, manifest included."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pr2_jax import artifacts
from pr2_jax.data.columns import CLICK, GROUPS, NEVER_MS, SEARCH_SURFACE, Counts, Cuts, Events, Impressions, Sessions
from pr2_jax.data.outcomes import clicked_ms, ordered, result_span_ms
from pr2_jax.data.periods import Periods
from pr2_jax.data.schema import SCHEMA_VERSION
from pr2_jax.data.store.assembled import Assembled, rows_of
from pr2_jax.errors import StaleArtifact

if TYPE_CHECKING:  # these need polars, which an accelerator image lacks
    from pr2_jax.data.logs.log_tables import LogTables
    from pr2_jax.data.logs.text import Lexicon, Match

SCHEMA = f"log-store/{SCHEMA_VERSION}"
MADE_BY = "pr2 ingest"
TEXT_FILE = "words.text.json"


@dataclasses.dataclass(frozen=True)
class EventIndex:
    """Index of some events by user and by the time at which they were known."""

    rows: np.ndarray  # [n]
    known_ms: np.ndarray  # [n]
    first: np.ndarray  # [U + 1], where each user's events begin

    @staticmethod
    def of(events: Events, users: int, rows: np.ndarray, known_ms: np.ndarray) -> EventIndex:
        """`rows` ascending; events known at the same time keep their order."""
        user = np.asarray(events.user)[rows]
        order = ordered(user, known_ms)
        return EventIndex(rows[order], known_ms[order], np.searchsorted(user, np.arange(users + 1)).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class LogStore(Assembled):
    """Columns by group (columns.py). Arrays are read-only."""

    fingerprint: str  # of all columns

    @staticmethod
    def open(directory: Path) -> LogStore:
        """Maps a store from disk. StaleArtifact if it is absent, half-written, damaged or of another schema."""
        directory = Path(directory)
        manifest = artifacts.require(directory, SCHEMA, MADE_BY)
        groups: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
        for name, said in manifest["columns"].items():
            group, field = name.split(".")
            groups[group][field] = _map(directory / f"{name}.npy", said)
        groups["videos"].setdefault("content", None)
        groups["users"]["profile_sizes"] = tuple(manifest["profile_sizes"])
        groups["words"]["text"] = json.loads((directory / TEXT_FILE).read_text(encoding="utf-8"))
        return LogStore(
            **{name: kind(**groups[name]) for name, kind in GROUPS.items()},
            counts=Counts(**manifest["counts"]),
            cuts=Cuts(**manifest["cuts"]),
            source_names=tuple(manifest["source_names"]),
            kind_names=tuple(manifest["kind_names"]),
            fingerprint=manifest["columns_digest"],
        )

    @staticmethod
    def from_tables(tables: LogTables, like: Assembled | None = None) -> LogStore:
        """A store in memory. `like`: as in `assemble_like`."""
        from pr2_jax.data.store.assemble import assemble, assemble_like

        if like is None:
            made = LogStore(**assemble(tables), fingerprint="")
        else:
            made = dataclasses.replace(like, **assemble_like(tables, like))
        return dataclasses.replace(made, fingerprint=_columns_digest(made, _described(made)))

    def user_row(self, raw: int) -> int:
        return _row_of(self.users.raw_id, raw)

    def video_rows(self, raw: np.ndarray) -> np.ndarray:
        return rows_of(self.videos.raw_id, np.asarray(raw, np.int64))

    @functools.cached_property
    def query_of_words(self) -> dict[bytes, int]:
        """Row of each distinct query by the bytes of its word rows (int32)."""
        words, first = np.asarray(self.queries.words, np.int32), np.asarray(self.queries.first_word)
        return {words[first[row] : first[row + 1]].tobytes(): row for row in range(len(first) - 1)}

    def text_of(self, words: Iterable[int]) -> str:
        """Word rows as text, or as word ids if the log has no words.csv; unknown ones are left out."""
        return " ".join(self.words.text[word] or str(int(self.words.raw_id[word])) for word in words if word)

    def caption(self, raw: int, words: int) -> str:
        row = _row_of(self.videos.raw_id, raw)
        caption = np.asarray(self.videos.words[self.videos.first_word[row] : self.videos.first_word[row + 1]])
        shown = self.text_of(caption[:words])
        return shown + (" …" if len(caption) > words else "") if shown else "(no caption)"

    def understood(self, query: str | Iterable[int | str]) -> list[Match]:
        """The words of a typed text, or of a list of texts and raw word ids."""
        if isinstance(query, str):
            return self.lexicon.match(query)
        found: list[Match] = []
        for word in query:
            found += self.lexicon.match(word) if isinstance(word, str) else [self.lexicon.of_id(int(word))]
        return found

    def word_rows(self, query: str | Iterable[int | str]) -> np.ndarray:
        return np.array([word.row for word in self.understood(query)], np.int32)

    @functools.cached_property
    def lexicon(self) -> Lexicon:
        from pr2_jax.data.logs.text import Lexicon

        return Lexicon(self.words.text, lambda raw: _row_of(self.words.raw_id, raw))

    @functools.cached_property
    def periods(self) -> Periods:
        """The training periods that hold an event or a search."""
        return Periods.of(self.cuts, self.events.time_ms, self.sessions.time_ms)

    @functools.cached_property
    def clicked_index(self) -> EventIndex:
        return self._clicked_among(np.asarray(self.events.click))

    @functools.cached_property
    def engaged_index(self) -> EventIndex:
        """Events with a click, like, follow or forward."""
        e = self.events
        return self._clicked_among(np.asarray(e.click) | e.like | e.follow | e.forward)

    def _clicked_among(self, mask_E: np.ndarray) -> EventIndex:
        rows = np.flatnonzero(mask_E)
        return EventIndex.of(self.events, self.counts.users, rows, clicked_ms(self.events, rows))

    @functools.cached_property
    def outcome_index(self) -> EventIndex:
        """Events with any known outcome, by when all of it was known: the input of preference embeddings."""
        known_ms = np.asarray(self.events.known_ms)
        rows = np.flatnonzero(known_ms < NEVER_MS)
        return EventIndex.of(self.events, self.counts.users, rows, known_ms[rows])

    def truncated(self, before_ms: int) -> LogStore:
        """The log as known strictly before that time, in memory; vocabularies and cuts stay.

        Later views, sessions and impressions are gone, and so are outcomes that were not known yet.
        """
        keep_E = np.asarray(self.events.time_ms) < before_ms
        kept_before = np.concatenate([[0], np.cumsum(keep_E, dtype=np.int64)])
        events = Events(**{name: column[keep_E] for name, column in vars(self.events).items()})
        sessions_left = int(np.searchsorted(self.sessions.time_ms, before_ms))  # sessions are in order of time
        shown_left = int(self.sessions.first_impression[sessions_left])
        cut = {name: column[:sessions_left] for name, column in vars(self.sessions).items()}
        cut["first_impression"] = self.sessions.first_impression[: sessions_left + 1]
        sessions = Sessions(**cut)
        counts = dataclasses.replace(
            self.counts, events=len(events.user), sessions=sessions_left, impressions=shown_left
        )
        return dataclasses.replace(
            self,
            users=dataclasses.replace(self.users, first_event=kept_before[self.users.first_event]),
            events=_as_known(events, before_ms),
            sessions=sessions,
            impressions=_results_as_known(self.impressions, sessions, before_ms),
            counts=counts,
            fingerprint=f"{self.fingerprint}@{before_ms}",
        )


def _as_known(events: Events, before_ms: int) -> Events:
    """Hides outcomes not known before that time. A search event's click stays: without it there would be no event."""
    open_E = np.asarray(events.known_ms) >= before_ms
    searched_E = np.asarray(events.surface) == SEARCH_SURFACE
    return dataclasses.replace(
        events,
        **_hidden(vars(events), open_E),
        click=np.where(open_E & ~searched_E, False, events.click),
        known_ms=np.where(open_E, NEVER_MS, events.known_ms),
        told=np.where(open_E, np.where(searched_E, CLICK, 0), events.told).astype(np.uint8),
    )


def _results_as_known(shown: Impressions, sessions: Sessions, before_ms: int) -> Impressions:
    """The impressions of `sessions` without outcomes not known before that time; clicks stay."""
    left = int(sessions.first_impression[-1])
    cut = {name: None if column is None else column[:left] for name, column in vars(shown).items()}
    if cut["told"] is None:
        return Impressions(**cut)
    time_ms = np.repeat(sessions.time_ms, np.diff(sessions.first_impression))
    open_R = time_ms + result_span_ms(cut["play_ms"], cut["duration_ms"], cut["told"]) >= before_ms
    return Impressions(**cut | _hidden(cut, open_R) | {"told": np.where(open_R, CLICK, cut["told"]).astype(np.uint8)})


def _hidden(columns: Mapping[str, np.ndarray], open_N: np.ndarray) -> dict[str, np.ndarray]:
    """The outcomes but the click, 0 or False where still open."""
    outcomes = {name: columns[name] for name in ("like", "follow", "forward", "play_ms")}
    return {name: np.where(open_N, np.zeros((), column.dtype), column) for name, column in outcomes.items()}


def save_store(store: LogStore, directory: Path, fingerprint: Mapping[str, Any], beside: Mapping[str, str]) -> LogStore:
    """Writes a store. `fingerprint` (JSON) describes its source; `beside` are texts by file name to write next to it.

    The write is atomic: everything goes to `DIR.partial` first, the manifest last. The manifest holds no time and no
    version, so that the same log gives the same bytes.
    """
    directory = Path(directory)
    artifacts.refuse_foreign(directory)
    partial = directory.with_name(directory.name + ".partial")
    artifacts.remove(partial)
    partial.mkdir(parents=True)
    try:
        for name, array in _arrays(store):
            np.save(partial / f"{name}.npy", array)
        words = json.dumps(store.words.text, ensure_ascii=False) + "\n"
        for name, text in {TEXT_FILE: words, **beside}.items():
            (partial / name).write_text(text, encoding="utf-8")
        manifest = {
            "schema": SCHEMA,
            "fingerprint": dict(fingerprint),
            "columns": _described(store),
            "columns_digest": store.fingerprint,
            "counts": dataclasses.asdict(store.counts),
            "cuts": dataclasses.asdict(store.cuts),
            "profile_sizes": list(store.users.profile_sizes),
            "source_names": list(store.source_names),
            "kind_names": list(store.kind_names),
        }
        artifacts.write_json(partial / artifacts.MANIFEST, manifest)
        artifacts.swap_in(partial, directory)
    except BaseException:
        artifacts.remove(partial)
        raise
    return LogStore.open(directory)


def _arrays(made: LogStore) -> Iterable[tuple[str, np.ndarray]]:
    """Every column as (`group.field`, array)."""
    for group in GROUPS:
        columns = getattr(made, group)
        for field in dataclasses.fields(columns):
            value = getattr(columns, field.name)
            if isinstance(value, np.ndarray):
                yield f"{group}.{field.name}", np.ascontiguousarray(value)


def _described(made: LogStore) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.data if array.size else b"").hexdigest(),
        }
        for name, array in _arrays(made)
    }


def _columns_digest(made: LogStore, columns: Mapping[str, Any]) -> str:
    names = [made.words.text, made.users.profile_sizes, made.source_names, made.kind_names]
    return artifacts.digest([SCHEMA, columns, dataclasses.asdict(made.cuts), names])


def _row_of(vocabulary_N: np.ndarray, raw: int) -> int:
    """Row of a raw id; 0 if the vocabulary lacks it, as it does all ids of more than 64 bits."""
    bounds = np.iinfo(np.int64)
    return int(rows_of(vocabulary_N, np.asarray([raw], np.int64))[0]) if bounds.min <= raw <= bounds.max else 0


def _map(path: Path, said: Mapping[str, Any]) -> np.ndarray:
    remedy = f"remove {path.parent} and make it anew with `{MADE_BY}`"
    try:
        array = np.load(path, mmap_mode="r" if np.prod(said["shape"]) else None).view(np.ndarray)
    except (OSError, ValueError) as error:
        raise StaleArtifact(f"{path} is missing or damaged ({error}): {remedy}") from None
    found = f"{array.dtype.str} {list(array.shape)}"
    if found != f"{said['dtype']} {said['shape']}":
        raise StaleArtifact(f"{path} holds {found}, its manifest says {said['dtype']} {said['shape']}: {remedy}")
    array.flags.writeable = False
    return array
