"""Figures of finished work directories in a document."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from pr2_jax.cli import entry
from pr2_jax.errors import BadInput
from pr2_jax.studies.results_document import BEGIN, END, write

DAY_S = 86_400


@pytest.fixture
def judged(finished, tmp_path):
    """What the command reads of a finished work directory, evaluated on 5 January 1970."""
    place = tmp_path / "my_world"
    for name in ("eval", "store", "qin"):
        (place / name).mkdir(parents=True)
        shutil.copy(finished / name / "manifest.json", place / name)
    for name in ("metrics.json", "table.md"):
        shutil.copy(finished / "eval" / name, place / "eval")
    os.utime(place / "eval" / "metrics.json", (4.5 * DAY_S, 4.5 * DAY_S))
    return place


def test_figures_stand_between_the_markers_dated(judged, tmp_path):
    document = tmp_path / "results.md"
    document.write_text(f"# Results\n\nby hand\n\n{BEGIN}\nold figures\n{END}\n\nby hand too\n")
    assert entry.main(["results", str(judged), "--out", str(document)]) == 0
    once = document.read_text()
    assert once.startswith(f"# Results\n\nby hand\n\n{BEGIN}\n\n### my_world, 1970-01-05\n")
    assert once.endswith(f"{END}\n\nby hand too\n")
    assert "old figures" not in once
    assert (judged / "eval" / "table.md").read_text().rstrip("\n") in once
    found = json.loads((judged / "eval" / "metrics.json").read_text())["differences"]["slate.qin - slate.base"]["auc"]
    assert (
        f"| slate.qin - slate.base | auc | {found['mean']:+.4f} | [{found['low']:+.4f}, {found['high']:+.4f}] |" in once
    )
    seconds = json.loads((judged / "qin" / "manifest.json").read_text())["seconds"]
    assert re.search(rf"^\| qin \| {seconds:.0f} \| 0\.\d \|$", once, re.MULTILINE)
    counts = json.loads((judged / "store" / "manifest.json").read_text())["counts"]
    assert f"The log holds {counts['users'] - 1:,} users, {counts['videos'] - 1:,} videos" in once
    write([judged], document)
    assert document.read_text() == once, "made anew it is the same"


def test_several_directories_are_printed_where_no_document_is_named(judged, tmp_path, capsys):
    shutil.copytree(judged, tmp_path / "other")
    write([judged, tmp_path / "other"], None)
    assert re.findall(r"^### (\w+), ", capsys.readouterr().out, re.MULTILINE) == ["my_world", "other"]


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_its_markers_is_left_alone(judged, tmp_path, text):
    document = tmp_path / "notes.md"
    document.write_text(text)
    with pytest.raises(BadInput, match=r"notes.md: expected one line <!-- figures"):
        write([judged], document)
    assert document.read_text() == text


def test_what_is_not_there_is_named(judged, tmp_path, capsys):
    with pytest.raises(BadInput, match="is no file"):
        write([judged], tmp_path / "missing.md")
    (judged / "eval" / "manifest.json").unlink()
    assert entry.main(["results", str(judged)]) == 2
    assert "pr2 evaluate" in capsys.readouterr().err
