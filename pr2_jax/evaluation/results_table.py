"""A results table from rows of named metrics, as plain text or Markdown."""

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
    metrics: Mapping[str, Interval | float | str]  # text is shown as it is
    section: str = ""


def cell(value: Interval | float | str | None) -> str:
    """`0.4840 ±0.0361`: a mean and half the width of its interval; `-` where nothing is known."""
    if value is None or isinstance(value, str):
        return value or MISSING
    mean = value.mean if isinstance(value, Interval) else float(value)
    if math.isnan(mean):
        return MISSING
    if not isinstance(value, Interval) or math.isnan(value.low):
        return f"{mean:.4f}"
    return f"{mean:.4f} ±{(value.high - value.low) / 2:.4f}"


def plain(rows: Sequence[Row], columns: Sequence[str] | None = None, title: str = "") -> str:
    """Aligned text without any escape code; ends with a newline. Without `columns`, all metrics of the rows."""
    header, *lines = _cells(rows, columns)
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule, section = "  ".join("-" * width for width in widths), None
    out = [title] if title else []
    for block, line in zip(("", *(row.section for row in rows)), (header, *lines), strict=True):
        if section is not None and (line is lines[0] or block != section):
            out.append(rule)
        section = block
        right = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join([line[0].ljust(widths[0]), *right]).rstrip())
    return "\n".join(out) + "\n"


def markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """A pipe table; ends with a newline."""
    header, *lines = _cells(rows, columns)
    out = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    out += ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    return "\n".join(out) + "\n"


def _cells(rows: Sequence[Row], columns: Sequence[str] | None) -> list[list[str]]:
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return [["", *columns], *([row.name, *(cell(row.metrics.get(name)) for name in columns)] for row in rows)]
