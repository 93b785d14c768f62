"""The rules of `data.scanning` once more, read one character at a time: slow, and nothing shared with the fast ones."""

from __future__ import annotations

from pr2_jax.data.logs.scanning import LINES_THAT_TELL


def cells_of(text: str) -> list[str] | None:
    """The cells of one record, None where its quotes are not those of RFC 4180."""
    cells, place = [], 0
    while True:
        cell = ""
        if text[place : place + 1] == '"':
            place += 1
            while True:
                end = text.find('"', place)
                if end < 0:
                    return None
                cell, place = cell + text[place:end], end + 1
                if text[place : place + 1] != '"':
                    break
                cell, place = cell + '"', place + 1
        else:
            while place < len(text) and text[place] not in ',"\n':
                cell, place = cell + text[place], place + 1
        cells.append(cell)
        if place == len(text):
            return cells
        if text[place] != ",":
            return None
        place += 1


def read_plainly(text: str, width: int) -> tuple[list[tuple[int, list[str]]], dict[int, str | None]]:
    """(line, cells) of the records behind a one-line header; line -> reason (None: its quotes) of the malformed."""
    lines = text.split("\n")
    cut = [line.removesuffix("\r") for line in lines]

    def right(line: str) -> bool:
        cells = cells_of(line)
        return cells is not None and len(cells) == width

    def odd(place: int) -> bool:
        return lines[place].count('"') % 2 == 1

    def joined(first: int, last: int) -> list[str] | None:
        told = range(first + 1, first + 1 + LINES_THAT_TELL)
        if width > 2 and told.stop <= last and all(right(cut[k]) for k in told):
            return None
        cells = cells_of("\n".join([*lines[first:last], cut[last]]))
        return cells if cells is not None and len(cells) == width else None

    good, bad, place = [], {}, 0
    while place < len(lines):
        line, at = cut[place], place + 2
        end = next((k for k in range(place + 1, len(lines)) if odd(k)), None) if odd(place) else place
        cells = None if end is None else joined(place, end) if end > place else cells_of(line)
        if at in bad or not line.strip():
            pass
        elif end == place and cells is not None and len(cells) != width:
            bad[at] = f"{len(cells)} cell{'s' * (len(cells) != 1)}, expected {width}"
        elif cells is None:
            bad[at] = None
        elif (
            end > place and width > 1 and right("x".join(line.rsplit('"', 1))) and right(cut[end].replace('"', "x", 1))
        ):
            bad |= {at: None, end + 2: None}
        else:
            good.append((at, cells))
            place = end
        place += 1
    return good, bad
