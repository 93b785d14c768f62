"""TREC run files: `qid Q0 docid rank score tag`, one result a line, raw ids, scores as exact float32.

A score has the fewest digits that read back as the same float32, so that ties and order in the file are those of the
array.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pr2_jax.data.history.histories import place_in_run
from pr2_jax.types import NO_VIDEO


def write_run(path: Path, session_S: np.ndarray, video_SxK: np.ndarray, score_SxK: np.ndarray, tag: str) -> int:
    """Writes one run, best first within a session, whole or not at all; returns the number of lines.

    `session_S` names the sessions, `video_SxK` holds raw ids; results with id -1 are skipped. Raises ValueError on a
    score that is not finite.
    """
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
    frame = pl.DataFrame(
        {
            "session": np.asarray(session_S).astype(str)[row],
            "q0": pl.Series(["Q0"]).new_from_index(0, len(row)),
            "video": video_SxK[row, column],
            "rank": place_in_run(row) + 1,  # of the results kept: padding may stand anywhere
            "score": score,
            "tag": pl.Series([tag]).new_from_index(0, len(row)),
        }
    )
    partial = path.with_name(path.name + ".partial")
    frame.write_csv(partial, include_header=False, separator=" ", quote_style="never")
    partial.replace(path)
    return len(row)
