"""Run files: what is written reads back exactly, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pr2_jax.errors import BadInput
from pr2_jax.evaluation import runs


def test_scores_read_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    session = np.array([2**40, 7, 9])
    video = rng.permuted(np.tile(np.arange(1, 51), (3, 1)), axis=1).astype(np.int64) + 2**33
    score = (rng.normal(size=(3, 50)) * 10.0 ** rng.integers(-30, 30, (3, 50))).astype(np.float32)
    score[:, 10:20] = score[:, :10]
    assert runs.write_run(tmp_path / "a.run", session, video, score, "a") == 150
    padded = runs.pad_run(runs.read_run(tmp_path / "a.run"), session)
    order = np.argsort(-score, axis=1, kind="stable")
    np.testing.assert_array_equal(padded.score_SxK.astype(np.float32), np.take_along_axis(score, order, 1))
    np.testing.assert_array_equal(padded.video_SxK, np.take_along_axis(video, order, 1))


def test_the_file_as_others_read_it(tmp_path: Path) -> None:
    video = np.array([[5, -1, 3], [-1, -1, -1]])
    score = np.array([[0.25, -np.inf, 1.5], [-np.inf] * 3], np.float32)
    runs.write_run(tmp_path / "a.run", np.array([11, 12]), video, score, "pr2")
    lines = (tmp_path / "a.run").read_text().splitlines()
    assert [line.split() for line in lines] == [
        ["11", "Q0", "3", "1", "1.5", "pr2"],
        ["11", "Q0", "5", "2", "0.25", "pr2"],
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_sessions_that_the_run_lacks_are_padding(tmp_path: Path) -> None:
    runs.write_run(tmp_path / "a.run", np.array([4]), np.array([[8]]), np.array([[1.0]]), "a")
    padded = runs.pad_run(runs.read_run(tmp_path / "a.run"), np.array([9, 4, 1]))
    assert padded.video_SxK.tolist() == [[-1], [8], [-1]]
    assert padded.score_SxK.tolist() == [[-np.inf], [1.0], [-np.inf]]


def test_nothing_written_where_a_score_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="session 4 has a result whose score is not finite"):
        runs.write_run(tmp_path / "a.run", np.array([4]), np.array([[8]]), np.array([[np.nan]]), "a")
    with pytest.raises(ValueError, match="one word expected"):
        runs.write_run(tmp_path / "a.run", np.array([4]), np.array([[8]]), np.array([[1.0]]), "a b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Q0 2 1 0.5 a\n1 Q0 3 2 0.4\n", "line 2: 5 fields"),
        ("1 Q0 2 1 0.5 a\n\n1 Q0 3 2 0.4 a\n", "line 2: 0 fields"),
        ("1 Q0 x 1 0.5 a\n", "line 1: video is 'x', expected an integer"),
        ("1 Q0 2 1 high a\n", "line 1: score is 'high', expected a number"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.run").write_text(text)
    with pytest.raises(BadInput, match=message):
        runs.read_run(tmp_path / "a.run")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not found"):
        runs.read_run(tmp_path / "a.run")
    assert runs.write_run(tmp_path / "b.run", np.array([4]), np.array([[-1]]), np.array([[0.0]]), "b") == 0
    assert len(runs.read_run(tmp_path / "b.run").session_R) == 0
