"""Charts as SVG inside the page: no colour of their own, but classes that the page's style sheet colours, so that one
picture is right in light, in dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from markupsafe import Markup

from pr2_jax.report.axes import Axis, short, span, ticks
from pr2_jax.report.charts import Chart, Plot, Row, Rows, Series

WIDTH = 360
"""Units; about pixels on a phone, so that the text keeps its size."""
HEIGHT, TOP, LEFT, RIGHT, BOTTOM = 236, 24, 46, 14, 40
ROW, HEADING = 34, 26
LABEL_LETTERS = 40
"""Of a row's label, of which a letter takes about 6.3 units; the value stands to its right."""


def draw(chart: Chart) -> Markup:
    """The whole `<svg>`; its title and description are what a screen reader says."""
    body, height = _rows(chart) if isinstance(chart, Rows) else _plot(chart)
    name = escape(chart.slug)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(chart.title)}</title><desc id="{name}-d">{escape(chart.about)}</desc>'
        f"{''.join(body)}</svg>"
    )


def colour_of(series: Sequence[Series], place: int) -> int:
    """The number of a series' colour and dash, from 1."""
    return series[place].colour or place % 6 + 1


def _plot(chart: Plot) -> tuple[list[str], int]:
    x, y = axes_of(chart)
    out = [_text(4, 13, chart.y_title, "axis"), *_grid(chart, x, y)]
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        out.append(_line([(x.at(low), y.at(low)), (x.at(high), y.at(high))], "reference"))
    if chart.level is not None and y.low <= chart.level <= y.high:
        out.append(_line([(x.start, y.at(chart.level)), (x.end, y.at(chart.level))], "reference"))
    taken: list[tuple[float, float]] = []
    for place, one in enumerate(chart.series):
        number = colour_of(chart.series, place)
        out += _bars(chart, one, number, x, y) if chart.bars else _series(one, number, x, y, taken)
    return out, HEIGHT


def axes_of(chart: Plot) -> tuple[Axis, Axis]:
    """Both axes, in the units of the picture."""
    every = chart.series
    xs = [v for one in every for v in one.x]
    ys = [v for one in every for part in (one.y, one.low, one.high) for v in part]
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


def _grid(chart: Plot, x: Axis, y: Axis) -> Iterable[str]:
    for value in ticks(y.low, y.high, 5, chart.log_y):
        at = y.at(value)
        yield _line([(x.start, at), (x.end, at)], "grid")
        yield _text(x.start - 5, at + 4, short(value, chart.percent), "tick end")
    labels = chart.x_labels or [(value, short(value)) for value in ticks(x.low, x.high, 5, chart.log_x)]
    step = -(-len(labels) // 5)
    for value, text in labels[::step] if chart.x_labels else labels:
        yield _line([(x.at(value), y.start), (x.at(value), y.start + 4)], "tickmark")
        yield _text(x.at(value), y.start + 16, text, "tick middle")
    yield _line([(x.start, y.start), (x.end, y.start)], "tickmark")
    yield _text((x.start + x.end) / 2, HEIGHT - 6, chart.x_title, "axis middle")


def _bars(chart: Plot, one: Series, number: int, x: Axis, y: Axis) -> Iterable[str]:
    width = abs(x.at(1) - x.at(0)) * 0.78
    names = dict(chart.x_labels)
    for at, value in zip(one.x, one.y, strict=True):
        said = escape(f"{names.get(at, short(at))}: {value:,.6g} ({one.name})")
        top = y.at(value)
        yield (
            f'<rect class="bar s{number}" x="{x.at(at) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{max(0.0, y.start - top):.1f}"><title>{said}</title></rect>'
        )


def _series(one: Series, number: int, x: Axis, y: Axis, taken: list[tuple[float, float]]) -> Iterable[str]:
    for run in _runs(one.x, one.low, one.high):
        above = [(x.at(a), y.at(high)) for a, _, high in run]
        below = [(x.at(a), y.at(low)) for a, low, _ in run]
        yield f'<polygon class="band s{number}" points="{_points([*above, *below[::-1]])}"/>'
    for run in _runs(one.x, one.y) if one.line else ():
        yield _line([(x.at(a), y.at(b)) for a, b in run], f"line s{number}")
    for place, (a, b) in enumerate(zip(one.x, one.y, strict=True) if one.marks else ()):
        if not (math.isfinite(a) and math.isfinite(b)):
            continue
        label = one.labels[place] if one.labels else ""
        said = escape(f"{one.name} {label}: {short(a)}, {b:.4g}")
        centre = f'cx="{x.at(a):.1f}" cy="{y.at(b):.1f}"'
        yield f'<circle class="mark s{number}" {centre} r="3.4"><title>{said}</title></circle>'
        free = [at for at in _beside(x.at(a), y.at(b)) if label and not _crowded(at, taken)]
        if free:
            taken.append(free[0])
            yield _text(*free[0], label, f"tick middle t{number}")


def _beside(x: float, y: float) -> list[tuple[float, float]]:
    """Where a label may stand: above its mark, below, to the right, to the left."""
    return [(x, y - 8), (x, y + 17), (min(x + 22, WIDTH - RIGHT), y + 4), (x - 22, y + 4)]


def _crowded(at: tuple[float, float], taken: Iterable[tuple[float, float]]) -> bool:
    return any(abs(at[0] - x) < 30 and abs(at[1] - y) < 12 for x, y in taken)


def _rows(chart: Rows) -> tuple[list[str], int]:
    headings = sum(bool(row.group) and row.group != before for row, before in _with_group_before(chart.rows))
    height = 8 + ROW * len(chart.rows) + HEADING * headings + 42
    x = rows_axis(chart)
    top, bottom = 4, height - 40
    out = [_line([(x.at(v), top), (x.at(v), bottom)], "grid") for v in ticks(x.low, x.high, 5)]
    if chart.zero:
        out.append(_line([(x.at(0), top), (x.at(0), bottom)], "zero"))
    at = top
    for row, before in _with_group_before(chart.rows):
        if row.group and row.group != before:
            out.append(_text(4, at + 17, row.group, "heading"))
            at += HEADING
        out += _row(chart, row, x, at)
        at += ROW
    for value in ticks(x.low, x.high, 5):
        out.append(_text(x.at(value), bottom + 15, short(value, chart.percent), "tick middle"))
    out.append(_text(WIDTH / 2, height - 5, chart.x_title, "axis middle"))
    return out, height


def rows_axis(chart: Rows) -> Axis:
    """The axis that all rows share."""
    if chart.part_names:
        return Axis(0.0, max([sum(row.parts) for row in chart.rows] or [0.0]) or 1.0, 12, WIDTH - 18)
    ends = [v for row in chart.rows if row.value for v in (row.value.mean, row.value.low, row.value.high)]
    return Axis(*span([*ends, *([0.0] if chart.zero else [])], room=0.03), 12, WIDTH - 18)


def value_text(chart: Rows, row: Row) -> str:
    """What stands to the right of the label."""
    if row.text or row.value is None:
        return row.text
    value, scale, digits = row.value, 100 if chart.percent else 1, 1 if chart.percent else 3
    if not math.isfinite(value.mean):
        return "not known"
    unit, sign = "%" if chart.percent else "", "+" if chart.zero else ""
    half = (value.high - value.low) / 2 * scale
    around = f" ±{half:.{digits}f}" if math.isfinite(half) else ""
    alone = ", too few people" if chart.zero and not around else ""
    return f"{round(value.mean * scale, digits) + 0.0:{sign}.{digits}f}{around}{unit}{alone}"


def _row(chart: Rows, row: Row, x: Axis, at: float) -> Iterable[str]:
    said = value_text(chart, row)
    most = LABEL_LETTERS + 12 - len(said)
    label = row.label if len(row.label) <= most else row.label[: most - 1] + "…"
    yield _text(4, at + 13, label, "label", row.label if label != row.label else "")
    yield _text(WIDTH - 4, at + 13, said, "label end")
    middle = at + 23
    if row.parts:
        start = 0.0
        for number, (part, name) in enumerate(zip(row.parts, chart.part_names, strict=True), 1):
            width = x.at(start + part) - x.at(start)
            title = escape(f"{row.label}, {name}: {part:.4g}")
            yield (
                f'<rect class="bar p{number}" x="{x.at(start):.1f}" y="{middle - 5}" width="{max(0, width):.1f}" '
                f'height="10"><title>{title}</title></rect>'
            )
            start += part
    elif row.value and math.isfinite(row.value.mean):
        low, high = (v if math.isfinite(v) else row.value.mean for v in (row.value.low, row.value.high))
        title = escape(f"{row.label}: {row.value.mean:.4f} [{low:.4f}, {high:.4f}]")
        yield _line([(x.at(low), middle), (x.at(high), middle)], f"interval {row.tone}")
        yield (
            f'<circle class="dot {row.tone}" cx="{x.at(row.value.mean):.1f}" cy="{middle}" r="4.2">'
            f"<title>{title}</title></circle>"
        )


def _with_group_before(rows: Sequence[Row]) -> Iterable[tuple[Row, str]]:
    return zip(rows, ["", *(row.group for row in rows)], strict=False)


def _runs(*columns: Sequence[float]) -> Iterable[list[tuple[float, ...]]]:
    """Stretches of points that are all finite."""
    run: list[tuple[float, ...]] = []
    for point in zip(*columns, strict=True) if all(len(c) for c in columns) else ():
        if all(math.isfinite(v) for v in point):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _line(points: Sequence[tuple[float, float]], name: str) -> str:
    return f'<polyline class="{name}" points="{_points(points)}"/>'


def _text(x: float, y: float, text: str, name: str, title: str = "") -> str:
    more = f"<title>{escape(title)}</title>" if title else ""
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}">{more}{escape(text)}</text>'
