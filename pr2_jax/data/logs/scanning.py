"""Finds the records of a CSV and the lines that make no record, on whole blocks of bytes.

The rules are those of RFC 4180: cells lie between commas; a cell that begins with a quote ends with one, and in it a
quote is doubled, a comma or a line end is text. A line that has an even number of quotes stands alone. One that has an
odd number opens a cell that may end in the next such line: the lines between, all with an even number, cannot end it.

A line that makes no record is malformed alone, and reading goes on with the next one, so that one stray quote costs one
line. What may follow an odd line is looked at once for each line of the block, never once for each odd line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

COMMA, QUOTE, NEWLINE, RETURN = b',"\n\r'

LONGEST_JOIN_BYTES = 64 << 20
"""Limit for records with line breaks, which are known to be records only at their end. Others may be longer."""

LINES_THAT_TELL = 8
"""If so many lines behind an odd line are records on their own, its quote is a stray one and opens no cell."""

TEXT_LENGTH = 200
GOOD, INNER, BLANK, STRAY, COUNT, ENDLESS = range(6)  # INNER: the record goes on that an earlier line began
REASONS = {STRAY: "a stray quote", ENDLESS: "a quoted cell that never ends"}
MASK_BYTES = 1 << 18  # stays in the cache
CELL = re.compile(rb'"[^"]*(?:""[^"]*)*"(?!")(?P<behind>[^,]*)|(?!")(?P<bare>[^,]*)')
"""A cell within a line: a quoted one, with what stands between its end and the next comma, or a bare one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be parsed: the line where it begins (header = 1), why, and at most 200 characters of it."""

    line: int
    reason: str
    text: str


@dataclasses.dataclass(frozen=True)
class Scan:
    """The good records of a block as bytes, the lines [R] where they begin, and the malformed ones.

    `used` bytes and `lines` lines are decided. The rest must be scanned again with more bytes behind it.
    """

    text: bytes
    line_R: np.ndarray
    malformed: tuple[Malformed, ...]
    used: int
    lines: int
    mended: int = 0  # good records that had a stray quote in a cell that is not read, which is empty now


@dataclasses.dataclass(frozen=True)
class _Lines:
    """Of each complete line [L] of a block: where it lies, and what its quotes mean.

    `opening` says of a line: read from outside a cell. `closing`: read from inside a quoted one.
    """

    begin_L: np.ndarray  # int64 [L] bytes
    end_L: np.ndarray  # int64 [L] its line feed
    quotes_L: np.ndarray  # int64 [L]
    commas_L: np.ndarray  # int64 [L] all of them
    inside_L: np.ndarray  # int64 [L] commas inside a cell when opening; when closing these are the ones outside
    before_L: np.ndarray  # int64 [L] commas before its first quote, all where it has none
    behind_L: np.ndarray  # int64 [L] commas behind its last quote, all where it has none
    misplaced_opening_L: np.ndarray  # bool [L] a quote stands where none may
    misplaced_closing_L: np.ndarray  # bool [L]


def scan(data: bytes, cells: int, first_line: int, last: bool, read: Collection[int] | None = None) -> Scan:
    """Scans a block that begins with a record, at the file's line `first_line`.

    A record must have `cells` cells; `read` are the places of those that are read (None = all). `last`: the data end
    with a line feed and nothing follows.
    """
    lines = _lines(data)
    if lines is None:
        return Scan(b"", np.empty(0, np.int64), (), 0, 0)
    verdict_L, decided = _judge(data, lines, cells, last)
    verdict_L = verdict_L[:decided]
    used = int(lines.end_L[decided - 1]) + 1 if decided else 0
    instead = {} if read is None else _mended(data, lines, verdict_L, cells, read)
    verdict_L[list(instead)] = GOOD
    line_R = np.flatnonzero(verdict_L == GOOD) + first_line
    malformed = tuple(_malformed(data, lines, verdict_L, cells, first_line))
    text = _kept(data, lines, verdict_L <= INNER, used, instead)
    return Scan(text, line_R, malformed, used, decided, len(instead))


def _mended(data: bytes, lines: _Lines, verdict_L: np.ndarray, cells: int, read: Collection[int]) -> dict[int, bytes]:
    """By line, the replacement of one with stray quotes in cells that are not read."""
    out = {}
    for line in np.flatnonzero(verdict_L == STRAY).tolist():
        bare = data[lines.begin_L[line] : lines.end_L[line]].rstrip(b"\r\n")
        if (fixed := mended(bare, cells, read)) is not None:
            out[line] = fixed + b"\n"
    return out


def _malformed(data: bytes, lines: _Lines, verdict_L: np.ndarray, cells: int, first_line: int) -> Iterator[Malformed]:
    bad_M = np.flatnonzero(verdict_L >= STRAY)
    begin_M, end_M = lines.begin_L[bad_M], lines.end_L[bad_M]
    end_M = np.minimum(end_M, begin_M + 4 * TEXT_LENGTH)  # a character has at most four bytes
    found_M = (lines.commas_L - lines.inside_L)[bad_M] + 1
    columns = (bad_M + first_line, verdict_L[bad_M], found_M, begin_M, end_M)
    for line, verdict, found, begin, end in zip(*(column.tolist() for column in columns), strict=True):
        text = data[begin:end].decode("utf-8", "replace").rstrip("\r")[:TEXT_LENGTH]
        reason = f"{found} cell{'s' * (found != 1)}, expected {cells}" if verdict == COUNT else REASONS[verdict]
        yield Malformed(line, reason, text)


def _kept(data: bytes, lines: _Lines, kept_L: np.ndarray, used: int, instead: Mapping[int, bytes]) -> bytes:
    """The bytes of the kept lines, or those of `instead`. Runs of kept lines are copied at once."""
    if kept_L.all() and not instead:
        return data[:used]
    kept_L = kept_L.copy()
    kept_L[list(instead)] = False
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept_L, [False])).astype(np.int8)))
    begin, end = lines.begin_L[edges[::2]].tolist(), lines.end_L[edges[1::2] - 1].tolist()
    view = memoryview(data)
    pieces = {a: view[a : b + 1] for a, b in zip(begin, end, strict=True)}
    pieces |= {int(lines.begin_L[line]): text for line, text in instead.items()}
    return b"".join([pieces[a] for a in sorted(pieces)])


def _specials(data: np.ndarray) -> np.ndarray:
    """int64 [S] places of commas, quotes and line feeds, up to the last line feed."""
    mask, part = np.empty(len(data), bool), np.empty(MASK_BYTES, bool)
    for begin in range(0, len(data), MASK_BYTES):
        piece, out = data[begin : begin + MASK_BYTES], mask[begin : begin + MASK_BYTES]
        other = part[: len(piece)]
        np.equal(piece, COMMA, out=out)
        for special in (QUOTE, NEWLINE):
            np.equal(piece, special, out=other)
            np.logical_or(out, other, out=out)
    return np.flatnonzero(mask)


def _lines(data: bytes) -> _Lines | None:
    """None where the block holds no complete line."""
    complete = data.rfind(b"\n") + 1
    if complete == 0:
        return None
    byte_N = np.frombuffer(data, np.uint8, complete)
    place_S = _specials(byte_N)
    kind_S = byte_N[place_S]
    newline_L, quote_Q = np.flatnonzero(kind_S == NEWLINE), np.flatnonzero(kind_S == QUOTE)
    first_L = np.concatenate(([0], newline_L[:-1] + 1))  # of the line's specials
    upto_L = np.searchsorted(quote_Q, newline_L)  # quotes up to the line's end
    quotes_L = np.diff(upto_L, prepend=0)
    commas_L = newline_L - first_L - quotes_L
    end_L = place_S[newline_L]
    begin_L = np.concatenate(([0], end_L[:-1] + 1))
    no = np.zeros(len(end_L), bool)
    if len(quote_Q) == 0:
        return _Lines(begin_L, end_L, quotes_L, commas_L, np.zeros_like(commas_L), commas_L, commas_L, no, no)
    # A quote opens (or is the second of two) where an even number of the line's quotes stand before it.
    if (quotes_L & 1).any():
        opens_Q = (np.arange(len(quote_Q)) - np.repeat(upto_L - quotes_L, quotes_L)) % 2 == 0
    else:
        opens_Q = np.arange(len(quote_Q)) % 2 == 0
    next_Q = np.append(quote_Q[1:], len(place_S))
    has_L = quotes_L > 0
    last_Q = upto_L[has_L] - 1
    next_Q[last_Q] = newline_L[has_L]
    gap_Q = next_Q - quote_Q - 1  # commas up to the next quote or the line's end
    before_L, behind_L = commas_L.copy(), commas_L.copy()
    before_L[has_L] = quote_Q[(upto_L - quotes_L)[has_L]] - first_L[has_L]
    behind_L[has_L] = gap_Q[last_Q]
    inside_L = np.diff(np.append(0, np.cumsum(np.where(opens_Q, gap_Q, 0)))[upto_L], prepend=0)
    may_open_Q, may_close_Q = _well_placed(byte_N, place_S[quote_Q])
    opening_L, closing_L = no, no.copy()
    for bad_Q, bad_L in (
        (np.where(opens_Q, ~may_open_Q, ~may_close_Q), opening_L),
        (np.where(opens_Q, ~may_close_Q, ~may_open_Q), closing_L),
    ):
        bad_L[np.searchsorted(newline_L, quote_Q[bad_Q])] = True
    return _Lines(begin_L, end_L, quotes_L, commas_L, inside_L, before_L, behind_L, opening_L, closing_L)


def _well_placed(byte_N: np.ndarray, quote_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [Q], [Q]: may open a cell here (or follow a quote); may close one here (or stand before a quote)."""
    around = np.zeros(256, bool)
    around[[COMMA, QUOTE, NEWLINE]] = True
    may_open_Q = around[byte_N[quote_Q - 1]]
    if quote_Q[0] == 0:
        may_open_Q[0] = True
    next_Q = byte_N[quote_Q + 1]  # there is one: the block ends with a line feed
    may_close_Q = around[next_Q]
    returns = np.flatnonzero(next_Q == RETURN)
    may_close_Q[returns] = byte_N[quote_Q[returns] + 2] == NEWLINE
    return may_open_Q, may_close_Q


def _judge(data: bytes, lines: _Lines, cells: int, last: bool) -> tuple[np.ndarray, int]:
    """uint8 [L] the verdict on each line, and how many lines are decided."""
    verdict_L = np.where(lines.commas_L - lines.inside_L == cells - 1, GOOD, COUNT).astype(np.uint8)
    verdict_L[lines.misplaced_opening_L] = STRAY
    odd_L = (lines.quotes_L & 1).astype(bool)
    verdict_L[odd_L] = STRAY
    for line in np.flatnonzero((lines.commas_L == 0) & (lines.quotes_L == 0)).tolist():
        text = data[lines.begin_L[line] : lines.end_L[line]]
        if not text or text.isspace():
            verdict_L[line] = BLANK
    decided = len(verdict_L)
    if odd_L.any():
        decided = _join(data, lines, np.flatnonzero(odd_L), verdict_L, cells, last)
    return verdict_L, decided


def _join(data: bytes, lines: _Lines, odd_K: np.ndarray, verdict_L: np.ndarray, cells: int, last: bool) -> int:
    """Decides the odd lines [K]: a line and the next odd one make a record, or the line alone is malformed.

    Returns how many lines are decided: all, or those before an odd line whose end is not in the block yet.
    """
    count = len(verdict_L)
    next_K = np.append(odd_K[1:], count)
    outside_K = lines.commas_L[odd_K] - lines.inside_L[odd_K]
    between_K = _between(lines.inside_L, odd_K, next_K)
    bytes_K = np.append(lines.end_L[odd_K[1:]] + 1, len(data)) - lines.begin_L[odd_K]
    # Whatever comes later, these are no beginnings of a record.
    open_K = ~lines.misplaced_opening_L[odd_K] & (_between(lines.misplaced_closing_L, odd_K, next_K) == 0)
    open_K &= outside_K + between_K < cells
    if cells > 2:  # of two cells, lines of text with a comma have as many
        behind_K = np.minimum(odd_K + 1 + LINES_THAT_TELL, next_K)
        open_K &= _between(verdict_L == GOOD, odd_K, behind_K) < LINES_THAT_TELL
    end_K = odd_K[1:]  # of each but the last
    whole_K = open_K[:-1] & ~lines.misplaced_closing_L[end_K] & (bytes_K[:-1] <= LONGEST_JOIN_BYTES)
    whole_K &= outside_K[:-1] + between_K[:-1] + lines.inside_L[end_K] == cells - 1
    alone_K = whole_K & (cells > 1) & _stray_pairs(data, lines, odd_K[:-1], end_K, cells)
    whole, alone, odd = whole_K.tolist(), alone_K.tolist(), odd_K.tolist()
    place = 0
    while place < len(odd):
        line = odd[place]
        final = place == len(odd) - 1
        if final and open_K[place] and not last and bytes_K[place] <= LONGEST_JOIN_BYTES:
            return line
        if not final and alone[place]:
            place += 2
        elif not final and whole[place]:
            verdict_L[line] = GOOD
            verdict_L[line + 1 : odd[place + 1] + 1] = INNER
            place += 2
        else:
            if open_K[place] and (final or bytes_K[place] > LONGEST_JOIN_BYTES):
                verdict_L[line] = ENDLESS
            place += 1
    return count


def _stray_pairs(data: bytes, lines: _Lines, first_P: np.ndarray, end_P: np.ndarray, cells: int) -> np.ndarray:
    """bool [P]: each of two lines that make a record is one by itself but for one quote, taken as text.

    So these are two stray quotes, in the same column by chance, and no cell goes from the one to the other.
    """
    outside_L = lines.commas_L - lines.inside_L
    stray_P = (outside_L + lines.behind_L)[first_P] == cells - 1
    stray_P &= (lines.inside_L + lines.before_L)[end_P] == cells - 1
    for pair in np.flatnonzero(stray_P).tolist():  # half of a doubled quote is no stray one
        before = data.rfind(b'"', lines.begin_L[first_P[pair]], lines.end_L[first_P[pair]]) - 1
        behind = data.find(b'"', lines.begin_L[end_P[pair]]) + 1
        doubled = before >= lines.begin_L[first_P[pair]] and data[before] == QUOTE
        stray_P[pair] = not doubled and data[behind] != QUOTE
    return stray_P


def _between(value_L: np.ndarray, odd_K: np.ndarray, upto_K: np.ndarray) -> np.ndarray:
    """int64 [K]: sum of a value over the lines behind an odd line, before line `upto`."""
    total = np.append(0, np.cumsum(value_L, dtype=np.int64))
    return total[upto_K] - total[odd_K + 1]


def mended(line: bytes, cells: int, read: Collection[int]) -> bytes | None:
    """The line (without its end) with its stray-quoted cells emptied. None where its cells are in doubt.

    They are in doubt if there are not `cells` of them, or a stray quote stands in one of `read`. As in most readers of
    CSV, a quote inside an unquoted cell belongs to it, and so does text between a closing quote and the next comma.
    """
    found, at = [], 0
    while at <= len(line):
        if (cell := CELL.match(line, at)) is None:  # a quoted cell that does not end
            return None
        odd = cell["behind"] or b'"' in (cell["bare"] or b"")
        if odd and len(found) in read:
            return None
        found.append(b"" if odd else cell[0])
        at = cell.end() + 1
    return b",".join(found) if len(found) == cells else None
