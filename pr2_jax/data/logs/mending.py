"""A line with stray quotes whose meaning is not in doubt: it has the right number of cells, and the quotes stand in
cells that nobody reads."""

from __future__ import annotations

from collections.abc import Collection

QUOTE, COMMA = b'"', b","


def mended(line: bytes, cells: int, read: Collection[int]) -> bytes | None:
    """The line (without its end) with its odd cells emptied, or None where it cannot be told what its cells are.

    `cells` is the number that a record must have, `read` the places of those that are looked at. A quote inside an
    unquoted cell is a character of it, and so is what stands between a closing quote and the next comma: most readers
    of CSV have it so.
    """
    found, at = [], 0
    while True:
        end, odd = _cell(line, at)
        if end < 0 or (odd and len(found) in read):
            return None
        found.append(b"" if odd else line[at:end])
        if end == len(line):
            break
        at = end + 1
    return COMMA.join(found) if len(found) == cells else None


def _cell(line: bytes, at: int) -> tuple[int, bool]:
    """Where the cell that begins at `at` ends (-1 = not in this line), and whether quotes stand where none may."""
    end = _found(line, COMMA, at)
    if not line.startswith(QUOTE, at):
        return end, QUOTE in line[at:end]
    close = line.find(QUOTE, at + 1)
    while close >= 0 and line.startswith(QUOTE, close + 1):  # doubled: a character of the cell
        close = line.find(QUOTE, close + 2)
    if close < 0:
        return -1, True
    end = _found(line, COMMA, close)
    return end, end != close + 1


def _found(line: bytes, what: bytes, at: int) -> int:
    place = line.find(what, at)
    return len(line) if place < 0 else place
