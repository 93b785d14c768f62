"""A picture of what one measure costs in others: families of settings as lines, other settings as dots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

COLOURS = ("#1f5fa8", "#d1661a", "#3d8b46", "#8b4a9e")
MARKERS = ("o", "s", "^", "D")


@dataclasses.dataclass(frozen=True)
class Spot:
    """One setting: measures by name, and what stands beside it where it lies on a line."""

    values: dict[str, float]
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Family:
    """Settings that belong together. `line` in order; `others` stand around as faint dots."""

    name: str
    line: Sequence[Spot]
    others: Sequence[Spot] = ()


def draw(
    path: Path, title: str, families: Sequence[Family], marked: tuple[str, Spot], y: str, xs: dict[str, str]
) -> None:
    """Writes a PNG with a panel for each measure of `xs` (name to axis title); `y` is the measure on all y axes.

    `marked` is one setting with its name in the legend. Labels stand above the spots of one family, below the next.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not above: half a second, and only pictures need it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(xs), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(xs), sharey=True, squeeze=False)[0]
    for panel, (x, x_title) in zip(panels, xs.items(), strict=True):
        for number, family in enumerate(families):
            _family(panel, family, number, x, y)
        name, spot = marked
        panel.scatter(
            spot.values[x], spot.values[y], s=190, marker="o", facecolors="none", edgecolors="black", linewidths=1.6,
            label=name, zorder=4,
        )  # fmt: skip
        panel.set_xlabel(x_title)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.margins(x=0.1, y=0.1)
    panels[0].set_ylabel(y)
    figure.suptitle(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(families) * 2 + 1)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _family(panel, family: Family, number: int, x: str, y: str) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    panel.scatter(
        [spot.values[x] for spot in family.others], [spot.values[y] for spot in family.others],
        s=18, marker=marker, color=colour, alpha=0.3, linewidths=0, zorder=2, label=f"{family.name}, other K",
    )  # fmt: skip
    xs, ys = ([spot.values[name] for spot in family.line] for name in (x, y))
    panel.plot(xs, ys, color=colour, marker=marker, markersize=6, linewidth=1.6, zorder=3, label=family.name)
    for spot in family.line:
        above = number % 2 == 0
        panel.annotate(
            spot.label, (spot.values[x], spot.values[y]), textcoords="offset points", xytext=(0, 8 if above else -8),
            ha="center", va="bottom" if above else "top", fontsize=8, color=colour,
        )  # fmt: skip
