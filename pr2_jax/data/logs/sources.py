"""Finds the files of each table of a log, whole or in parts: in a directory, one level down, or in a zip."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from pr2_jax.data.logs.streams import READ_ERRORS, bad_input, open_stored
from pr2_jax.data.schema import CONTENT_FILE, CONTENT_IDS_FILE, SEARCH, TABLES, Table
from pr2_jax.errors import BadInput, nearest

CSV, PARQUET = "csv", "parquet"
NAMED = re.compile(
    r"(?P<stem>.+?)(?:(?P<csv>\.csv(?:\.(?:gz|gzip|zst|zstd))?)"
    r"|(?:\.(?:snappy|gz|gzip|zst|zstd|lz4|lz4_?raw|lz4_?hadoop|brotli|none|uncompressed))?\.parquet)",
    re.IGNORECASE,
)
"""A name with one of our suffixes. A Parquet file holds its own codec, so that of `.snappy.parquet` is ignored."""

OTHER_SUFFIX = re.compile(r"\.(?!c\d+$)[A-Za-z]\w*$")  # `part-0.c000` has none
ONLY_PACKED = re.compile(r"\.(?:gz|gzip|zst|zstd)$", re.IGNORECASE)
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
EMPTY_PACKED_BYTES = 64  # a gzip or zstd file of no bytes is smaller


class Place(Protocol):
    """A file or a directory, on disk (`Path`) or in a zip."""

    name: str

    def is_dir(self) -> bool: ...
    def is_file(self) -> bool: ...
    def iterdir(self) -> Iterable[Place]: ...
    def open(self, mode: str) -> BinaryIO: ...


@dataclasses.dataclass
class _Member:
    """A file of a zip, or a directory (`info` is None)."""

    archive: zipfile.ZipFile
    name: str
    info: zipfile.ZipInfo | None = None
    below: dict[str, _Member] = dataclasses.field(default_factory=dict)

    def is_dir(self) -> bool:
        return self.info is None

    def is_file(self) -> bool:
        return self.info is not None

    def iterdir(self) -> Iterable[_Member]:
        return self.below.values()

    def open(self, mode: str) -> BinaryIO:
        return self.archive.open(self.info, mode[0])


@dataclasses.dataclass(frozen=True)
class Part:
    """One physical file of a table. `name` is its path relative to the log."""

    name: str
    format: str  # "csv" or "parquet"
    constants: dict[str, str]  # of the partition directories NAME=VALUE that it lies in; "" = no value
    path: Path | None  # None where it lies in a zip
    archive: Path | None = None  # the zip
    stored: Callable[[], BinaryIO] | None = dataclasses.field(default=None, repr=False, compare=False)

    def open(self) -> BinaryIO:
        """A context manager with the decompressed bytes. Raises BadInput, also while reading."""
        return self._opened(decompress=self.format == CSV)

    def digest(self) -> str:
        """SHA-256 of the bytes as stored, hex."""
        with self._opened(decompress=False) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _opened(self, decompress: bool) -> BinaryIO:
        stored = self.stored or (lambda: self.path.open("rb"))
        return open_stored(stored, self.name, self.archive, decompress)


@dataclasses.dataclass(frozen=True)
class LogSources:
    """The parts of each table found, by table name. `shown_as` is the path that the user gave."""

    tables: dict[str, tuple[Part, ...]]  # in order of their names, numbers in them by size
    content: Path | None
    content_ids: Path | None
    shown_as: str
    left_out: dict[str, str]  # optional tables that cannot be used, and why
    unread: tuple[str, ...] = ()  # other files of the log, with the table that a misspelt one was meant for


@contextlib.contextmanager
def open_log(path: Path, names: Mapping[str, str] | None = None) -> Iterator[LogSources]:
    """Finds the tables of a log. `names` maps a table to its file or directory where the names differ.

    CSV members of a zip are read in place; others are unpacked into a temporary directory until the body ends.
    Raises BadInput for a missing path, an unreadable or unsafe zip, a missing table, or a table that is there twice.
    """
    names = dict(names or {})
    _refuse_odd_names(names)
    if path.is_dir():
        try:
            found = _Finder(path, str(path), names).find()
        except OSError as error:
            raise bad_input(error, str(path), None) from None
        yield found
    elif not path.exists():
        raise BadInput(f"{path}: no such file or directory, expected a log directory or a zip")
    elif zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory(prefix="pr2-log-") as scratch, _opened_zip(path) as archive:
            yield _Finder(_members(archive, path), str(path), names, path, Path(scratch)).find()
    else:
        raise BadInput(f"{path} is neither a directory nor a zip")


@dataclasses.dataclass
class _Finder:
    """Looks for the tables of a log at `root` and one directory below."""

    root: Place
    shown_as: str
    names: dict[str, str]
    archive: Path | None = None
    scratch: Path | None = None  # where members are unpacked

    def find(self) -> LogSources:
        place = self._only_place()
        entries = sorted(place.iterdir(), key=lambda entry: entry.name)
        for entry in entries:
            _refuse_dangling(entry)
        found = {table.name: self._candidates(table, entries) for table in TABLES}
        owner: dict[str, str] = {}
        for name, there in found.items():
            for entry in there:
                _claim(owner, entry.name, name)
        for table in sorted(TABLES, key=lambda table: table is not SEARCH):  # the required table is reported first
            if not found[table.name] and table.name in self.names:
                raise BadInput(self._unknown_name(table, entries))
            if not found[table.name] and table.required:
                raise BadInput(self._missing(table, entries, found))
        tables, left_out = {}, {}
        for table in TABLES:
            if not found[table.name]:
                continue
            parts, why = self._parts(found[table.name])
            if why is None:
                tables[table.name] = parts
            elif table.required or table.expected:
                raise BadInput(f"{self.shown_as} {why}")
            else:
                left_out[table.name] = why
        files = {entry.name: entry for entry in entries if entry.is_file()}
        taken = {entry.name for there in found.values() for entry in there} | {CONTENT_FILE, CONTENT_IDS_FILE}
        others = (entry.name for entry in entries if entry.name not in taken and not entry.name.startswith("."))
        absent = {name: f"{name}.csv" for name, there in found.items() if not there}
        unread = tuple(f"{name}{_nearest(_stem(name), absent)}" for name in others)
        return LogSources(tables, *self._content(files), self.shown_as, left_out, unread)

    def _only_place(self) -> Place:
        """The root itself, or the one directory below it that holds a log."""
        for tables in ([table for table in TABLES if table.required], TABLES):
            if self._holds(self.root, tables):
                return self.root
            nested = sorted(
                (place for place in self.root.iterdir() if place.is_dir() and self._holds(place, tables)),
                key=lambda place: place.name,
            )
            if len(nested) > 1:
                remedy = "unpack it and name one of them" if self.archive else "name one of them"
                listed = ", ".join(place.name for place in nested)
                raise BadInput(f"{self.shown_as} holds {len(nested)} logs ({listed}): {remedy}")
            if nested:
                return nested[0]
        return self.root

    def _holds(self, place: Place, tables: Iterable[Table]) -> bool:
        entries = list(place.iterdir())
        return any(self._candidates(table, entries) for table in tables)

    def _candidates(self, table: Table, entries: Iterable[Place]) -> list[Place]:
        """Files, and directories that hold a file, of the table's name, whatever their suffix."""
        name = self.names.get(table.name, table.name)
        exact = [entry for entry in entries if entry.name == name and (entry.is_file() or _files(entry))]
        if table.name in self.names and NAMED.fullmatch(name) and exact:
            return exact
        like = [entry for entry in entries if entry.name != name and _stem(entry.name) == name]
        exact = [entry for entry in exact if entry.is_dir() or table.name in self.names]
        return exact + [entry for entry in like if entry.is_file() or _files(entry)]

    def _parts(self, there: list[Place]) -> tuple[tuple[Part, ...], str | None]:
        """The parts of a table, or why it cannot be used."""
        if len(there) > 1:
            return (), f"holds both {there[0].name} and {there[1].name}: keep one"
        entry = there[0]
        if entry.is_file():
            files, whole = [((entry.name,), entry)], _format(entry.name, CSV)
        else:
            files, whole = _files(entry), _format(entry.name, None)
        formats = [_format(inside[-1], whole) for inside, _ in files]
        for (inside, _), kind in zip(files, formats, strict=True):
            if kind is None:
                return (), f"has {'/'.join(inside)}, which is neither .csv nor .parquet"
        if len(set(formats)) > 1:
            one, other = ("/".join(files[formats.index(kind)][0]) for kind in (CSV, PARQUET))
            return (), f"has {one} and {other} in one table: expected parts of one kind"
        parts = [self._part(inside, file, kind) for (inside, file), kind in zip(files, formats, strict=True)]
        filled = [part for part in parts if not _is_empty(part)]
        return tuple(filled or parts[:1]), None

    def _part(self, inside: tuple[str, ...], file: Place, kind: str) -> Part:
        pairs = [name.partition("=") for name in inside[1:-1] if "=" in name]
        constants = {unquote(key): "" if value == NO_VALUE else unquote(value) for key, _, value in pairs}
        part = Part("/".join(inside), kind, constants, None, self.archive, lambda: file.open("rb"))
        if self.archive is None:
            return dataclasses.replace(part, path=file, stored=None)
        _probe(file, self.archive)
        return part if kind == CSV else dataclasses.replace(part, path=self._unpacked(part), archive=None, stored=None)

    def _unpacked(self, part: Part) -> Path:
        target = self.scratch / part.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open() as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        return target

    def _content(self, files: dict[str, Place]) -> tuple[Path | None, Path | None]:
        vectors, ids = files.get(CONTENT_FILE), files.get(CONTENT_IDS_FILE)
        if (vectors is None) != (ids is None):
            have, lack = (CONTENT_FILE, CONTENT_IDS_FILE) if vectors else (CONTENT_IDS_FILE, CONTENT_FILE)
            raise BadInput(f"{self.shown_as} has {have} but no {lack}: the two go together")
        if vectors is None:
            return None, None
        # As Parquet: a member of a zip is probed and unpacked.
        return self._part((vectors.name,), vectors, PARQUET).path, self._part((ids.name,), ids, PARQUET).path

    def _unknown_name(self, table: Table, entries: list[Place]) -> str:
        given = self.names[table.name]
        hint = _nearest(given, {text: entry.name for entry in entries for text in (_stem(entry.name), entry.name)})
        return f"{self.shown_as} has no {given!r}, which the config names for the table {table.name}{hint}"

    def _missing(self, table: Table, entries: list[Place], found: dict[str, list[Place]]) -> str:
        taken = {entry.name for others in found.values() for entry in others}
        offered = {_stem(entry.name): entry.name for entry in entries if entry.name not in taken}
        where = "" if taken else " at its top or one directory down"
        named = f"{table.name}.csv (or .parquet){where}, the table with {table.meaning}"
        return f"{self.shown_as} has no {named}{_nearest(table.name, offered)}"


def _files(directory: Place) -> list[tuple[tuple[str, ...], Place]]:
    """(path from the directory's own name on, file) of all files below a directory, in order.

    Names with `_` or `.` in front (`_SUCCESS`, checksums) are no data, except partition directories.
    """
    if not directory.is_dir():
        return []
    found, todo = [], [((directory.name,), directory, frozenset())]
    while todo:
        inside, place, above = todo.pop()
        if isinstance(place, Path):  # a link to a directory above would never end
            here = place.resolve()
            if here in above:
                continue
            above |= {here}
        for entry in place.iterdir():
            name = entry.name
            _refuse_dangling(entry)
            if name.startswith(".") or (name.startswith("_") and not (entry.is_dir() and "=" in name)):
                continue
            if entry.is_dir():
                todo.append(((*inside, name), entry, above))
            elif entry.is_file():
                found.append(((*inside, name), entry))
    return sorted(found, key=lambda file: [_in_order(name) for name in file[0]])


def _refuse_dangling(entry: Place) -> None:
    if isinstance(entry, Path) and entry.is_symlink() and not entry.exists():
        raise BadInput(f"{entry} is a link to nothing: mend it or take it away")


def _in_order(name: str) -> tuple[list[tuple[str, int]], str]:
    """`part-2` comes before `part-10`."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d{0,18})", name)], name


def _stem(name: str) -> str:
    match = NAMED.fullmatch(name)
    return match["stem"] if match else name


def _format(name: str, otherwise: str | None) -> str | None:
    """By the suffix; `otherwise` where there is none."""
    match = NAMED.fullmatch(name)
    if match:
        return CSV if match["csv"] else PARQUET
    bare = ONLY_PACKED.sub("", name)
    if OTHER_SUFFIX.search(bare):
        return None
    return otherwise if bare == name else CSV


def _is_empty(part: Part) -> bool:
    """A CSV of no bytes, which engines write for an empty partition."""
    if part.format != CSV:
        return part.path is not None and part.path.stat().st_size == 0
    with part._opened(decompress=False) as stored:
        size = len(stored.read(EMPTY_PACKED_BYTES + 1))
    if size == 0 or size > EMPTY_PACKED_BYTES:
        return size == 0
    with contextlib.suppress(BadInput), part.open() as stream:
        return not stream.read(1)
    return False


def _nearest(given: str, offered: dict[str, str]) -> str:
    meant = nearest(given, offered)
    return "" if meant is None else f"; did you mean {offered[meant]}?"


def _claim(owner: dict[str, str], file: str, table: str) -> None:
    other = owner.setdefault(file, table)
    if other != table:
        raise BadInput(f"{file} is named for two tables, {other} and {table}: expected one file each")


def _refuse_odd_names(names: Mapping[str, str]) -> None:
    known = [table.name for table in TABLES]
    owner: dict[str, str] = {}
    for name, given in names.items():
        if name not in known:
            hint = _nearest(name, dict(zip(known, known, strict=True)))
            raise BadInput(f"{name!r} is no table of a log (they are {', '.join(known)}){hint}")
        _claim(owner, given, name)


@contextlib.contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise bad_input(error, str(path), path) from None
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile, path: Path) -> _Member:
    """The members as a tree. BadInput where one has an unsafe path."""
    root = _Member(archive, "")
    for info in archive.infolist():
        _refuse_unsafe(path, info.filename)
    for info in archive.infolist():
        place, inside = root, PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.is_dir() or not inside:
            continue
        for name in inside:
            place = place.below.setdefault(name, _Member(archive, name))
        place.info = info
    return root


def _probe(file: Place, archive: Path) -> None:
    """Opens a member once, so that a password or an unknown compression is reported before anything is read."""
    open_stored(lambda: file.open("rb"), file.name, archive, decompress=False).close()


def _refuse_unsafe(path: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or (len(plain) > 1 and plain[1] == ":"):
        raise BadInput(f"{path}: member {name!r} has an absolute path; refused, nothing was unpacked")
    if ".." in PurePosixPath(plain).parts:
        raise BadInput(f"{path}: member {name!r} climbs out of the directory; refused, nothing was unpacked")
