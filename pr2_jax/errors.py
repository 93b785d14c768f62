"""The errors that a person is meant to read, and the one of the system that becomes such an error: a full disk."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Pr2Error(Exception):
    """Something the caller can mend: one clear line, and `pr2` leaves with exit status 2.

    The message says where (file, row, column), what was found and what was expected or how to mend it.
    Anything else that is raised is a defect of ours and shows its traceback.
    """


class BadInput(Pr2Error):
    """A log, a request file or an array that cannot be used as it is."""


class BadConfig(Pr2Error):
    """An unknown key, a wrong type, or fields that clash."""


class StaleArtifact(Pr2Error):
    """Something on disk was made by another schema, config or input."""


class Stopped(Pr2Error):
    """A SIGTERM while training; what was done is saved, and `pr2` leaves with exit status 143."""


class NotFinite(Pr2Error, FloatingPointError):
    """A loss that is not a number."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, nearest first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that was most likely meant; None where none is alike."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1)), None)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """For the middle of a message: `, did you mean 'x'?`, or nothing."""
    meant = nearest(given, known)
    return "" if meant is None else f", did you mean {meant!r}?"


def disk_full(error: BaseException) -> int | None:
    """The system's number of the error where it, or what led to it, says that a disk has no room left.

    TensorStore's errors are ValueErrors with the number in their text; NumPy's have none and say how much of an array
    could be written.
    """
    for cause in causes(error):
        told = re.search(r"os_error_code='(\d+)'", str(cause))
        code = cause.errno if isinstance(cause, OSError) else int(told[1]) if told else None
        if isinstance(cause, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(cause)):
            code = errno.ENOSPC
        if code in FULL:
            return code
    return None
