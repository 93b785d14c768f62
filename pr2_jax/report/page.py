"""The HTML page. The template escapes everything that comes from the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pr2_jax.drawing.layout import legend_of
from pr2_jax.drawing.painters import svg
from pr2_jax.report.blocks import Section, Table, text_of
from pr2_jax.report.sections.examples_section import NAMES

BECAUSE_WORDS = 6
"""Words of a past view's caption on the page; the CSV file has the whole caption."""
TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(
    title: str, headline: dict[str, Any], sections: Sequence[tuple[str, str, Section]], facts: dict[str, Any]
) -> str:
    """The whole HTML file; `sections`: link, heading and what stands under it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cells": cells_of, "legend": legend_of, "ago": ago, "clipped": clipped}
    environment.filters["drawn"] = lambda chart: Markup(svg(chart))
    return environment.get_template("page.html.jinja").render(
        title=title,
        headline=headline,
        sections=sections,
        facts=facts,
        names=NAMES,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )


def cells_of(table: Table, number: int) -> list[tuple[str, str]]:
    """The texts of a row's cells."""
    forms = ["metric" if number in table.whole and form == "signed" else form for form in table.columns.values()]
    return [text_of(value, form) for value, form in zip(table.rows[number], forms, strict=True)]


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
