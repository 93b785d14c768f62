"""The parts of a section: notes, tables, charts. Each table and chart has a CSV file with every digit."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pr2_jax.drawing.charts import Chart
from pr2_jax.metrics.bootstrap import Interval

MISSING = "–"
Value = Interval | float | int | str | None


@dataclasses.dataclass(frozen=True)
class Column:
    """`form`: text, metric (4 digits, ± half of the interval), signed (a difference, ends of the interval), count,
    percent, lift and fine (percent with two digits, with a sign and without), chance (a p-value), seconds, bytes or
    plain."""

    name: str
    form: str = "metric"


@dataclasses.dataclass(frozen=True)
class Table:
    """The first column names the row. `marked`: rows to look at first; `groups`: a heading before row n; `whole`: rows
    of values among differences."""

    slug: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    marked: frozenset[int] = frozenset()
    groups: Mapping[int, str] = dataclasses.field(default_factory=dict)
    folded: bool = False  # closed until somebody asks for it
    whole: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"  # by which the template tells blocks apart

    @property
    def numeric(self) -> list[bool]:
        """Which columns are aligned right."""
        return [column.form != "text" for column in self.columns]


@dataclasses.dataclass(frozen=True)
class Note:
    """A paragraph between the blocks, under a heading of its own where it has one."""

    text: str
    heading: str = ""
    kind: ClassVar[str] = "note"


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts that stand beside each other where there is room."""

    charts: Sequence[Chart]
    kind: ClassVar[str] = "charts"


@dataclasses.dataclass(frozen=True)
class Section:
    """`finding`: one line for the summary. `missing`: the command that makes the inputs. `stale`: says which inputs
    have changed."""

    slug: str
    title: str
    finding: str = ""
    intro: str = ""
    blocks: Sequence[Table | Charts | Note] = ()
    missing: str = ""
    stale: str = ""
    template: str = ""  # of a section that is laid out otherwise
    extra: Any = None  # for that template


def slug_of(text: str) -> str:
    """Part of a file's name and of a link."""
    return "".join(c if c.isalnum() else "_" for c in text)


def estimate(found: Mapping[str, float | None] | float | None) -> Interval | float | None:
    """The inverse of `bootstrap.number`."""
    if not isinstance(found, Mapping):
        return found
    mean, low, high = (math.nan if found[name] is None else float(found[name]) for name in ("mean", "low", "high"))
    return Interval(mean, low, high, int(found.get("count") or 0))


def text_of(value: Value, form: str) -> tuple[str, str]:
    """A cell's text, and the smaller text behind it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING, ""
    if isinstance(value, str):
        return value, ""
    if isinstance(value, Interval):
        return _interval_text(value, form)
    return FORMS.get(form, "{:.4f}".format)(value), ""


def _interval_text(value: Interval, form: str) -> tuple[str, str]:
    if math.isnan(value.mean):
        return MISSING, ""
    known = math.isfinite(value.low)
    if form == "signed":
        return f"{value.mean:+.4f}", f"[{value.low:+.4f}, {value.high:+.4f}]" if known else ""
    if form == "percent":
        return f"{value.mean:+.1%}", f"[{value.low:+.1%}, {value.high:+.1%}]" if known else ""
    return f"{value.mean:.4f}", f"±{(value.high - value.low) / 2:.4f}" if known else ""


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
"""Texts of single numbers by `Column.form`; any other has four digits."""


def numbers_of(table: Table) -> tuple[list[str], list[list[Value]]]:
    """Header and rows of the table's CSV file: intervals take three columns."""
    wide = [any(isinstance(row[place], Interval) for row in table.rows) for place in range(len(table.columns))]
    header = [
        name
        for column, three in zip(table.columns, wide, strict=True)
        for name in ([column.name, f"{column.name} low", f"{column.name} high"] if three else [column.name])
    ]
    group, rows = "", []
    for number, row in enumerate(table.rows):
        group = table.groups.get(number, group)
        cells: list[Value] = [group] if table.groups else []
        for value, three in zip(row, wide, strict=True):
            one = value if isinstance(value, Interval) else None
            cells += ([one.mean, one.low, one.high] if one else [value, None, None]) if three else [value]
        rows.append(cells)
    return ["group", *header] if table.groups else header, rows


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
