"""A chart as SVG for the page, whose style sheet colours it in light, in dark and on paper, and as PNG, which is light.

The same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from pr2_jax.drawing.charts import Chart
from pr2_jax.drawing.layout import WIDTH, Points, Shape, legend_of, shapes

DPI = 150
TITLE, KEY = 26, 15
"""Heights of a picture's title and of each line of its legend, in units of the layout, of which 72 are an inch."""
INK, SOFT = "#191c20", "#535c66"
SERIES = ("#0b66c3", "#c2410c", "#157f3b", "#7e3fb0", "#69727d", "#b0265d")
DASHES = ("-", (0, (4, 2)), (0, (1.5, 1.5)), (0, (4, 1.5, 1.5, 1.5)), (0, (6, 2)), (0, (1, 1.5)))
COLOURS = {f"s{n}": colour for n, colour in enumerate(SERIES, 1)} | {
    "t1": SERIES[0], "t2": SERIES[1], "p1": SERIES[0], "p2": "#8fbde9", "p3": SERIES[1], "better": SERIES[0],
    "worse": SERIES[1], "unsure": SERIES[4], "plain": INK, "grid": "#d6dce2", "tick": SOFT, "axis": SOFT,
}  # fmt: skip
"""By class, as the page's style sheet has it for light."""
DASHED = {f"s{n}": dash for n, dash in enumerate(DASHES, 1)} | {"reference": (0, (4, 3))}
WIDE = {"line": 1.7, "interval": 3.0}


def svg(chart: Chart) -> str:
    """The whole `<svg>`; its title and description are what a screen reader says."""
    body, height = shapes(chart)
    name = escape(chart.slug)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(chart.title)}</title><desc id="{name}-d">{escape(chart.about)}</desc>'
        f"{''.join(map(_element, body))}</svg>"
    )


def _element(shape: Shape) -> str:
    (x, y), points = shape.points[0], " ".join(f"{a:.1f},{b:.1f}" for a, b in shape.points)
    inner = (f"<title>{escape(shape.title)}</title>" if shape.title else "") + escape(shape.text)
    if shape.kind == "box":
        tag, (right, low) = "rect", shape.points[1]
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0, right - x):.1f}" height="{low - y:.1f}"'
    else:
        tag, place = {
            "line": ("polyline", f'points="{points}"'),
            "area": ("polygon", f'points="{points}"'),
            "dot": ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius}"'),
            "text": ("text", f'x="{x:.1f}" y="{y:.1f}"'),
        }[shape.kind]
    return f'<{tag} class="{shape.style}" {place}' + (f">{inner}</{tag}>" if inner else "/>")


def png(charts: Sequence[Chart], path: Path, columns: int = 1) -> None:
    """One file of all charts, `columns` beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not above: half a second, and only pictures need it
    from matplotlib.figure import Figure

    pictures = [_picture(chart) for chart in charts]
    rows = [pictures[first : first + columns] for first in range(0, len(pictures), columns)]
    heights = [max(height for _, height in row) for row in rows]
    width, height = WIDTH * min(columns, len(charts)), sum(heights)
    figure = Figure(figsize=(width / 72, height / 72), dpi=DPI)
    FigureCanvasAgg(figure)
    panel = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    panel.set_axis_off()
    for number, row in enumerate(rows):
        for place, (found, _) in enumerate(row):
            for shape in found:
                points = [(x + WIDTH * place, y + sum(heights[:number])) for x, y in shape.points]
                _paint(panel, shape, points)
    figure.savefig(path, metadata={"Software": None})


def _picture(chart: Chart) -> tuple[list[Shape], int]:
    """With its title above and its legend below, and the height of all."""
    body, height = shapes(chart)
    moved = [Shape(s.kind, s.style, [(x, y + TITLE) for x, y in s.points], s.text, radius=s.radius) for s in body]
    keys = legend_of(chart)
    title = Shape("text", "heading", [(4, 16)], chart.title)
    return [title, *moved, *_legend(keys, TITLE + height)], TITLE + height + KEY * len(keys)


def _legend(keys: Sequence[tuple[str, str]], top: int) -> Iterator[Shape]:
    for line, (style, name) in enumerate(keys):
        kind, colour = style.split()
        y = top + KEY * line + 6
        if kind == "spot":
            yield Shape("dot", f"mark {colour}", [(19, y)], radius=3.4)
        elif kind == "stroke":
            yield Shape("line", f"line {colour}", [(6, y), (32, y)])
        else:
            yield Shape("box", f"{'band' if kind == 'shade' else 'bar'} {colour}", [(6, y - 4), (32, y + 4)])
        yield Shape("text", "tick", [(38, y + 4)], name)


def _paint(panel, shape: Shape, points: Points) -> None:
    from matplotlib.patheffects import withStroke

    classes = shape.style.split()
    named = [COLOURS[name] for name in classes if name in COLOURS]
    colour = [SOFT if shape.kind == "line" else INK, *named][-1]
    above = {"zorder": len(panel.get_children())}  # what comes later covers what came before
    xs, ys = zip(*points, strict=True)
    if shape.kind == "line":
        dash = next((DASHED[name] for name in classes if name in DASHED), "-")
        alpha = 0.3 if "faint" in classes else 1.0
        panel.plot(xs, ys, color=colour, linestyle=dash, linewidth=WIDE.get(classes[0], 1.0), alpha=alpha, **above)
    elif shape.kind == "dot":
        ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 2} if "s6" in classes else {}
        panel.plot(xs, ys, **{"marker": "o", "markersize": 2 * shape.radius, "color": colour} | ring, **above)
    elif shape.kind == "text":
        anchor = next((name for name in ("end", "middle") if name in classes), "")
        place = {"ha": {"end": "right", "middle": "center"}.get(anchor, "left"), "va": "baseline"} | above
        place |= {"color": colour, "fontsize": 9.5, "weight": "bold" if "heading" in classes else "normal"}
        effects = [withStroke(linewidth=2, foreground="white")]
        panel.text(xs[0], ys[0], shape.text, path_effects=effects, parse_math=False, **place)
    else:
        corners = [(xs[0], ys[0]), (xs[1], ys[0]), (xs[1], ys[1]), (xs[0], ys[1])] if shape.kind == "box" else points
        alpha = 0.18 if "band" in classes else 1.0
        panel.fill(*zip(*corners, strict=True), color=colour, alpha=alpha, linewidth=0, **above)
