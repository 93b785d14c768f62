"""Where the files of a log are: in a directory, one level down, or in a zip as downloaded."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pr2_jax.data.schema import CONTENT_FILE, CONTENT_IDS_FILE, SEARCH, TABLES
from pr2_jax.errors import BadInput

SUFFIXES = (".csv", ".parquet")
WANTED = (*(table.name + suffix for table in TABLES for suffix in SUFFIXES), CONTENT_FILE, CONTENT_IDS_FILE)
REQUIRED = tuple(table.name for table in TABLES if table.required)


@dataclasses.dataclass(frozen=True)
class LogFiles:
    """The files that are there, by table name. `shown_as` is what the user called the place."""

    tables: dict[str, Path]
    content: Path | None
    content_ids: Path | None
    shown_as: str


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[LogFiles]:
    """Gives the files of a log; those of a zip live in a temporary directory until the end of the body.

    Raises BadInput for a place that is not there, an unreadable or unsafe zip, a missing table, two copies of one.
    """
    if path.is_dir():
        yield _found(_only_place(path, str(path)), str(path))
    elif not path.exists():
        raise BadInput(f"{path}: no such file or directory, expected a log directory or a zip")
    elif zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory(prefix="pr2-log-") as scratch:
            _unpack(path, Path(scratch))
            yield _found(_only_place(Path(scratch), str(path), "unpack it and name one of them"), str(path))
    else:
        raise BadInput(f"{path} is neither a directory nor a zip")


def _holds_log(directory: Path) -> bool:
    return any((directory / (name + suffix)).is_file() for name in REQUIRED for suffix in SUFFIXES)


def _only_place(path: Path, shown_as: str, remedy: str = "name one of them") -> Path:
    """The directory itself, or the one directory below it that holds a log."""
    if _holds_log(path):
        return path
    nested = sorted(place for place in path.iterdir() if place.is_dir() and _holds_log(place))
    if len(nested) > 1:
        names = ", ".join(place.name for place in nested)
        raise BadInput(f"{shown_as} holds {len(nested)} logs ({names}): {remedy}")
    return nested[0] if nested else path


def _found(directory: Path, shown_as: str) -> LogFiles:
    tables: dict[str, Path] = {}
    for table in TABLES:
        there = [file for suffix in SUFFIXES if (file := directory / (table.name + suffix)).is_file()]
        if len(there) > 1:
            raise BadInput(f"{shown_as} holds both {there[0].name} and {there[1].name}: keep one")
        if there:
            tables[table.name] = there[0]
        elif table.required:
            others = sorted(file.name for file in directory.iterdir() if file.is_file() and file.name not in WANTED)
            close = difflib.get_close_matches(f"{table.name}.csv", others, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise BadInput(f"{shown_as} has no {table.name}.csv (or .parquet), the table with {table.meaning}{hint}")
    vectors, ids = directory / CONTENT_FILE, directory / CONTENT_IDS_FILE
    if vectors.is_file() != ids.is_file():
        have, lack = (CONTENT_FILE, CONTENT_IDS_FILE) if vectors.is_file() else (CONTENT_IDS_FILE, CONTENT_FILE)
        raise BadInput(f"{shown_as} has {have} but no {lack}: the two go together")
    return LogFiles(tables, vectors if vectors.is_file() else None, ids if ids.is_file() else None, shown_as)


def _unpack(path: Path, scratch: Path) -> None:
    """Copies the wanted members only, under names of our own making, after every member's path was looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                _refuse_unsafe(path, member.filename)
            for member in members:
                inside = PurePosixPath(member.filename)
                if member.is_dir() or inside.name not in WANTED or len(inside.parts) > 2:
                    continue
                target = scratch.joinpath(*inside.parts)
                target.parent.mkdir(exist_ok=True)
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path} is a truncated or damaged zip ({error}): download it again") from None
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python lacks
        raise BadInput(f"{path} cannot be unpacked ({error}): unzip it and give the directory") from None
    if not any(_holds_log(place) for place in (scratch, *filter(Path.is_dir, scratch.iterdir()))):
        raise BadInput(f"{path} has no {SEARCH.name}.csv (or .parquet) at its top or one directory down")


def _refuse_unsafe(path: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or (len(plain) > 1 and plain[1] == ":"):
        raise BadInput(f"{path}: member {name!r} has an absolute path; refused, nothing was unpacked")
    if ".." in PurePosixPath(plain).parts:
        raise BadInput(f"{path}: member {name!r} climbs out of the directory; refused, nothing was unpacked")
