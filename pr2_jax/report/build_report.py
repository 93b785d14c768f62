"""Writes `report/` of a finished work directory: report.html, with `csv/` and `png/` of its tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pr2_jax import artifacts, console, workdir
from pr2_jax.config import Config, loader
from pr2_jax.drawing import charts
from pr2_jax.drawing.layout import legend_of
from pr2_jax.drawing.painters import png, svg
from pr2_jax.errors import BadInput
from pr2_jax.report.blocks import Charts, Searches, Section, Table, numbers_of, text_of, write_csv
from pr2_jax.report.sections import (
    ablations_section,
    abtest_section,
    calibration_section,
    costs_section,
    data_section,
    examples_section,
    frontier_section,
    overlap_section,
    results_section,
    slices_section,
    training_section,
)
from pr2_jax.report.workdir_reader import Work

DIRECTORY, SCHEMA = "report", "report/1"
PAGE, TABLES, PICTURES = "report.html", "csv", "png"
TEMPLATES = Path(__file__).resolve().parent / "templates"
BECAUSE_WORDS = 6
"""Words of a past view's caption on the page; the CSV file has the whole caption."""
SECTIONS = (
    ("results", "Retrieval and ranking", results_section.section),
    ("slices", "Who gains and who loses", slices_section.section),
    ("examples", "Searches side by side", examples_section.section),
    ("abtest", "A/B test on the simulated platform", abtest_section.section),
    ("channels", "What each channel finds", overlap_section.section),
    ("frontier", "QRCF's threshold", frontier_section.section),
    ("ablations", "What each part earns", ablations_section.section),
    ("calibration", "Calibration", calibration_section.section),
    ("data", "The log", data_section.section),
    ("training", "Training", training_section.section),
    ("cost", "Time and size", costs_section.section),
)
"""Link, heading and maker of each, in the order of the page: results, explanations, inputs."""


def write(place: Path) -> None:
    """Writes `report/`, always anew: it takes seconds.

    BadInput where `place` is no work directory; StaleArtifact where the evaluation is missing or stale.
    """
    config = _config_of(place)
    out = place / DIRECTORY
    with artifacts.locked(place), console.stage("report"), console.timed(f"; open {out / PAGE}"):
        workdir.require("eval", place, config)
        stages = (workdir.STORE, *workdir.STAGES)
        claim = {"inputs": {name: artifacts.identity(place / name) for name in stages}}
        facts: dict = {}
        with artifacts.writing(out, claim, SCHEMA, facts=facts) as made:
            work = Work(place, config)
            write_page(work, made)
            facts["made_from"] = dict(sorted(work.inputs.items()))


def write_page(work: Work, out: Path) -> None:
    """The page, a CSV file for each table and chart, a PNG for each chart."""
    with artifacts.reading(work.directory / "eval", "pr2 evaluate"):  # other artifacts name themselves
        headline = results_section.headline(work)
        todo = console.progress(SECTIONS, "sections", unit=" sections")
        sections = [(slug, heading, make(work)) for slug, heading, make in todo]
    blocks = [block for *_, section in sections for block in section.blocks]
    for name in (TABLES, PICTURES):
        (out / name).mkdir()
    drawn = [headline["chart"], *(chart for block in blocks if isinstance(block, Charts) for chart in block.charts)]
    for chart in console.progress(drawn, "pictures", unit=" pictures"):
        write_csv(out / TABLES / f"{chart.slug}.csv", *charts.numbers_of(chart))
        png([chart], out / PICTURES / f"{chart.slug}.png")
    for block in blocks:
        if isinstance(block, Table):
            write_csv(out / TABLES / f"{block.slug}.csv", *numbers_of(block))
        elif isinstance(block, Searches):
            write_csv(out / TABLES / "examples.csv", *examples_section.lines_of(block.examples))
    title = f"PR² report: {work.config.name}"
    facts = {"simulated": work.simulated, "name": work.config.name, "version": artifacts.versions()["pr2_jax"]}
    facts["sessions"] = len(work.test_sessions())
    artifacts.write_text(out / PAGE, render(title, headline, sections, facts))


def _config_of(place: Path) -> Config:
    """The config of the work directory. Where there is none, nothing is written, not even a lock."""
    if (place / artifacts.MANIFEST).is_file():
        raise BadInput(f"{place} is a finished artifact, expected a work directory (see pr2 run --help)")
    kept = workdir.config_path(place)
    workdir.refuse_foreign_config(place)
    return loader.load(str(kept))


def render(
    title: str, headline: dict[str, Any], sections: Sequence[tuple[str, str, Section]], facts: dict[str, Any]
) -> str:
    """The whole HTML file, which escapes what comes from the log; `sections`: link, heading, what stands under it."""
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
        names=examples_section.NAMES,
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
