"""Reliability curves before and after calibration as a PNG; how many rows are said what below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pr2_jax.metrics.calibration_curve import Curve

COLOURS = {"before": "#c0504d", "after": "#1f6fb4"}
MARKS = {"before": "s", "after": "o"}


def draw(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """`curves`: title → `before` and `after`; a column each. Bands are 95 % intervals over users."""
    import matplotlib  # not above: takes a second to import, and nothing else draws

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(curves), figsize=(5.2 * len(curves), 6.4), height_ratios=(3, 1), sharex="col", squeeze=False
    )
    for column, (title, parts) in enumerate(curves.items()):
        above, below = axes[0][column], axes[1][column]
        top = max(max(part.predicted_B.max(), part.high_B.max()) for part in parts.values()) * 1.05
        above.plot([0, top], [0, top], color="0.55", linestyle="--", linewidth=1, label="what is said happens")
        for name, part in parts.items():
            colour = COLOURS[name]
            above.fill_between(part.predicted_B, part.low_B, part.high_B, color=colour, alpha=0.18, linewidth=0)
            above.plot(
                part.predicted_B, part.observed_B, color=colour, marker=MARKS[name], markersize=4, linewidth=1.4,
                label=f"{name} calibration",
            )  # fmt: skip
            edges = np.linspace(0, 1, len(part.spread_W) + 1)
            below.stairs(part.spread_W, edges, color=colour, fill=True, alpha=0.35)
            below.stairs(part.spread_W, edges, color=colour, linewidth=1.2)
        above.set_xlim(0, top)
        above.set_ylim(0, top)
        rows = [part.count_B for part in parts.values()]
        bins = f"bins of {min(map(np.min, rows)):,} to {max(map(np.max, rows)):,}"
        above.set_title(f"{title}, {bins}", fontsize=10)
        above.grid(alpha=0.25)
        below.set_yscale("log")
        below.set_ylim(0.8, None)
        below.grid(alpha=0.25)
        below.set_xlabel("predicted probability (of a bin: its mean)")
    axes[0][0].set_ylabel("share clicked (95 % over users)")
    axes[1][0].set_ylabel("rows per 0.01")
    axes[0][0].legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
