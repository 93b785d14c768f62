"""The picture: written whole, the same bytes each time, and labels that do not stand on each other."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from pr2_jax.studies import frontier_plot
from pr2_jax.studies.frontier_plot import Axis, Family, Spot, draw

AXES = (Axis("seeds", "seeds", log=True), Axis("coverage", "coverage"), Axis("entropy", "entropy"))


def _spot(n: int, label: str = "") -> Spot:
    """Crowded: the first six lie within a few pixels of each other."""
    near = 0.001 * n if n < 6 else n / 10
    return Spot({"recall": 0.3 + near, "seeds": 10 + near, "coverage": 0.9 + near, "entropy": float("nan")}, label)


FAMILIES = [
    Family("one", [_spot(n, f"0.{n}") for n in range(10)], [_spot(3)], "one, others"),
    Family("two", [_spot(n, f"0.9{n}") for n in range(0, 10, 2)]),
]


def test_a_png_of_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, "title", FAMILIES, ("marked", _spot(1)), "recall", AXES)
    one, other = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert one.startswith(b"\x89PNG")
    assert len(one) > 10_000
    assert one == other


def test_labels_keep_apart(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    texts = []
    real = Axes.annotate
    monkeypatch.setattr(
        Axes, "annotate", lambda panel, *a, **k: texts.append((panel, real(panel, *a, **k))) or texts[-1][1]
    )
    boxes = []
    save = Figure.savefig

    def measured(figure, *arguments, **named):
        boxes.extend((panel, text.get_window_extent()) for panel, text in texts)
        return save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", measured)
    draw(tmp_path / "a.png", "title", FAMILIES, ("marked", _spot(1)), "recall", AXES)
    assert len(boxes) > 12
    for (panel, one), (other_panel, other) in itertools.combinations(boxes, 2):
        assert panel is not other_panel or not one.shrunk(0.9, 0.8).overlaps(other.shrunk(0.9, 0.8))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_panels(tmp_path, count):
    draw(tmp_path / "a.png", "title", FAMILIES, ("marked", _spot(1)), "recall", (AXES * 2)[:count])
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_matplotlib_is_imported_by_pictures_alone(repository):
    source = (
        "import sys; from pr2_jax import pipeline; from pr2_jax.cli import entry; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout == "False\n"
    assert "matplotlib" not in vars(frontier_plot)
