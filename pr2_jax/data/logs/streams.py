"""Opens one stored file and decompresses it. Every read error becomes a BadInput that names the file."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pr2_jax.errors import BadInput

BUFFER_BYTES = 1 << 20
CODECS = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}
"""pyarrow's codec by the last suffix of a name."""

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files, for names without a suffix. No text begins so."""

DAMAGED_ZIP = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError, OverflowError)
NOT_UNPACKED = (RuntimeError, NotImplementedError)  # a password, or a compression that Python lacks
READ_ERRORS = (OSError, *DAMAGED_ZIP, *NOT_UNPACKED)


class _BadInputReader(io.RawIOBase):
    """Reads `inner`, which reads `stored`; turns read errors into BadInput."""

    def __init__(self, inner: BinaryIO, stored: BinaryIO, tell: Callable[[Exception], BadInput]):
        super().__init__()
        self._inner, self._stored, self._tell = inner, stored, tell

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            return self._inner.readinto(buffer)
        except READ_ERRORS as error:
            raise self._tell(error) from None

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._stored.close()
        super().close()


def open_stored(stored: Callable[[], BinaryIO], name: str, archive: Path | None, decompress: bool) -> BinaryIO:
    """The bytes that `stored()` opens, decompressed where the name or the first bytes say gzip or zstd.

    `archive` is the zip that holds the file, or None. Concatenated gzip members and zstd frames are all read. A
    truncated or damaged stream is a BadInput, even if that shows only at its end.
    """
    codec = None

    def tell(error: Exception) -> BadInput:
        return bad_input(error, name, archive, codec)

    try:
        inner = raw = stored()
        codec = _codec(name, raw.peek(4)) if decompress else None
        if codec:
            inner = pa.CompressedInputStream(pa.BufferedInputStream(pa.PythonFile(raw, "r"), BUFFER_BYTES), codec)
    except READ_ERRORS as error:
        raise tell(error) from None
    return io.BufferedReader(_BadInputReader(inner, raw, tell), BUFFER_BYTES)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    said = str(error).strip()
    return said.splitlines()[0][:200] if said else type(error).__name__


def _codec(name: str, head: bytes) -> str | None:
    named = CODECS.get(name.rpartition(".")[2].lower())
    return named or next((codec for magic, codec in MAGIC.items() if head.startswith(magic)), None)


def bad_input(error: Exception, name: str, archive: Path | None, codec: str | None = None) -> BadInput:
    """The message for a read error of a file, or of an archive itself (`name` is its path then).

    An OSError has a number if the system raised it, none from a decompressor.
    """
    if archive is not None and isinstance(error, NOT_UNPACKED):
        return BadInput(f"{archive} cannot be unpacked ({first_line(error)}): unzip it and give the directory")
    if archive is not None and isinstance(error, DAMAGED_ZIP):
        where = "" if name == str(archive) else f"{name}: "
        return BadInput(f"{archive} is a truncated or damaged zip ({where}{first_line(error)}): download it again")
    if codec and getattr(error, "errno", None) is None:
        return BadInput(f"{name} is a truncated or damaged {codec} file ({first_line(error)}): download it again")
    return BadInput(f"{name} cannot be read ({getattr(error, 'strerror', None) or first_line(error)})")
