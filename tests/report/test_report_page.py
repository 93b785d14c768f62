"""The report of a finished work directory: what stands in it, that it is whole, safe and the same each time."""

from __future__ import annotations

import csv
import html
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from pr2_jax.cli import entry
from pr2_jax.report import build_report
from pr2_jax.report.sections import examples_section, overlap_section, results_section, slices_section
from pr2_jax.report.workdir_reader import Work

VOID = {"meta", "link", "img", "br", "input"}
SHAPES = {"circle", "line", "polyline", "polygon", "rect"}


class Page(HTMLParser):
    """Elements with their attributes, text by section; complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.said[self._section] = self.said.get(self._section, "") + data


@pytest.fixture(scope="module")
def parsed(page) -> Page:
    return Page(page)


@pytest.fixture(scope="module")
def metrics(reported) -> dict:
    return json.loads((reported / "eval" / "metrics.json").read_text())


def _csv(reported, name: str) -> list[dict[str, str]]:
    with (reported / "report" / "csv" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_section_is_there_in_order_and_in_the_contents(parsed):
    ids = [attrs["id"] for tag, attrs in parsed.elements if tag == "section"]
    assert ids == [
        "results", "slices", "examples", "abtest", "channels", "frontier", "ablations", "calibration", "data",
        "training", "cost",
    ]  # fmt: skip
    linked = [attrs.get("href") for tag, attrs in parsed.elements if tag == "a"]
    assert [f"#{name}" for name in ids] == linked[2 : 2 + len(ids)], "the contents, behind the skip link and the top"


def test_passes_of_each_model_and_what_cut_them(parsed, reported):
    said = " ".join(parsed.said["training"].split())
    for model, place in {"content": "content", "preference": "preference", "pdr": "pdr", "base": "qin/base"}.items():
        length = json.loads((reported / place / "length.json").read_text())
        cut = f", cut from {length['epochs']:g} by {model}.optim.max_steps" if length["cut"] else ";"
        assert f"{model} {length['passes']:.3g} in {length['steps']} steps{cut}" in said.replace(".</p>", ";")
    assert "by content.optim.max_steps" in said


def test_what_is_missing_says_which_command_makes_it(parsed):
    for section, command in {
        "abtest": "pr2 abtest --workdir DIR",
        "frontier": "pr2 evaluate --workdir DIR --sweep qrcf",
        "ablations": "pr2 evaluate --workdir DIR --ablations configs/ablations.py --seeds 3",
    }.items():
        assert f"Not made yet. {command} makes it." in " ".join(parsed.said[section].split())


def test_numbers_are_those_of_the_evaluation(page, parsed, metrics, reported):
    """In the page to four digits, in the CSV files to the last."""
    text = " ".join(parsed.said["results"].split())
    table = {row["ranking"]: row for name in ("retrieval", "slates") for row in _csv(reported, name)}
    assert table.keys() == {name.removesuffix(".run") for name in metrics["rows"]}
    for name, row in metrics["rows"].items():
        for metric, value in row.items():
            line = table[name.removesuffix(".run")]
            if not isinstance(value, dict):
                assert line[metric] == ("" if value is None else repr(value))
                continue
            found = [line[metric], line[f"{metric} low"], line[f"{metric} high"]]
            assert found == ["" if value[part] is None else repr(value[part]) for part in ("mean", "low", "high")]
            if value["mean"] is not None:
                assert f"{value['mean']:.4f} ±{(value['high'] - value['low']) / 2:.4f}" in text
    value = metrics["differences"]["pipeline.pr2 - pipeline.base"]["ndcg@10"]
    opening = parsed.said[""]
    assert f"{value['mean']:+.4f}" in opening
    assert f"[{value['low']:+.4f}, {value['high']:+.4f}]" in opening
    verdict = "PR² is better" if value["low"] > 0 else "PR² is worse" if value["high"] < 0 else "no difference can"
    assert verdict in opening


def test_wins_and_losses_are_counted_search_by_search(work):
    ours, base = (work.values[f"pipeline.{name}"]["ndcg@10"] for name in ("pr2", "base"))
    better = sum(a > b for a, b in zip(ours, base, strict=True))
    worse = sum(a < b for a, b in zip(ours, base, strict=True))
    shares = results_section.headline(work)["wins"]
    assert shares == pytest.approx([better / len(ours), 1 - (better + worse) / len(ours), worse / len(ours)])


def test_channels_find_alone_what_the_evaluation_says(work, reported):
    """Two ways to the same: from run files here, from the rankings themselves there."""
    rows = {row["channel"]: row for row in _csv(reported, "channel_overlap")}
    for name, row in rows.items():
        values = work.values[f"retrieval.{name}"]
        assert float(row["alone"]) == pytest.approx(np.mean(values["unique@100"]))
        assert float(row["found"]) == pytest.approx(np.mean(values["recall@100"]))
        assert float(row["found"]) == pytest.approx(float(row["alone"]) + float(row["shared"]))
        assert float(row[f"with {name}"]) == float(row["found"])
    sets = _csv(reported, "channel_sets_table")
    assert sum(float(row["share"]) for row in sets) == pytest.approx(1)
    mine = sum(float(row["share"]) for row in sets if row["qrcf"] == "yes")
    assert mine == pytest.approx(float(rows["qrcf"]["found"]))
    assert overlap_section.DEPTH == 100


def test_days_and_queries_are_counted(work, reported):
    store = work.store
    for name, times in (
        ("searches", store.sessions.time_ms),
        ("feed_views", store.events.time_ms[store.events.surface == 0]),
    ):
        rows = _csv(reported, name)
        assert sum(float(row["y"]) for row in rows) == len(times)
        test_day = sum(store.cuts.test_ms <= t for t in times.tolist())
        assert [float(row["y"]) for row in rows if row["series"] == "test"] == [test_day]
    counts = np.sort(np.bincount(store.sessions.query)[1:])[::-1]
    curve = {float(row["x"]): float(row["y"]) for row in _csv(reported, "query_frequency")}
    assert all(curve[rank] == counts[int(rank) - 1] for rank in curve)
    share = _csv(reported, "query_share")[-1]
    assert float(share["y"]) == pytest.approx(1)


def test_slices_that_can_tell_are_counted(work, metrics):
    found = [one for cut in metrics["slices"].values() for one in cut["slices"]]
    values = [one["measures"]["pipeline ndcg@10"]["difference"] for one in found]
    known = [value for value in values if value["low"] is not None]
    better = sum(value["low"] > 0 for value in known)
    said = slices_section.section(work).finding
    assert f"in {better} of {len(known)} slices" in said
    assert ("lower in none" in said) == (not any(value["high"] < 0 for value in known))


def test_examples_follow_the_rule_and_stay_text(page, work, reported):
    chosen = examples_section.choose(work)
    assert 0 < len(chosen) <= examples_section.COUNT
    assert set(chosen) <= set(work.test_sessions())
    for column in (work.store.sessions.user, work.store.sessions.query):
        assert len(set(column[chosen].tolist())) == len(chosen)
    rows = _csv(reported, "examples")
    assert {int(row["search"]) for row in rows} == set(range(1, len(chosen) + 1))
    assert any(row["because"] for row in rows if row["system"] == "pr2")
    assert not any(row["because"] for row in rows if row["system"] == "base")
    assert "<img" not in page
    assert page.count("&lt;img/src=x/onerror=alert(") > len(rows), "every caption, as text"
    assert html.escape(rows[0]["query"]) in page.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")


def test_page_is_self_contained_and_accessible(page, parsed):
    assert len(page.encode()) < 5_000_000
    assert not [tag for tag, _ in parsed.elements if tag in ("script", "iframe", "object", "img")]
    for _, attrs in parsed.elements:
        assert not [name for name in attrs if name.startswith("on")]
        assert not re.search(r"https?:|//", attrs.get("href") or attrs.get("src") or "")
    assert "url(" not in page
    assert "@import" not in page
    assert ("html", {"lang": "en"}) in parsed.elements
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in parsed.elements:
        if tag == "svg":
            assert attrs.get("aria-hidden") or set(attrs["aria-labelledby"].split()) <= set(ids)
        if tag == "th":
            assert attrs["scope"] in ("row", "col", "rowgroup")
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("caption") == tags.count("table") > 10
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_is_linked_lies_beside_the_page_and_the_other_way_round(parsed, reported):
    links = [attrs["href"] for tag, attrs in parsed.elements if tag == "a" and not attrs["href"].startswith("#")]
    linked = set(links)
    assert len(links) == len(linked), "a file of its own for each"
    out = reported / "report"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == linked | {"report.html", "manifest.json"}
    for name in linked:
        if name.endswith(".csv"):
            with (out / name).open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            assert len(set(header)) == len(header)
            assert {len(row) for row in rows} <= {len(header)}
        else:
            assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_manifest_names_what_was_read(reported, work):
    manifest = json.loads((reported / "report" / "manifest.json").read_text())
    assert manifest["schema"] == build_report.SCHEMA
    assert {"eval/metrics.json", "eval/sessions.npz", "eval/retrieval.pdr.run", "qin/qin/curve.jsonl"} <= set(
        manifest["made_from"]
    )
    assert manifest["fingerprint"]["inputs"].keys() >= {"store", "eval", "qin"}


def test_the_same_work_directory_gives_the_same_bytes(reported, page, tmp_path, work, monkeypatch):
    """All but the searches, whose engine is tested in tests/search, and a few of the pictures, which take time."""
    monkeypatch.setattr(
        build_report, "SECTIONS", [one for one in build_report.SECTIONS if one[-1] is not examples_section.section]
    )
    draw = build_report.png
    monkeypatch.setattr(
        build_report,
        "png",
        lambda shown, path: draw(shown, path) if "_qin" in path.name or "wins" in path.name else None,
    )
    build_report.write_page(work, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != build_report.PAGE]
    assert len(files) > 40
    for path in files:
        assert path.read_bytes() == (reported / "report" / path.relative_to(tmp_path)).read_bytes(), path.name
    head, *sections = (tmp_path / build_report.PAGE).read_text(encoding="utf-8").split("<section id=")
    assert len(sections) == len(build_report.SECTIONS)
    assert all(section in page for section in sections)
    assert head.partition("</style>")[0] in page


def test_what_cannot_be_reported_is_one_line(capsys, finished, tmp_path):
    def said(place) -> str:
        assert entry.main(["report", "--workdir", str(place)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("pr2: error: ")
        assert error.count("\n") == 1
        return error

    assert "is not a work directory" in said(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    place = tmp_path / "half"
    place.mkdir()
    (place / "manifest.json").write_text("{}")
    assert "is a finished artifact, expected a work directory" in said(place)
    (place / "manifest.json").unlink()
    shutil.copy(finished / "config.json", place)
    assert "make it with `pr2 evaluate`" in said(place)
    assert not (place / "report").exists()


def test_foreign_files_are_not_replaced(reported, tmp_path, capsys):
    place = shutil.copytree(reported, tmp_path / "w")
    (place / "report" / "manifest.json").unlink()
    assert entry.main(["report", "--workdir", str(place)]) == 2
    assert "exists and was not made by pr2" in capsys.readouterr().err
    assert Work(place, None).path("report/report.html") is not None
