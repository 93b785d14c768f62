"""The parts of a section: notes, tables, charts. Each table and chart has a CSV file with every digit."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pr2_jax.drawing.charts import Chart
from pr2_jax.metrics.bootstrap import Interval

MISSING = "–"
Value = Interval | float | int | str | None


@dataclasses.dataclass(frozen=True)
class Table:
    """Forms of `columns`: text, metric (4 digits, ± half of the interval), signed (a difference, ends of the interval),
    count, percent, lift and fine (percent with two digits, with a sign and without), chance (a p-value), seconds, bytes
    or plain. The first column names the row."""

    slug: str
    caption: str
    columns: Mapping[str, str]  # by name, the form of its values
    rows: Sequence[Sequence[Value]]
    marked: Collection[int] = ()  # rows to look at first
    groups: Sequence[str] = ()  # of the rows; a heading stands where it changes
    folded: bool = False  # closed until somebody asks for it
    whole: Collection[int] = ()  # rows of values among differences

    @property
    def headings(self) -> dict[int, str]:
        """The groups by their first rows."""
        pairs = enumerate(zip(["", *self.groups], self.groups, strict=False))
        return {row: group for row, (before, group) in pairs if group != before}


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph between the blocks, under a heading of its own where it has one."""

    text: str
    heading: str = ""


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts that stand beside each other where there is room."""

    charts: Sequence[Chart]


@dataclasses.dataclass(frozen=True)
class Searches:
    """Searches laid out side by side, of `examples_section.Example`."""

    examples: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Section:
    """What stands under a heading of the page."""

    finding: str = ""  # one line, for the summary too
    intro: str = ""
    blocks: Sequence[Table | Charts | Note | Searches] = ()
    missing: str = ""  # the command that makes the inputs
    stale: str = ""  # says which inputs have changed


def slug_of(text: str) -> str:
    """Part of a file's name and of a link."""
    return "".join(c if c.isalnum() else "_" for c in text)


def in_order(found: Collection[str], order: Iterable[str]) -> list[str]:
    """Names in an order, those that it does not have last, by the alphabet."""
    known = [name for name in order if name in found]
    return known + sorted(set(found) - set(known))


def estimate(found: Mapping[str, float | None] | float | None) -> Interval | float | None:
    """The inverse of `bootstrap.number`."""
    if not isinstance(found, Mapping):
        return found
    mean, low, high = (math.nan if found[name] is None else float(found[name]) for name in ("mean", "low", "high"))
    return Interval(mean, low, high, int(found.get("count") or 0))


def text_of(value: Value, form: str) -> tuple[str, str]:
    """A cell's text, and the smaller text behind it."""
    if isinstance(value, str):
        return value, ""
    mean = value.mean if isinstance(value, Interval) else value
    if mean is None or math.isnan(mean):
        return MISSING, ""
    if not isinstance(value, Interval):
        return FORMS.get(form, "{:.4f}".format)(value), ""
    known = math.isfinite(value.low)
    if form in DIFFERENCES:
        said = DIFFERENCES[form].format
        return said(mean), f"[{said(value.low)}, {said(value.high)}]" if known else ""
    return f"{mean:.4f}", f"±{(value.high - value.low) / 2:.4f}" if known else ""


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min"


FORMS: dict[str, Callable[[float], str]] = {
    "count": "{:,.0f}".format,
    "percent": "{:.1%}".format,
    "lift": "{:+.2%}".format,
    "fine": "{:.2%}".format,
    "seconds": _seconds,
    "chance": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
    "bytes": lambda size: f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB",
    "signed": "{:+.4f}".format,
    "plain": lambda x: f"{x:,.0f}" if isinstance(x, int) or abs(x) >= 1e4 else f"{x:,.4g}",
}
"""Texts of single numbers by the form of their column; any other has four digits."""
DIFFERENCES = {"signed": "{:+.4f}", "percent": "{:+.1%}"}
"""Forms of intervals that are differences; of any other, only the half width is said."""


def numbers_of(table: Table) -> tuple[list[str], list[Sequence[Value]]]:
    """Header and rows of the table's CSV file: intervals take three columns."""
    header, columns = (["group"], [table.groups]) if table.groups else ([], [])
    for place, name in enumerate(table.columns):
        values = [row[place] for row in table.rows]
        header.append(name)
        if any(isinstance(value, Interval) for value in values):
            header += [f"{name} low", f"{name} high"]
            ends = [(v.mean, v.low, v.high) if isinstance(v, Interval) else (v, None, None) for v in values]
            columns += zip(*ends, strict=True)
        else:
            columns.append(values)
    return header, list(zip(*columns, strict=True))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
    """UTF-8, LF; numbers with every digit; unknown values are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_plain(value) for value in row] for row in rows)


def _plain(value: Value) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value if isinstance(value, str) else repr(value.item() if hasattr(value, "item") else value)
