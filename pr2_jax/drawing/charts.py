"""Charts as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pr2_jax.metrics.bootstrap import Interval

BETTER, WORSE, UNSURE, PLAIN = "better", "worse", "unsure", "plain"
"""Tones of an interval: above 0, below 0, neither; or not to be judged."""


@dataclasses.dataclass(frozen=True)
class Series:
    """A line, marks or bars over x. `low` and `high`, where given, are a band."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = False
    line: bool = True
    labels: Sequence[str] = ()  # of the points, beside the mark
    colour: int = 0  # from 1; 0 = its place among the series
    faint: bool = False  # the line


@dataclasses.dataclass(frozen=True)
class Plot:
    """Series over two axes."""

    slug: str
    title: str
    about: str  # what it shows, for those who cannot see it
    x_title: str
    y_title: str
    series: Sequence[Series]
    bars: Sequence[tuple[float, str]] = ()  # every x with its label: bars in place of lines
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    diagonal: bool = False  # the line y = x
    level: float | None = None  # a horizontal line to compare with
    percent: bool = False  # y


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of `Rows`: an interval, or parts of a whole."""

    label: str
    value: Interval | None = None
    tone: str = PLAIN
    parts: Sequence[float] = ()
    text: str = ""  # in place of the value's
    group: str = ""  # a heading stands where it changes


@dataclasses.dataclass(frozen=True)
class Rows:
    """Intervals, or stacked bars, one under the other on a common axis."""

    slug: str
    title: str
    about: str
    x_title: str
    rows: Sequence[Row]
    zero: bool = False  # a line at 0: values are differences
    part_names: Sequence[str] = ()  # of stacked bars
    percent: bool = False


Chart = Plot | Rows


def tone_of(value: Interval, better: int = 1) -> str:
    """By the side of 0 that holds the whole interval. `better`: 1 = more is better, -1 = less, 0 = neither."""
    if better and value.low > 0:
        return BETTER if better > 0 else WORSE
    if better and value.high < 0:
        return WORSE if better > 0 else BETTER
    return UNSURE if better else PLAIN


def numbers_of(chart: Chart) -> tuple[list[str], list[list[str | float | None]]]:
    """Header and rows of the chart's CSV file."""
    if isinstance(chart, Rows):
        if chart.part_names:
            return ["group", "name", *chart.part_names], [[r.group, r.label, *r.parts] for r in chart.rows]
        values = [(r.value.mean, r.value.low, r.value.high) if r.value else (None,) * 3 for r in chart.rows]
        rows = [[r.group, r.label, *value] for r, value in zip(chart.rows, values, strict=True)]
        return ["group", "name", "mean", "low", "high"], rows
    banded, names = any(len(one.low) for one in chart.series), dict(chart.bars)
    header = ["series", "x", "y", *(("low", "high") if banded else ()), *(("label",) if names else ())]
    rows = []
    for one in chart.series:
        for place, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
            band = [one.low[place], one.high[place]] if len(one.low) else [None, None]
            rows.append([one.name, x, y, *(band if banded else ()), *((names[x],) if names else ())])
    return header, rows
