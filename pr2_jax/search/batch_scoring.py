"""`pr2 score`: batch scoring of a file of requests, block by block."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TextIO

import numpy as np
import polars as pl

from pr2_jax import console
from pr2_jax.errors import BadInput
from pr2_jax.search.engine import SearchEngine
from pr2_jax.search.requests_file import RequestBlock, read_requests
from pr2_jax.search.searcher import Ranked

TAG = "pr2"


def score_file(place: Path, requests: Path, out: Path, k: int) -> None:
    """Writes the k best videos of every request to `out`, as `.parquet` or TREC `.run`.

    Memory holds one block. `out` appears whole or not at all. Unknown users and queries without a known word are served
    too, and counted.
    """
    if out.suffix not in (".parquet", ".run"):
        raise BadInput(f"{out}: results are written as .parquet or .run, not {out.suffix or 'a file without ending'}")
    if out.is_dir():
        raise BadInput(f"{out}: is a directory, expected a file to write")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: the directory {out.parent} does not exist")
    engine = SearchEngine.load(place)
    sink = _Parquet(out) if out.suffix == ".parquet" else _Trec(out)
    names = ("requests", "unknown users", "empty queries", "queries without a known word")
    counts, blank, started = dict.fromkeys(names, 0), 0, time.monotonic()
    try:
        with console.Bar("score", None, " requests") as bar:
            for block in read_requests(requests):
                if block.key:
                    sink.write(engine, block, _rank(engine, block, k, counts), k)
                blank += block.blank
                bar.advance(len(block.key))
        sink.close()
    except BaseException:
        sink.abandon()
        raise
    seconds = time.monotonic() - started
    if blank:
        counts["empty rows passed over"] = blank
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    console.log(f"{shown}; {console.rate(counts['requests'], seconds)} requests/s with compilation; results in {out}")


def _rank(engine: SearchEngine, block: RequestBlock, k: int, counts: dict[str, int]) -> Ranked:
    store = engine.system.store
    user_B = np.array([0 if user is None else store.user_row(user) for user in block.user], np.int32)
    rows = [store.word_rows(query) for query in block.query]
    counts["requests"] += len(rows)
    counts["unknown users"] += int((user_B == 0).sum())
    counts["empty queries"] += sum(not len(row) for row in rows)
    counts["queries without a known word"] += sum(len(row) > 0 and not row.any() for row in rows)
    return engine.rank(engine.encode(user_B, rows), k)


class _Trec:
    """Writer of a TREC run: lines `request Q0 video rank score pr2`."""

    def __init__(self, out: Path) -> None:
        self._out, self._partial = out, out.with_name(out.name + ".partial")
        self._file: TextIO = self._partial.open("w", encoding="utf-8")

    def write(self, engine: SearchEngine, block: RequestBlock, ranked: Ranked, k: int) -> None:
        raw = np.asarray(engine.system.store.videos.raw_id)
        for key, ids, scores in zip(block.key, ranked.ids_BxK, ranked.scores_BxK, strict=True):
            real = np.flatnonzero(ids > 0)[:k]
            name = "_".join(key.split()) or "_"
            lines = (f"{name} Q0 {raw[ids[n]]} {place} {scores[n]!s} {TAG}\n" for place, n in enumerate(real, 1))
            self._file.writelines(lines)

    def close(self) -> None:
        self._file.close()
        self._partial.replace(self._out)

    def abandon(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


class _Parquet:
    """Writer of Parquet: a file per block, joined by streaming at the end."""

    def __init__(self, out: Path) -> None:
        self._out, self._parts, self._count = out, out.with_name(out.name + ".partial"), 0
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir()

    def write(self, engine: SearchEngine, block: RequestBlock, ranked: Ranked, k: int) -> None:
        real_BxK = (ranked.ids_BxK > 0) & (np.cumsum(ranked.ids_BxK > 0, axis=1) <= k)
        row, column = np.nonzero(real_BxK)
        ids = ranked.ids_BxK[row, column]
        frame = {
            "request_id": np.array(block.key, object)[row],
            "rank": (np.cumsum(real_BxK, axis=1)[row, column]).astype(np.int32),
            "video_id": np.asarray(engine.system.store.videos.raw_id)[ids],
            "score": ranked.scores_BxK[row, column],
            "relevance": ranked.relevance_BxK[row, column].astype(np.float32),
        }
        for t, head in enumerate(ranked.heads):
            probability = ranked.probabilities_BxKxT[row, column, t].astype(np.float32)
            frame[f"p_{head}"] = pl.Series(probability).fill_nan(None)  # null where the head was not learned
        for c, channel in enumerate(ranked.channels):
            frame[f"by_{channel}"] = ranked.found_BxKxC[row, column, c]
        frame = pl.DataFrame({name: pl.Series(name, list(x) if x.dtype == object else x) for name, x in frame.items()})
        frame.write_parquet(self._parts / f"{self._count:08d}.parquet")
        self._count += 1

    def close(self) -> None:
        joined = self._parts / "joined"
        pl.scan_parquet(sorted(self._parts.glob("*.parquet"))).sink_parquet(joined)
        joined.replace(self._out)
        shutil.rmtree(self._parts)

    def abandon(self) -> None:
        shutil.rmtree(self._parts, ignore_errors=True)
