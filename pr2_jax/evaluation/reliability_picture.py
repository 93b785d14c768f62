"""Reliability curves before and after calibration as a PNG; rows in each bin below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pr2_jax.evaluation.reliability import Curve

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
            below.vlines(part.predicted_B, 0, part.count_B, color=colour, linewidth=2.5, alpha=0.75)
        above.set_xlim(0, top)
        above.set_ylim(0, top)
        above.set_title(title)
        above.grid(alpha=0.25)
        below.set_ylim(0, None)
        below.grid(alpha=0.25)
        below.set_xlabel("mean predicted probability of a bin")
    axes[0][0].set_ylabel("share clicked (95 % over users)")
    axes[1][0].set_ylabel("rows in bin")
    axes[0][0].legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
