"""TREC run files: `qid Q0 docid rank score tag`, one result a line, raw ids, scores as exact float32.

A float32 is written in the fewest digits that read back as the same float32, so that ties and order in the file are
those of the array, whoever reads it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import NamedTuple

import numpy as np
import polars as pl

from pr2_jax.errors import BadInput
from pr2_jax.types import NO_VIDEO

COLUMNS = ("session", "q0", "video", "rank", "score", "tag")


class RunFile(NamedTuple):
    """A run as flat columns, in file order."""

    session_R: np.ndarray  # int64 raw session ids
    video_R: np.ndarray  # int64 raw video ids
    score_R: np.ndarray  # float64, as written


@dataclasses.dataclass(frozen=True)
class PaddedRun:
    """A run as one row a session, in the order of the sessions asked for."""

    video_SxK: np.ndarray  # int64 raw ids, -1 = padding
    score_SxK: np.ndarray  # float64, -inf = padding


def write_run(
    path: os.PathLike | str, session_S: np.ndarray, video_SxK: np.ndarray, score_SxK: np.ndarray, tag: str
) -> int:
    """Writes one run, best first within a session, whole or not at all; returns the number of lines.

    `video_SxK` holds raw ids; results with id -1 are skipped. Raises ValueError on a score that is not finite.
    """
    path = pathlib.Path(path)
    if not tag or any(c.isspace() for c in tag):
        raise ValueError(f"run tag {tag!r}: one word expected")
    score_SxK = np.asarray(score_SxK, np.float32)
    order_SxK = np.argsort(np.where(video_SxK != NO_VIDEO, -score_SxK, np.inf), axis=1, kind="stable")
    video_SxK = np.take_along_axis(np.asarray(video_SxK, np.int64), order_SxK, 1)
    score_SxK = np.take_along_axis(score_SxK, order_SxK, 1)
    row, column = np.nonzero(video_SxK != NO_VIDEO)
    score = score_SxK[row, column]
    if not np.isfinite(score).all():
        at = row[~np.isfinite(score)][0]
        raise ValueError(f"{path.name}: session {session_S[at]} has a result whose score is not finite")
    # Ranks count the results kept: padding may stand anywhere.
    kept_S = np.bincount(row, minlength=len(video_SxK))
    rank = np.arange(len(row)) - np.repeat(np.r_[0, np.cumsum(kept_S)[:-1]], kept_S) + 1
    frame = pl.DataFrame(
        {
            "session": np.asarray(session_S, np.int64)[row],
            "q0": pl.Series(["Q0"]).new_from_index(0, len(row)),
            "video": video_SxK[row, column],
            "rank": rank.astype(np.int64),
            "score": score,
            "tag": pl.Series([tag]).new_from_index(0, len(row)),
        }
    )
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(partial, include_header=False, separator=" ", quote_style="never")
    os.replace(partial, path)
    return len(row)


def read_run(path: os.PathLike | str) -> RunFile:
    """Reads a run file with integer ids. Raises BadInput naming the line that is no run line."""
    path = pathlib.Path(path)
    if not path.exists():
        raise BadInput(f"{path}: not found")
    if path.stat().st_size == 0:
        return RunFile(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    lines = pl.read_csv(
        path, has_header=False, separator="\n", quote_char=None, new_columns=["line"], schema_overrides=[pl.String]
    )["line"]
    fields = lines.fill_null("").str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ")
    wrong = np.flatnonzero(fields.list.len().to_numpy() != len(COLUMNS))
    if len(wrong):
        found = 0 if not lines[int(wrong[0])] else len(fields[int(wrong[0])])
        raise BadInput(f"{path}: line {wrong[0] + 1}: {found} fields, expected `qid Q0 docid rank score tag`")
    columns = {}
    wanted = (("session", pl.Int64, "an integer"), ("video", pl.Int64, "an integer"), ("score", pl.Float64, "a number"))
    for name, dtype, expected in wanted:
        text = fields.list.get(COLUMNS.index(name))
        columns[name] = text.cast(dtype, strict=False)
        if columns[name].null_count():
            at = int(columns[name].is_null().arg_max())
            raise BadInput(f"{path}: line {at + 1}: {name} is {text[at]!r}, expected {expected}")
    return RunFile(*(columns[name].to_numpy() for name in ("session", "video", "score")))


def pad_run(run: RunFile, session_S: np.ndarray) -> PaddedRun:
    """One row for each of `session_S` (all -1 where the run lacks it), results in file order."""
    session_S = np.asarray(session_S, np.int64)
    by_id = np.argsort(session_S, kind="stable")
    at = np.minimum(np.searchsorted(session_S[by_id], run.session_R), max(len(session_S) - 1, 0))
    known = session_S[by_id][at] == run.session_R if len(session_S) else np.zeros(len(run.session_R), bool)
    row = by_id[at[known]] if len(session_S) else np.zeros(0, np.int64)
    order = np.argsort(row, kind="stable")
    row, video, score = row[order], run.video_R[known][order], run.score_R[known][order]
    count_S = np.bincount(row, minlength=len(session_S))
    column = np.arange(len(row)) - np.repeat(np.r_[0, np.cumsum(count_S)[:-1]], count_S) if len(row) else row
    video_SxK = np.full((len(session_S), int(count_S.max(initial=0))), NO_VIDEO, np.int64)
    score_SxK = np.full(video_SxK.shape, -np.inf)
    video_SxK[row, column], score_SxK[row, column] = video, score
    return PaddedRun(video_SxK, score_SxK)
