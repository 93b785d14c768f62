"""The same charts as PNG files, for slides and papers: light, and the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax.report.axes import short
from pr2_jax.report.charts import BETTER, PLAIN, UNSURE, WORSE, Chart, Plot, Rows, Series
from pr2_jax.report.svg import colour_of, value_text

COLOURS = ("#0b66c3", "#c2410c", "#157f3b", "#7e3fb0", "#69727d", "#b0265d")
DASHES = ("-", (0, (6, 3)), (0, (2, 2)), (0, (6, 2, 2, 2)), (0, (9, 3)), (0, (1, 2)))
TONES = {BETTER: "#0b66c3", WORSE: "#c2410c", UNSURE: "#69727d", PLAIN: "#1a1d21"}
PARTS = ("#0b66c3", "#8fbde9", "#c2410c")
DPI = 110


def draw(chart: Chart, path: Path) -> None:
    """Writes one file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not above: half a second, and only pictures need it
    from matplotlib.figure import Figure

    rows = isinstance(chart, Rows)
    figure = Figure(figsize=(6.4, max(2.2, 1.2 + 0.3 * len(chart.rows)) if rows else 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.set_title(chart.title, fontsize=10, loc="left", wrap=True)
    (_rows if rows else _plot)(chart, panel)
    keys = _parts(chart) if rows else panel.get_legend_handles_labels()[0]
    if len(keys) > 1:
        figure.legend(handles=keys, fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _plot(chart: Plot, panel) -> None:
    for place, one in enumerate(chart.series):
        number = colour_of(chart.series, place) - 1
        colour = COLOURS[number]
        if chart.bars:
            panel.bar(one.x, one.y, width=0.78, color=colour, label=one.name)
            continue
        shade = not np.isfinite(_floats(one.y)).any()
        if len(one.low):
            name = one.name if shade else None
            low, high = _floats(one.low), _floats(one.high)
            panel.fill_between(one.x, low, high, color=colour, alpha=0.16, linewidth=0, label=name)
        if not shade:
            panel.plot(one.x, _floats(one.y), color=colour, label=one.name, **_style(one, number))
        for x, y, text in zip(one.x, one.y, one.labels, strict=False):
            panel.annotate(text, (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=7, color=colour)
    if chart.diagonal:
        panel.axline((0, 0), slope=1, color="0.5", linestyle="--", linewidth=1)
    if chart.level is not None:
        panel.axhline(chart.level, color="0.5", linestyle="--", linewidth=1)
    if chart.log_x:
        panel.set_xscale("log")
    if chart.log_y:
        panel.set_yscale("log")
    if chart.from_zero:
        panel.set_ylim(bottom=min(0, panel.get_ylim()[0]))
    if chart.percent:
        panel.yaxis.set_major_formatter(lambda value, _: short(value, percent=True))
    if chart.x_labels:
        step = -(-len(chart.x_labels) // 6)
        panel.set_xticks(*zip(*chart.x_labels[::step], strict=True))
    panel.set_xlabel(chart.x_title)
    panel.set_ylabel(chart.y_title)
    panel.grid(color="#dddddd", linewidth=0.6)


def _style(one: Series, number: int) -> dict:
    """Of a line with or without marks; marks alone in the last colour are rings around others."""
    if one.line:
        return {"linestyle": DASHES[number], "linewidth": 1.5, "marker": "o" if one.marks else None, "markersize": 4}
    ring = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.6}
    return {"linestyle": "none", "marker": "o", **(ring if number == len(COLOURS) - 1 else {"markersize": 4})}


def _rows(chart: Rows, panel) -> None:
    places = np.arange(len(chart.rows))[::-1]
    for row, y in zip(chart.rows, places, strict=True):
        if row.parts:
            for start, part, colour in zip(np.cumsum([0, *row.parts]), row.parts, PARTS, strict=False):
                panel.barh(y, part, left=start, color=colour, height=0.6)
        elif row.value is not None:
            low, high = row.value.low, row.value.high
            panel.plot([low, high], [y, y], color=TONES[row.tone], linewidth=2)
            panel.plot([row.value.mean], [y], "o", color=TONES[row.tone], markersize=5)
    said = [f"{f'{row.group}: ' * bool(row.group)}{row.label}" for row in chart.rows]
    panel.set_yticks(places, [f"{text}  {value_text(chart, row)}" for text, row in zip(said, chart.rows, strict=True)])
    panel.tick_params(axis="y", labelsize=7.5)
    panel.set_ylim(-0.7, max(len(chart.rows) - 0.3, 0.7))
    if chart.zero:
        panel.axvline(0, color="0.3", linewidth=1)
    if chart.percent:
        panel.xaxis.set_major_formatter(lambda value, _: short(value, percent=True))
    panel.set_xlabel(chart.x_title)
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)


def _parts(chart: Rows) -> list:
    from matplotlib.patches import Patch

    return [Patch(color=colour, label=name) for colour, name in zip(PARTS, chart.part_names, strict=False)]


def _floats(values) -> np.ndarray:
    return np.array(values, np.float64)
