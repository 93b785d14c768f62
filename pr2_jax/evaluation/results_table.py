"""One results table from rows of named metrics: plain text, or Markdown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pr2_jax.metrics.bootstrap import Interval

MISSING = "-"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line: a name and its metrics; a `section` other than the last row's starts a new block."""

    name: str
    metrics: Mapping[str, Interval | float | str]  # a text stands as it is
    section: str = ""


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All metrics of the rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics))


def cell(value: Interval | float | str | None, intervals: bool = True) -> str:
    """`0.4840 ±0.0361`-like text; half the interval's width, as readers compare by it. `-` where nothing is known."""
    if value is None or isinstance(value, str):
        return value or MISSING
    mean = value.mean if isinstance(value, Interval) else float(value)
    if math.isnan(mean):
        return MISSING
    if not isinstance(value, Interval) or not intervals or math.isnan(value.low):
        return f"{mean:.4f}"
    return f"{mean:.4f} ±{(value.high - value.low) / 2:.4f}"


def plain(rows: Sequence[Row], columns: Sequence[str] | None = None, title: str = "", intervals: bool = True) -> str:
    """Aligned text without any escape code; ends with a newline."""
    lines = _cells(rows, columns, intervals)
    widths = [max(len(line[c]) for _, line in lines) for c in range(len(lines[0][1]))]
    rule = "  ".join("-" * width for width in widths)
    out = [title] if title else []
    section = None
    for number, (block, line) in enumerate(lines):
        if number == 1 or (number > 1 and block != section):
            out.append(rule)
        section = block
        first, *rest = line
        right = [text.rjust(w) for text, w in zip(rest, widths[1:], strict=True)]
        out.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join(out) + "\n"


def markdown(rows: Sequence[Row], columns: Sequence[str] | None = None, intervals: bool = True) -> str:
    """A pipe table; ends with a newline."""
    (_, header), *lines = _cells(rows, columns, intervals)
    out = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    out += ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for _, line in lines]
    return "\n".join(out) + "\n"


def _cells(rows: Sequence[Row], columns: Sequence[str] | None, intervals: bool) -> list[tuple[str, list[str]]]:
    columns = columns_of(rows) if columns is None else list(columns)
    body = [(row.section, [row.name, *(cell(row.metrics.get(name), intervals) for name in columns)]) for row in rows]
    return [("", ["", *columns]), *body]
