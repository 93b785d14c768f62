"""The workload runs, says what it is, and its counts do not grow with the table."""

from __future__ import annotations

import json

import pytest

from pr2_jax.bench import harness, table_workload
from pr2_jax.cli import entry
from pr2_jax.training.mesh import make_mesh, single


@pytest.mark.parametrize("name", table_workload.TABLE_OPTIMIZERS)
def test_every_variant_is_measured(name, monkeypatch):
    monkeypatch.setattr(table_workload, "BATCH", 4)
    monkeypatch.setattr(table_workload, "HISTORY", 5)
    small, large = (table_workload.measure(name, size, 3, single()) for size in (2_000, 20_000))
    assert small.rows == large.rows == 20
    assert len(small.seconds) == 3
    assert 0 < min(small.seconds) <= small.step_s <= max(small.seconds)
    assert small.must_bytes == pytest.approx(large.must_bytes, rel=0.05)
    assert small.must_bytes >= 4 * 4 * 20 * 32
    assert small.peak_bytes > 0


def test_on_a_mesh(monkeypatch):
    monkeypatch.setattr(table_workload, "BATCH", 8)
    assert table_workload.measure("row_adagrad", 2_048, 2, make_mesh(4, 2)).step_s > 0


def test_states_are_handed_on_and_inputs_taken_in_turn():
    seen = []

    def step(state, value):
        seen.append((state, value))
        return state + 1

    compile_s, seconds, last = harness.time_steps(step, 0, ["a", "b"], repeats=4)
    assert [state for state, _ in seen] == list(range(7))
    assert [value for _, value in seen] == ["a", "b", "a", "b", "a", "b", "a"]
    assert len(seconds) == 4
    assert last == 7
    assert compile_s >= 0


def test_the_command_prints_lines_or_json(monkeypatch, capsys):
    monkeypatch.setattr(table_workload, "BATCH", 2)
    monkeypatch.setattr(table_workload, "SIZES", (600,))
    assert entry.main(["bench", "tables", "--repeats", "2", "--json"]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [m["variant"] for m in made] == list(table_workload.TABLE_OPTIMIZERS)
    assert all(m["size"] == {"V": 600, "ids": 200} and m["rows_per_s"] > 0 for m in made)
    assert entry.main(["bench", "tables", "--repeats", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(table_workload.TABLE_OPTIMIZERS)
    assert all("GB/s" in line and "V=600" in line for line in lines)
