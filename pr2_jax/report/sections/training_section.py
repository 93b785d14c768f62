"""Training curves of every model."""

from __future__ import annotations

from typing import Any

from pr2_jax.drawing.charts import Plot, Series
from pr2_jax.report.blocks import Charts, Section
from pr2_jax.report.workdir_reader import Work

RUNS = {
    "content": ("content", "content/fold_0", "content/fold_1"),
    "preference": ("preference", "preference/fold_0", "preference/fold_1"),
    "pdr": ("pdr",),
    "qin": ("qin/qin",),
    "base": ("qin/base",),
}
"""The runs of each model: the serving one first, then one for each fold, trained without its days."""
ENTROPY = "gate_entropy_"


def section(work: Work) -> Section:
    """From curve.jsonl and length.json of each model."""
    charts, said, lengths = [], [], []
    for model, places in RUNS.items():
        curves = {place: lines for place in places if (lines := work.curve(f"{place}/curve.jsonl"))}
        if curves:
            charts += _charts(model, curves)
            first = next(iter(curves.values()))
            if length := work.json(f"{places[0]}/length.json"):
                lengths.append(_length(model, length))
            said.append(f"{model} {first[0]['loss']:.3g} → {first[-1]['loss']:.3g}")
    if not charts:
        return Section(missing="pr2 run --workdir DIR")
    return Section(
        f"Losses, first to last step: {', '.join(said)}.",
        "Every 20th step, of that step's batch alone, so lines are rough. Folds are the same model trained without "
        "half of the days, so that what comes after it learns from scores that have not seen their own answers."
        + (f" Passes over the training rows: {'; '.join(lengths)}." if lengths else ""),
        [Charts(charts)],
    )


def _length(model: str, length: dict[str, Any]) -> str:
    asked = f", cut from {length['epochs']:g} by {model}.optim.max_steps" if length["cut"] else ""
    return f"{model} {length['passes']:.3g} in {length['steps']:,} steps{asked}"


def _charts(model: str, curves: dict[str, list[dict[str, float]]]) -> list[Plot]:
    main, *_ = curves
    names = {place: f"without {place.rpartition('/')[2].replace('_', ' ')}" for place in curves} | {main: "all days"}
    gates = [name for name in curves[main][0] if name.startswith(ENTROPY)]
    parts = [name for name in curves[main][0] if name not in ("step", "loss", "top1", *gates)]

    def of_runs(metric: str) -> list[Series]:
        return [_series(names[place], lines, metric) for place, lines in curves.items()]

    def of_main(wanted: list[str]) -> list[Series]:
        return [_series(name.removeprefix(ENTROPY).replace("_", " "), curves[main], name) for name in wanted]

    found = [
        _plot(model, "loss", "loss", "loss", of_runs("loss")),
        _plot(model, "parts", "parts of the loss", "loss", of_main(parts)),
        _plot(model, "top1", "right video first in the batch", "share", of_runs("top1"), percent=True),
        _plot(model, "gates", "entropy of the expert gates", "nats", of_main(gates)),
    ]
    return [plot for plot in found if plot.series and plot.series[0].x]


def _plot(model: str, what: str, title: str, y: str, lines: list[Series], percent: bool = False) -> Plot:
    title, ends = f"{model}: {title}", "; ".join(f"{x.name} {x.y[0]:.3g} to {x.y[-1]:.3g}" for x in lines if x.y)
    return Plot(f"training_{model}_{what}", title, f"{title} by step: {ends}.", "step", y, lines, from_zero=percent,
                percent=percent)  # fmt: skip


def _series(name: str, lines: list[dict[str, float]], metric: str) -> Series:
    kept = [line for line in lines if metric in line]
    return Series(name, [float(line["step"]) for line in kept], [float(line[metric]) for line in kept])
