"""The page: sections put into the template. Everything that comes from the log is escaped there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pr2_jax.report import svg
from pr2_jax.report.blocks import Charts, Note, Section, Table, text_of
from pr2_jax.report.charts import Chart, Plot, Rows, Series
from pr2_jax.report.sections.examples_section import NAMES

BECAUSE_WORDS = 6
"""Of the captions of past views; the CSV file has more."""
TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A chart as the template takes it. `legend`: class and name of each series."""

    slug: str
    title: str
    about: str
    drawn: Markup
    legend: Sequence[tuple[str, str]]


def render(title: str, headline: dict[str, Any], sections: Sequence[Section], facts: dict[str, Any]) -> str:
    """The whole HTML file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": kind_of,
        "cells": cells_of,
        "picture": picture_of,
        "numeric": numeric,
        "ago": ago,
        "clipped": clipped,
    }
    return environment.get_template("page.html.jinja").render(
        title=title,
        headline=headline,
        sections=sections,
        facts=facts,
        names=NAMES,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )


def kind_of(block: Table | Charts | Note) -> str:
    """By which the template tells blocks apart."""
    return {Table: "table", Charts: "charts", Note: "note"}[type(block)]


def cells_of(table: Table, number: int) -> list[tuple[str, str]]:
    """Texts of a row."""
    forms = ["metric" if number in table.whole and c.form == "signed" else c.form for c in table.columns]
    return [text_of(value, form) for value, form in zip(table.rows[number], forms, strict=True)]


def numeric(table: Table) -> list[bool]:
    """Which columns stand to the right."""
    return [column.form != "text" for column in table.columns]


def picture_of(chart: Chart) -> Picture:
    """With its legend where there is more than one series."""
    if isinstance(chart, Rows):
        legend = [(f"block p{number}", name) for number, name in enumerate(chart.part_names, 1)]
    else:
        legend = [(f"{_sample(chart, one)} s{svg.colour_of(chart.series, n)}", one.name)
                  for n, one in enumerate(chart.series)]  # fmt: skip
    return Picture(chart.slug, chart.title, chart.about, svg.draw(chart), legend if len(legend) > 1 else [])


def _sample(chart: Plot, one: Series) -> str:
    """What of a series the legend shows."""
    if chart.bars:
        return "block"
    if not any(math.isfinite(y) for y in one.y):
        return "shade"
    return "stroke" if one.line else "spot"


def ago(days: float) -> str:
    """`5 min ago`, `7 h ago`, `3 days ago`."""
    minutes = days * 24 * 60
    if minutes < 60:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 48 * 60 else f"{days:.0f} days ago"


def clipped(caption: str) -> str:
    """The first words of a caption."""
    words = caption.split()
    return " ".join(words[:BECAUSE_WORDS]) + " …" * (len(words) > BECAUSE_WORDS)
