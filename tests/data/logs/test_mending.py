"""Only a line whose cells are not in doubt is mended."""

from __future__ import annotations

import csv
import random

import pytest

from pr2_jax.data.logs.scanning import mended

LINES = [
    (b'1,2,x"y', {0, 1}, b"1,2,"),
    (b'1,"a, b"x"y,3', {0, 2}, b"1,,3"),
    (b'1,"a ""b"" c",x"y"z', {0, 1}, b'1,"a ""b"" c",'),
    (b'1,x"y,3', {0, 1}, None),  # the cell is read
    (b'1,x"y', {0}, None),  # two cells
    (b'1,2,"never', {0, 1}, None),  # where it ends stands in another line
    (b'"1"2,3,4', {1, 2}, b",3,4"),
]


@pytest.mark.parametrize(("line", "read", "wanted"), LINES)
def test_lines(line, read, wanted):
    assert mended(line, 3, read) == wanted


def test_cells_are_those_of_the_csv_module():
    rng, tried = random.Random(0), 0
    for _ in range(3000):
        line = "".join(rng.choice('ab,"') for _ in range(rng.randint(3, 14)))
        found = mended(line.encode(), 3, {0})
        if found is None:
            continue
        tried += 1
        there, mended_cells = next(csv.reader([line])), next(csv.reader([found.decode()]))
        assert len(there) == len(mended_cells) == 3
        assert mended_cells[0] == there[0]
        assert all(mine in (his, "") for mine, his in zip(mended_cells, there, strict=True))
    assert tried > 100
