"""Overlap of retrieval channels: clicked videos found by each alone and with others, from run files."""

from __future__ import annotations

import numpy as np
import polars as pl

from pr2_jax import artifacts
from pr2_jax.config.schema import CHANNELS
from pr2_jax.data.batches.sessions import impressions_of, session_names
from pr2_jax.data.history.histories import found_before
from pr2_jax.drawing.charts import Row, Rows
from pr2_jax.evaluation.judged_day import Refinding
from pr2_jax.evaluation.rankings import UNIQUE_DEPTH as DEPTH
from pr2_jax.report.blocks import Charts, Section, Table
from pr2_jax.report.workdir_reader import Work

WHAT = {"bm25": "words", "dr": "content vectors", "qrcf": "past views that fit the query", "pdr": "dual encoder"}


def section(work: Work) -> Section:
    """Each clicked video weighs one over the number clicked in its search, as in recall."""
    names = [name for name in CHANNELS if work.path(f"eval/retrieval.{name}.run")]
    weight_P, found_PxC = found_by(work, names)
    if not names or not len(weight_P):
        return Section(missing="pr2 evaluate --workdir DIR")
    total = float(weight_P.sum())
    alone_P = found_PxC.sum(1) == 1
    rows, lines = [], []
    for place, name in enumerate(names):
        mine_P = found_PxC[:, place]
        recall, alone = (float(weight_P[keep].sum()) / total for keep in (mine_P, mine_P & alone_P))
        shares = (alone, recall - alone)
        text = " + ".join(f"{share:.1%}" for share in shares)
        label = f"{name}: {WHAT[name]}" if name in WHAT else name
        rows.append(Row(label, parts=shares, text=text))
        pairs = [float(weight_P[mine_P & found_PxC[:, other]].sum()) / total for other in range(len(names))]
        lines.append([name, recall, alone, recall - alone, *pairs])
    about = (
        f"Of the videos that people clicked: the share that a channel has among its best {DEPTH} and no other channel "
        "has, and the share that others have too."
    )
    title_of_bars, axis = f"Clicked videos found, best {DEPTH} of each channel", "share of clicked videos"
    both = ("found alone", "found by others too")
    bars = Rows("channel_shares", title_of_bars, about, axis, rows, part_names=both, percent=True)
    percents = ("found", "alone", "shared", *(f"with {name}" for name in names))
    columns = {"channel": "text"} | dict.fromkeys(percents, "percent")
    sets, sets_table = _sets(names, weight_P / total, found_PxC)
    best = max(lines, key=lambda line: line[2])
    every = float(weight_P[found_PxC.any(1)].sum()) / total
    before = Refinding(**work.metrics["found_before"])
    return Section(
        f"{best[0]} finds the most that no other channel finds ({best[2]:.1%} of clicked videos); together they find "
        f"{every:.1%}.",
        f"Of the videos clicked on the test day, within the best {DEPTH} of each channel. Each search weighs the same, "
        f"so that “found” is the channel's recall in the table above. {before.note}",
        [
            Charts([bars, sets]),
            Table("channel_overlap", "Clicked videos found by each channel, alone and with each other", columns, lines),
            sets_table,
        ],
    )


def found_by(work: Work, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the P clicked videos of the test day, and which channel has each within `DEPTH`, bool [P, C]."""
    store = work.store
    rows = work.test_sessions()
    shown, owner = impressions_of(store, rows)
    hit = np.asarray(store.impressions.clicks)[shown] > 0
    if work.metrics.get("found_before", {}).get("withheld"):  # no channel may find these
        hit &= ~found_before(store)[shown]
    pairs = np.unique(np.stack([rows[owner[hit]], np.asarray(store.impressions.video)[shown[hit]]], 1), axis=0)
    _, place_P, clicked_S = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    raw_session_P = session_names(store)[pairs[:, 0]]
    raw_video_P = np.asarray(store.videos.raw_id)[pairs[:, 1]]
    clicked = pl.DataFrame({"session": raw_session_P, "video": raw_video_P})
    ranks = [clicked.join(_best(work, name), on=["session", "video"], how="left")["rank"] for name in names]
    found_CxP = np.array([rank.is_not_null() for rank in ranks], bool).reshape(len(names), len(pairs))
    return 1.0 / clicked_S[place_P], found_CxP.T


def _best(work: Work, name: str) -> pl.DataFrame:
    """Session, video and rank of a run file's best results; an empty file has none."""
    path = work.path(f"eval/retrieval.{name}.run")
    schema = {"session": pl.String, "q0": pl.String, "video": pl.Int64, "rank": pl.Int64, "score": pl.Float64}
    schema |= {"tag": pl.String}
    with artifacts.reading(path.parent):
        lines = pl.scan_csv(path, has_header=False, separator=" ", schema=schema, raise_if_empty=False)
        kept = lines.filter(pl.col("rank") <= DEPTH).select("session", "video", "rank")
        return kept.unique(["session", "video"], keep="first", maintain_order=True).collect()


def _sets(names: list[str], share_P: np.ndarray, found_PxC: np.ndarray) -> tuple[Rows, Table]:
    """Shares of clicked videos by exactly which channels found them, the most frequent combination first."""
    share = np.bincount(found_PxC @ (1 << np.arange(len(names))), share_P, 1 << len(names))
    lines = []
    for code in np.argsort(-share, kind="stable").tolist():
        which = [bool(code >> place & 1) for place in range(len(names))]
        said = " + ".join(name for name, has in zip(names, which, strict=True) if has) or "none"
        lines.append([said, *("yes" if has else "no" for has in which), float(share[code])])
    rows = [
        Row("none of them" if said == "none" else said, parts=(each,), text=f"{each:.1%}")
        for said, *_, each in lines
        if each > 0
    ]
    about = "Share of clicked videos by exactly which channels found them, the most frequent combination first."
    columns = dict.fromkeys(("exactly these", *names), "text") | {"share": "percent"}
    return (
        Rows("channel_sets", "Found by exactly these", about, "share of clicked videos", rows,
             part_names=("found by exactly these",), percent=True),
        Table("channel_sets_table", "Clicked videos by exactly which channels found them", columns, lines, folded=True),
    )  # fmt: skip
