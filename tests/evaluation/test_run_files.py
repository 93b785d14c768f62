"""Run files: what is written reads back exactly, in any reader's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pr2_jax.evaluation import run_files


def test_scores_read_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    session = np.array([2**40, 7, 9])
    video = rng.permuted(np.tile(np.arange(1, 51), (3, 1)), axis=1).astype(np.int64) + 2**33
    score = (rng.normal(size=(3, 50)) * 10.0 ** rng.integers(-30, 30, (3, 50))).astype(np.float32)
    score[:, 10:20] = score[:, :10]
    assert run_files.write_run(tmp_path / "a.run", session, video, score, "a") == 150
    fields = [line.split() for line in (tmp_path / "a.run").read_text().splitlines()]
    order = np.argsort(-score, axis=1, kind="stable")
    assert [int(row[0]) for row in fields] == np.repeat(session, 50).tolist()
    assert [int(row[2]) for row in fields] == np.take_along_axis(video, order, 1).ravel().tolist()
    read = np.array([float(row[4]) for row in fields]).astype(np.float32)
    np.testing.assert_array_equal(read, np.take_along_axis(score, order, 1).ravel())


def test_the_file_as_others_read_it(tmp_path: Path) -> None:
    video = np.array([[5, -1, 3], [-1, -1, -1]])
    score = np.array([[0.25, -np.inf, 1.5], [-np.inf] * 3], np.float32)
    run_files.write_run(tmp_path / "a.run", np.array([11, 12]), video, score, "pr2")
    lines = (tmp_path / "a.run").read_text().splitlines()
    assert [line.split() for line in lines] == [
        ["11", "Q0", "3", "1", "1.5", "pr2"],
        ["11", "Q0", "5", "2", "0.25", "pr2"],
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_written_where_a_score_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="session 4 has a result whose score is not finite"):
        run_files.write_run(tmp_path / "a.run", np.array([4]), np.array([[8]]), np.array([[np.nan]]), "a")
    with pytest.raises(ValueError, match="one word expected"):
        run_files.write_run(tmp_path / "a.run", np.array([4]), np.array([[8]]), np.array([[1.0]]), "a b")
    assert not list(tmp_path.iterdir())


def test_no_result_is_an_empty_file(tmp_path: Path) -> None:
    assert run_files.write_run(tmp_path / "b.run", np.array([4]), np.array([[-1]]), np.array([[0.0]]), "b") == 0
    assert (tmp_path / "b.run").read_text() == ""
