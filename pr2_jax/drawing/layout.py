"""Layout of a chart, its axes and ticks: shapes with classes of the page's style sheet and no colour of their own."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from pr2_jax.drawing.charts import Chart, Plot, Row, Rows, Series

WIDTH = 360
"""In units of about a pixel on a phone, so that text keeps its size."""
HEIGHT, TOP, LEFT, RIGHT, BOTTOM = 236, 24, 46, 14, 40
ROW, HEADING = 34, 26
LABEL_LETTERS = 40
"""The longest label of a row, at about 6.3 units a letter; the value stands to its right."""

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Shape:
    """`line` and `area` take any number of points, `box` two opposite corners, `dot` and `text` one."""

    kind: str
    style: str  # classes
    points: Points
    text: str = ""
    title: str = ""  # the tooltip
    radius: float = 0.0


def shapes(chart: Chart) -> tuple[list[Shape], int]:
    """All of a chart but its title and legend, and the height that it takes; the width is WIDTH."""
    return _rows(chart) if isinstance(chart, Rows) else _plot(chart)


def legend_of(chart: Chart) -> list[tuple[str, str]]:
    """Class and name of each series or part; empty where there is only one."""
    if isinstance(chart, Rows):
        found = [(f"block p{number}", name) for number, name in enumerate(chart.part_names, 1)]
    else:
        found = [(f"{_sample(chart, x)} s{colour_of(chart.series, n)}", x.name) for n, x in enumerate(chart.series)]
    return found if len(found) > 1 else []


def _sample(chart: Plot, one: Series) -> str:
    if chart.bars:
        return "block"
    if not any(math.isfinite(y) for y in one.y):
        return "shade"
    return "stroke" if one.line else "spot"


def colour_of(series: Sequence[Series], place: int) -> int:
    """The number of a series' colour and dash, from 1."""
    return series[place].colour or place % 6 + 1


def _plot(chart: Plot) -> tuple[list[Shape], int]:
    x, y = axes_of(chart)
    out = [_text(4, 13, chart.y_title, "axis"), *_grid(chart, x, y)]
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        out.append(Shape("line", "reference", [(x.at(low), y.at(low)), (x.at(high), y.at(high))]))
    if chart.level is not None and y.low <= chart.level <= y.high:
        out.append(Shape("line", "reference", [(x.start, y.at(chart.level)), (x.end, y.at(chart.level))]))
    taken: list[tuple[float, float]] = []
    for place, one in enumerate(chart.series):
        number = colour_of(chart.series, place)
        out += _bars(chart, one, number, x, y) if chart.bars else _series(one, number, x, y, taken)
    return out, HEIGHT


def axes_of(chart: Plot) -> tuple[Axis, Axis]:
    """Both axes, in the units of the picture."""
    xs = [v for one in chart.series for v in one.x]
    ys = [v for one in chart.series for part in (one.y, one.low, one.high) for v in part]
    ys += [] if chart.level is None else [chart.level]
    x_low, x_high = span(xs, chart.log_x, room=0.03)
    if chart.bars and xs:
        x_low, x_high = min(xs) - 0.6, max(xs) + 0.6
    y_low, y_high = span(ys, chart.log_y, chart.from_zero or chart.bars)
    if chart.diagonal:
        x_low, y_low = 0.0, 0.0
        x_high = y_high = max(x_high, y_high)
    x = Axis(x_low, x_high, LEFT, WIDTH - RIGHT, chart.log_x)
    return x, Axis(y_low, y_high, HEIGHT - BOTTOM, TOP, chart.log_y)


def _grid(chart: Plot, x: Axis, y: Axis) -> Iterable[Shape]:
    for value in ticks(y.low, y.high, 5, chart.log_y):
        at = y.at(value)
        yield Shape("line", "grid", [(x.start, at), (x.end, at)])
        yield _text(x.start - 5, at + 4, short(value, chart.percent), "tick end")
    labels = chart.bars or [(value, short(value)) for value in ticks(x.low, x.high, 5, chart.log_x)]
    step = -(-len(labels) // 5) if chart.bars else 1
    for value, text in labels[::step]:
        yield Shape("line", "tickmark", [(x.at(value), y.start), (x.at(value), y.start + 4)])
        yield _text(x.at(value), y.start + 16, text, "tick middle")
    yield Shape("line", "tickmark", [(x.start, y.start), (x.end, y.start)])
    yield _text((x.start + x.end) / 2, HEIGHT - 6, chart.x_title, "axis middle")


def _bars(chart: Plot, one: Series, number: int, x: Axis, y: Axis) -> Iterable[Shape]:
    width = abs(x.at(1) - x.at(0)) * 0.78
    names = dict(chart.bars)
    for at, value in zip(one.x, one.y, strict=True):
        left, top = x.at(at) - width / 2, min(y.at(value), y.start)
        said = f"{names[at]}: {value:,.6g} ({one.name})"
        yield Shape("box", f"bar s{number}", [(left, top), (left + width, y.start)], title=said)


def _series(one: Series, number: int, x: Axis, y: Axis, taken: list[tuple[float, float]]) -> Iterable[Shape]:
    for run in _runs(one.x, one.low, one.high):
        above = [(x.at(a), y.at(high)) for a, _, high in run]
        below = [(x.at(a), y.at(low)) for a, low, _ in run]
        yield Shape("area", f"band s{number}", [*above, *below[::-1]])
    for run in _runs(one.x, one.y) if one.line else ():
        yield Shape("line", f"line s{number}{' faint' * one.faint}", [(x.at(a), y.at(b)) for a, b in run])
    for place, (a, b) in enumerate(zip(one.x, one.y, strict=True) if one.marks else ()):
        if not (math.isfinite(a) and math.isfinite(b)):
            continue
        label = one.labels[place] if one.labels else ""
        said = f"{one.name} {label}: {short(a)}, {b:.4g}"
        yield Shape("dot", f"mark s{number}", [(x.at(a), y.at(b))], title=said, radius=3.4)
        if label and (free := _free_place(x.at(a), y.at(b), taken)):
            taken.append(free)
            yield _text(*free, label, f"tick middle t{number}")


def _free_place(x: float, y: float, taken: Iterable[tuple[float, float]]) -> tuple[float, float] | None:
    """For a label: above its mark, below, to the right or to the left, clear of the labels there are."""
    places = [(x, y - 8), (x, y + 17), (min(x + 22, WIDTH - RIGHT), y + 4), (x - 22, y + 4)]
    clear = (at for at in places if not any(abs(at[0] - a) < 30 and abs(at[1] - b) < 12 for a, b in taken))
    return next(clear, None)


def _rows(chart: Rows) -> tuple[list[Shape], int]:
    x, top, group, lines = rows_axis(chart), 4, "", []
    at = top
    for row in chart.rows:
        if row.group and row.group != group:
            lines.append(_text(4, at + 17, row.group, "heading"))
            at += HEADING
        lines += _row(chart, row, x, at)
        at, group = at + ROW, row.group
    bottom, height = at + 6, at + 46
    out = [Shape("line", "grid", [(x.at(v), top), (x.at(v), bottom)]) for v in ticks(x.low, x.high, 5)]
    if chart.zero:
        out.append(Shape("line", "zero", [(x.at(0), top), (x.at(0), bottom)]))
    out += lines
    for value in ticks(x.low, x.high, 5):
        out.append(_text(x.at(value), bottom + 15, short(value, chart.percent), "tick middle"))
    return [*out, _text(WIDTH / 2, height - 5, chart.x_title, "axis middle")], height


def rows_axis(chart: Rows) -> Axis:
    """The axis that all rows share."""
    if chart.part_names:
        return Axis(0.0, max([sum(row.parts) for row in chart.rows] or [0.0]) or 1.0, 12, WIDTH - 18)
    ends = [v for row in chart.rows if row.value for v in (row.value.mean, row.value.low, row.value.high)]
    return Axis(*span([*ends, *([0.0] if chart.zero else [])], room=0.03), 12, WIDTH - 18)


def value_text(chart: Rows, row: Row) -> str:
    """The text of the value, to the right of the label."""
    if row.text or row.value is None:
        return row.text
    value, (scale, digits, unit) = row.value, ((100, 1, "%") if chart.percent else (1, 3, ""))
    if not math.isfinite(value.mean):
        return "not known"
    half, sign = (value.high - value.low) / 2 * scale, "+" if chart.zero else ""
    around = f" ±{half:.{digits}f}" if math.isfinite(half) else ""
    alone = ", too few people" if chart.zero and not around else ""
    return f"{round(value.mean * scale, digits) + 0.0:{sign}.{digits}f}{around}{unit}{alone}"


def _row(chart: Rows, row: Row, x: Axis, at: float) -> Iterable[Shape]:
    said = value_text(chart, row)
    most = LABEL_LETTERS + 12 - len(said)
    label = row.label if len(row.label) <= most else row.label[: most - 1] + "…"
    yield _text(4, at + 13, label, "label", row.label if label != row.label else "")
    yield _text(WIDTH - 4, at + 13, said, "label end")
    middle = at + 23
    if row.parts:
        start = 0.0
        for number, (part, name) in enumerate(zip(row.parts, chart.part_names, strict=True), 1):
            left, right = x.at(start), x.at(start + part)
            title = f"{row.label}, {name}: {part:.4g}"
            yield Shape("box", f"bar p{number}", [(left, middle - 5), (right, middle + 5)], title=title)
            start += part
    elif row.value and math.isfinite(row.value.mean):
        low, high = (v if math.isfinite(v) else row.value.mean for v in (row.value.low, row.value.high))
        title = f"{row.label}: {row.value.mean:.4f} [{low:.4f}, {high:.4f}]"
        yield Shape("line", f"interval {row.tone}", [(x.at(low), middle), (x.at(high), middle)])
        yield Shape("dot", f"dot {row.tone}", [(x.at(row.value.mean), middle)], title=title, radius=4.2)


def _runs(*columns: Sequence[float]) -> Iterable[list[tuple[float, ...]]]:
    """Stretches of points that are all finite."""
    points = zip(*columns, strict=True) if all(len(c) for c in columns) else ()
    for known, run in itertools.groupby(points, lambda point: all(map(math.isfinite, point))):
        if known:
            yield list(run)


def _text(x: float, y: float, text: str, style: str, title: str = "") -> Shape:
    return Shape("text", style, [(x, y)], text, title)


STEPS = (1, 2, 2.5, 5, 10)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`; those above may be less than those below."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixels, of values beyond the ends too; a log axis puts what is not above 0 at its low end."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(max(value, self.low)) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def span(
    values: Iterable[float], log: bool = False, from_zero: bool = False, room: float = 0.06
) -> tuple[float, float]:
    """Ends of an axis that holds the finite values (on a log axis: those above 0), with some room."""
    known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0) if not log else (1.0, 10.0)
    if log:
        return (low / 1.15, high * 1.15) if high > low else (low / 2, high * 2)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    free = (high - low) * room
    return (low if from_zero and low == 0 else low - free), (high if from_zero and high == 0 else high + free)


def ticks(low: float, high: float, most: int = 5, log: bool = False) -> list[float]:
    """Round values between the ends, at most about that many."""
    if log:
        return _log_ticks(low, high, most)
    rough = (high - low) / max(1, most)
    scale = 10 ** math.floor(math.log10(rough))
    step = next(s * scale for s in STEPS if s * scale >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for within in ((1, 2, 5), (1,)):
        found = [m * 10.0**d for d in decades for m in within if low <= m * 10.0**d <= high]
        if len(found) <= most + 1:
            return found
    return found[:: -(-len(found) // most)]


def short(value: float, percent: bool = False) -> str:
    """`0.25`, `12k`, `3.4M`, `25%`."""
    if percent:
        return f"{value * 100:.4g}%"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
