"""A picture of what one measure costs in others: families of settings as lines, other settings as dots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

COLOURS = ("#1f5fa8", "#d1661a", "#3d8b46", "#8b4a9e")
MARKERS = ("o", "s", "^", "D")
COLUMNS = 2
DPI, FONT = 110, 8.0
RING = 11.0
"""Half of the width of the ring around the marked spot, in pixels."""
OFFSETS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a label may stand beside its spot, the first free place counts."""


@dataclasses.dataclass(frozen=True)
class Spot:
    """One setting: measures by name, and what stands beside it where it lies on a line."""

    values: dict[str, float]
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Family:
    """Settings that belong together. `line` in order; `others` stand around as faint dots, named `others_name`."""

    name: str
    line: Sequence[Spot]
    others: Sequence[Spot] = ()
    others_name: str = ""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A measure and how its axis is drawn."""

    measure: str
    title: str
    log: bool = False


def draw(
    path: Path, title: str, families: Sequence[Family], marked: tuple[str, Spot], y: str, axes: Sequence[Axis]
) -> None:
    """Writes a PNG with a panel for each of `axes`; `y` is the measure on all y axes.

    `marked` is one setting with its name in the legend. A label that finds no free place in a panel is left out there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not above: half a second, and only pictures need it
    from matplotlib.figure import Figure

    rows = -(-len(axes) // COLUMNS)
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(6.0 * COLUMNS, 4.4 * rows + 0.6), layout="constrained", dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel()
    for panel, axis in zip(panels, axes, strict=False):
        for number, family in enumerate(families):
            _family(panel, family, number, axis.measure, y)
        name, spot = marked
        panel.scatter(
            spot.values[axis.measure], spot.values[y], s=190, marker="o", facecolors="none", edgecolors="black",
            linewidths=1.6, label=name, zorder=4,
        )  # fmt: skip
        panel.set_xlabel(axis.title)
        panel.set_ylabel(y)
        if axis.log:
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.margins(x=0.1, y=0.1)
    for panel in panels[len(axes) :]:
        panel.set_axis_off()
    figure.suptitle(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(families) * 2 + 1)
    canvas.draw()  # places are known from here on
    for panel, axis in zip(panels, axes, strict=False):
        _label(panel, families, marked[1], axis.measure, y)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _family(panel, family: Family, number: int, x: str, y: str) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    panel.scatter(
        [spot.values[x] for spot in family.others], [spot.values[y] for spot in family.others],
        s=18, marker=marker, color=colour, alpha=0.3, linewidths=0, zorder=2, label=family.others_name or None,
    )  # fmt: skip
    xs, ys = ([spot.values[name] for spot in family.line] for name in (x, y))
    panel.plot(xs, ys, color=colour, marker=marker, markersize=6, linewidth=1.6, zorder=3, label=family.name)


def _label(panel, families: Sequence[Family], marked: Spot, x: str, y: str) -> None:
    """Labels go where they cover no other label, no spot of a line and, if that can be, no line."""
    from matplotlib.patheffects import withStroke

    lines = [_pixels(panel, family.line, x, y) for family in families]
    taken = [(*place, 5.0, 5.0) for line in lines for place in line]  # centre, half of width and height, in pixels
    taken += [(*place, RING, RING) for place in _pixels(panel, [marked], x, y)]
    strokes = [(*place, 1.0, 1.0) for line in lines for place in _between(line)]
    for number, (family, line) in enumerate(zip(families, lines, strict=True)):
        for spot, place in zip(family.line, line, strict=True):
            if not spot.label or not np.isfinite([spot.values[x], spot.values[y]]).all():
                continue
            half = np.array([0.31 * FONT * DPI / 72 * len(spot.label), 0.55 * FONT * DPI / 72])
            boxes = [
                (*(place + np.array(offset) * (half + away)), *half) for away in (7, RING + 2) for offset in OFFSETS
            ]
            free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
            clear = [box for box in free if not any(_overlap(box, other) for other in strokes)]
            for box in (clear or free)[:1]:
                taken.append(box)
                panel.annotate(
                    spot.label, (spot.values[x], spot.values[y]), textcoords="offset pixels",
                    xytext=(box[0] - place[0], box[1] - place[1]), ha="center", va="center", fontsize=FONT,
                    color=COLOURS[number % len(COLOURS)], path_effects=[withStroke(linewidth=2, foreground="white")],
                )  # fmt: skip


def _pixels(panel, spots: Sequence[Spot], x: str, y: str) -> np.ndarray:
    """Where spots lie on the canvas, `[n, 2]`; those without a number lie nowhere."""
    found = panel.transData.transform(np.array([(spot.values[x], spot.values[y]) for spot in spots]).reshape(-1, 2))
    return np.where(np.isfinite(found), found, -1e6)


def _between(line: np.ndarray, steps: int = 40) -> np.ndarray:
    """Points along a line of spots."""
    share = np.linspace(0, 1, steps)[:, None, None]
    return (line[:-1] + share * np.diff(line, axis=0)).reshape(-1, 2)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return abs(one[0] - other[0]) < one[2] + other[2] and abs(one[1] - other[1]) < one[3] + other[3]
