"""Axes, drawings and cells of the report, by hand and by property."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from pr2_jax.drawing import charts, layout, painters
from pr2_jax.drawing.charts import BETTER, PLAIN, UNSURE, WORSE, Plot, Row, Rows, Series, tone_of
from pr2_jax.drawing.layout import Axis, short, span, ticks
from pr2_jax.drawing.painters import png, svg
from pr2_jax.metrics.bootstrap import Interval
from pr2_jax.report import blocks
from pr2_jax.report.blocks import Table, text_of
from pr2_jax.report.build_report import TEMPLATES, ago, clipped

NAN = math.nan


@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_round_few_and_inside(rng, log):
    for _ in range(300):
        low = float(10 ** rng.uniform(-4, 5))
        high = low * float(10 ** rng.uniform(0.01, 4))
        low, high = span([low, high], log)
        found = ticks(low, high, 5, log)
        assert found == sorted(found)
        assert len(found) <= 7
        assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in found)
        if not log:
            steps = {f"{step:.2e}"[:4].rstrip("0").rstrip(".") for step in np.diff(found)}
            assert steps in ({"1"}, {"2"}, {"2.5"}, {"5"})


def test_ticks_by_hand():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.04, 0.011, 5) == [-0.04, -0.02, 0]
    assert ticks(1, 1000, 5, log=True) == [1, 10, 100, 1000]
    assert ticks(2, 30, 5, log=True) == [2, 5, 10, 20]
    assert [short(v) for v in (0.0, 0.25, 1234, 12_000, 3.4e6)] == ["0", "0.25", "1.234k", "12k", "3.4M"]
    assert short(0.125, percent=True) == "12.5%"


def test_spans_hold_every_number_and_are_never_empty():
    assert span([]) != span([], log=True)
    for values in ([3.0], [0.0], [-2.0, -2.0], [NAN, 5.0], [1e-9, 1e9]):
        low, high = span(values)
        assert low < high
        assert all(low <= v <= high for v in values if math.isfinite(v))
    assert span([2.0, 4.0], from_zero=True)[0] == 0
    assert span([0.0, -1.0, 10.0, 20.0], log=True)[0] == pytest.approx(10 / 1.15), "what has no logarithm is no end"


def test_axes_map_ends_to_ends():
    for log in (False, True):
        axis = Axis(1, 100, 200, 20, log)
        assert [axis.at(v) for v in (1, 100)] == pytest.approx([200, 20])
    assert Axis(1, 100, 0, 10, True).at(10) == pytest.approx(5)
    assert Axis(1, 100, 0, 10, True).at(0) == 0


def test_tones_follow_the_whole_interval():
    above, below, across = Interval(1, 0.5, 2, 9), Interval(-1, -2, -0.5, 9), Interval(1, -1, 3, 9)
    assert [tone_of(v) for v in (above, below, across)] == [BETTER, WORSE, UNSURE]
    assert [tone_of(v, -1) for v in (above, below, across)] == [WORSE, BETTER, UNSURE]
    assert tone_of(above, 0) == PLAIN
    assert tone_of(Interval(1, NAN, NAN, 3)) == UNSURE


@pytest.fixture
def plot() -> Plot:
    curve = Series("a <b> & c", [1, 2, 3, 4], [1.0, NAN, 3.0, 4.0], [0.5, NAN, 2, 3], [2, NAN, 4, 5], marks=True)
    return Plot("slug", "Title <i>", 'about "it"', "x", "y", [curve, Series("d", [1, 4], [2.0, 2.0])], level=2.0)


@pytest.fixture
def rows() -> Rows:
    lines = [
        Row("one", Interval(0.5, 0.25, 0.75, 4), BETTER, group="g"),
        Row("two", Interval(-1, NAN, NAN, 2), group="g"),
    ]
    return Rows("r", "Rows", "about", "difference", lines, zero=True)


def _drawn(chart) -> ElementTree.Element:
    return ElementTree.fromstring(svg(chart))


def test_drawings_are_well_formed_named_and_inside(plot, rows):
    bars = Plot("b", "t", "a", "x", "y", [Series("n", [0, 1], [5.0, 10.0])], bars=[(0, "mon"), (1, "tue")])
    empty = [Plot("e", "t", "a", "x", "y", []), Rows("f", "t", "a", "x", [])]
    for chart in (plot, rows, bars, *empty):
        tree = _drawn(chart)
        title, about = tree[0], tree[1]
        assert (title.text, about.text) == (chart.title, chart.about)
        assert tree.attrib["aria-labelledby"].split() == [title.attrib["id"], about.attrib["id"]]
        height = float(tree.attrib["viewBox"].split()[3])
        for node in tree.iter():
            assert "fill" not in node.attrib, "colours are the style sheet's"
            assert "style" not in node.attrib
            for x, y in re.findall(r"([-\d.]+),([-\d.]+)", node.attrib.get("points", "")):
                assert -1 <= float(x) <= layout.WIDTH + 1
                assert -1 <= float(y) <= height + 1


def test_lines_and_bands_break_where_nothing_is_known(plot):
    found = [node.attrib.get("class") for node in _drawn(plot).iter()]
    assert found.count("band s1") == 2
    assert found.count("line s1") == 2
    assert found.count("line s2") == 1
    assert found.count("mark s1") == 3
    assert found.count("reference") == 1


def test_rows_say_their_numbers_and_lie_by_them(rows):
    tree = _drawn(rows)
    said = [node.text for node in tree.iter() if node.attrib.get("class") == "label end"]
    assert said == ["+0.500 ±0.250", "-1.000, too few people"]
    one, two = [node for node in tree.iter() if node.attrib.get("class", "").startswith("dot")]
    zero = next(node for node in tree.iter() if node.attrib.get("class") == "zero").attrib["points"].split(",")[0]
    assert float(two.attrib["cx"]) < float(zero) < float(one.attrib["cx"])
    assert [node.text for node in tree.iter() if node.attrib.get("class") == "heading"] == ["g"]


def test_stacked_bars_add_up():
    chart = Rows(
        "p", "t", "a", "x", [Row("one", parts=(0.25, 0.5)), Row("two", parts=(0.75, 0.25))], part_names=("u", "v")
    )
    bars = [node.attrib for node in _drawn(chart).iter() if node.attrib.get("class", "").startswith("bar")]
    axis = layout.rows_axis(chart)
    ends = [float(bar["x"]) + float(bar["width"]) for bar in bars]
    assert ends == pytest.approx([axis.at(v) for v in (0.25, 0.75, 0.75, 1.0)], abs=0.2)
    assert layout.legend_of(chart) == [("block p1", "u"), ("block p2", "v")]


def test_labels_keep_off_each_other():
    many = [Series("n", [x / 10 for x in range(20)], [1.0] * 20, marks=True, labels=[f"{x}" for x in range(20)])]
    placed = [
        (float(node.attrib["x"]), float(node.attrib["y"]))
        for node in _drawn(Plot("l", "t", "a", "x", "y", many)).iter()
        if "t1" in node.attrib.get("class", "").split()
    ]
    assert len(placed) > 8
    assert not [1 for n, a in enumerate(placed) for b in placed[:n] if abs(a[0] - b[0]) < 30 and abs(a[1] - b[1]) < 12]


def test_csv_has_what_is_drawn_with_every_digit(plot, rows, tmp_path):
    blocks.write_csv(tmp_path / "a.csv", *charts.numbers_of(plot))
    with (tmp_path / "a.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(one["series"], one["y"], one["low"]) for one in found[:2]] == [
        ("a <b> & c", "1.0", "0.5"),
        ("a <b> & c", "", ""),
    ]
    assert len(found) == 6
    assert charts.numbers_of(rows)[1][0] == ["g", "one", 0.5, 0.25, 0.75]
    value = Interval(1 / 3, 0.1, np.float64(2 / 3), 3)
    table = Table("t", "c", {"name": "text", "m": "metric", "n": "count"}, [["a", value, 3], ["b", None, None]])
    blocks.write_csv(tmp_path / "b.csv", *blocks.numbers_of(table))
    assert (tmp_path / "b.csv").read_text() == f"name,m,m low,m high,n\na,{1 / 3!r},0.1,{2 / 3!r},3\nb,,,,\n"


def test_cells():
    value = Interval(0.12345, 0.1, 0.2, 5)
    assert text_of(value, "metric") == ("0.1235", "±0.0500")
    assert text_of(value, "signed") == ("+0.1235", "[+0.1000, +0.2000]")
    assert text_of(value, "percent") == ("+12.3%", "[+10.0%, +20.0%]")
    assert text_of(Interval(0.5, NAN, NAN, 1), "signed") == ("+0.5000", "")
    for nothing in (None, NAN, Interval(NAN, NAN, NAN, 0)):
        assert text_of(nothing, "metric") == ("–", "")
    assert [text_of(v, "plain")[0] for v in (20_000, 19.0, 12_345.6)] == ["20,000", "19", "12,346"]
    assert [text_of(v, "seconds")[0] for v in (0.0204, 30.94, 95.0)] == ["20.4 ms", "30.9 s", "1.6 min"]
    assert [text_of(v, "chance")[0] for v in (0.0, 0.0312)] == ["< 0.001", "0.031"]
    assert [text_of(v, "bytes")[0] for v in (1500.0, 2.5e6)] == ["1.5 kB", "2.5 MB"]
    assert [ago(v) for v in (0.01, 0.5, 3.2)] == ["14 min ago", "12 h ago", "3 days ago"]
    assert clipped("a b c d e f g") == "a b c d e f …"
    assert clipped("a b") == "a b"


def test_pictures_have_the_same_bytes_each_time(plot, rows, tmp_path):
    for number, shown in enumerate(([plot], [rows], [plot, rows, plot])):
        one, two = (tmp_path / f"{name}{number}.png" for name in ("one", "two"))
        png(shown, one, columns=2)
        png(shown, two, columns=2)
        assert one.read_bytes() == two.read_bytes()
        assert one.read_bytes().startswith(b"\x89PNG")
        assert len(one.read_bytes()) > 5_000
        assert b"matplotlib" not in one.read_bytes().lower()


def test_a_picture_shows_what_the_page_shows(plot, rows, tmp_path, monkeypatch):
    """Every shape of the layout is painted once, those of each chart in a place of its own."""
    painted = []
    monkeypatch.setattr(painters, "_paint", lambda panel, shape, points: painted.append((shape.style, points)))
    png([plot, rows], tmp_path / "a.png", columns=2)
    for chart, left in ((plot, 0), (rows, layout.WIDTH)):
        for shape in layout.shapes(chart)[0]:
            moved = [(x + left, y + painters.TITLE) for x, y in shape.points]
            painted.remove((shape.style, moved))
    legend = layout.legend_of(plot) + layout.legend_of(rows)
    assert len(painted) == 2 + 2 * len(legend), "titles and legends are left"


def test_pictures_have_the_colours_of_the_page_in_light():
    said = dict(re.findall(r"--(\w+): (#\w+);", (TEMPLATES / "style.css").read_text().partition("@media")[0]))
    alike = said.keys() & painters.COLOURS.keys()
    assert {f"s{n}" for n in range(1, 7)} | {"p1", "p2", "p3", "better", "worse"} <= alike
    assert {name: said[name] for name in alike} == {name: painters.COLOURS[name] for name in alike}


def test_matplotlib_is_imported_by_pictures_alone(repository):
    source = (
        "import sys; from pr2_jax import pipeline; from pr2_jax.cli import entry; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout == "False\n"
    assert "matplotlib" not in vars(painters)
