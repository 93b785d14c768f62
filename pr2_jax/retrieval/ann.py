"""Nearest neighbours by inner product: exact search, and the index of `dr` and `pdr` (ScaNN on large catalogues).

No other file uses ScaNN. Version 1.4.2 has these traps: a NaN in a tree build ends the process; fewer points than
leaves is an error; missing results come back as (row 0, NaN); an index saved under a relative path never loads;
document ids are stored as a pickle; the build prints to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pr2_jax import artifacts
from pr2_jax.config import RetrievalConfig
from pr2_jax.encoders.batching import in_blocks, padded_size
from pr2_jax.errors import BadInput, StaleArtifact
from pr2_jax.retrieval.candidates import withhold_seen
from pr2_jax.types import Candidates

try:
    from scann import scann_ops_pybind as scann
except ImportError:  # no wheel for this platform: search is exact
    scann = None

SCHEMA = 1
RECALL_QUERIES = 256
TRAINING_POINTS = 250_000
POINTS_PER_RESULT = 100
"""Least number of videos in the searched leaves, per result. In a small catalogue a fixed share of the leaves holds too
few (docs/decisions/020-exact-for-fitting.md)."""
REORDER_PER_RESULT = 8
"""Quantised results that are rescored exactly, per result."""
PARALLEL_BATCH = 32
"""From this many queries on ScaNN's thread pool is faster than one thread. The results are the same."""
CHUNK = 50_000
"""Videos that exact search scores at once. It bounds the memory for scores."""
BATCH = 256
"""Requests that it scores at once. Smaller batches are padded to a power of two, so that few shapes are compiled."""


@functools.partial(jax.jit, static_argnames=("k",))
def _top_inner_products(chunks_NxMxD: jax.Array, rows: int, query_BxD: jax.Array, k: int):
    """(scores [B, k], video rows [B, k]), best first, ties by ascending row; row 0 and padding score -inf."""
    chunk = chunks_NxMxD.shape[1]
    kept = min(k, chunk)

    def scan_chunk(best, numbered):
        number, vectors_MxD = numbered
        row_M = number * chunk + jnp.arange(chunk, dtype=jnp.int32)
        score_BxM = jnp.where(((row_M > 0) & (row_M < rows))[None, :], query_BxD @ vectors_MxD.T, -jnp.inf)
        # NaN would sort first.
        score, at = jax.lax.top_k(jnp.nan_to_num(score_BxM, nan=-jnp.inf, posinf=None, neginf=-jnp.inf), kept)
        # Earlier chunks stand in front, so that the lower row wins a tie.
        both_rows = jnp.concatenate([best[1], row_M[at]], 1)
        score, at = jax.lax.top_k(jnp.concatenate([best[0], score], 1), k)
        return (score, jnp.take_along_axis(both_rows, at, 1)), None

    empty = jnp.full((len(query_BxD), k), -jnp.inf), jnp.zeros((len(query_BxD), k), jnp.int32)
    numbers = jnp.arange(len(chunks_NxMxD), dtype=jnp.int32)
    return jax.lax.scan(scan_chunk, empty, (numbers, chunks_NxMxD))[0]


class ExactSearch:
    """Every video against every query; row 0 is never returned."""

    def __init__(self, vectors_VxD: np.ndarray):
        self.rows, width = vectors_VxD.shape
        chunk = padded_size(self.rows, CHUNK)
        padded = np.zeros((-(-self.rows // chunk) * chunk, width), np.float32)
        padded[: self.rows] = vectors_VxD
        self._chunks_NxMxD = jnp.asarray(padded.reshape(-1, chunk, width))

    def search(self, query_BxD: np.ndarray, k: int, seen: Sequence[np.ndarray] = ()) -> Candidates:
        """The k best unseen videos of each query by inner product, ties by ascending row, padded with -1 / -inf."""
        fetch = padded_size(min(k + max((len(s) for s in seen), default=0), self.rows))

        def best(batch: dict[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
            return _top_inner_products(self._chunks_NxMxD, self.rows, batch["query_BxD"], fetch)

        parts = []
        for start in range(0, max(len(query_BxD), 1), BATCH):
            rows = slice(start, start + BATCH)
            score, row = in_blocks(best, {"query_BxD": np.asarray(query_BxD[rows], np.float32)}, BATCH)
            parts.append(withhold_seen(row, score, seen[rows], k))
        return Candidates(np.concatenate([p.ids_BxK for p in parts]), np.concatenate([p.scores_BxK for p in parts]))


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """Size, settings and measured recall of an index."""

    kind: str  # "scann" or "exact"
    rows: int  # videos that have a vector
    width: int
    leaves: int
    leaves_searched: int
    recall_at: int
    recall: float  # mean share of the exact top `recall_at` that is found, on `queries` queries
    queries: int
    build_seconds: float
    bytes: int

    def __str__(self) -> str:
        how = f"{self.leaves} leaves, {self.leaves_searched} searched" if self.kind == "scann" else "every row compared"
        found = f"recall@{self.recall_at} {self.recall:.4f} against exact on {self.queries} queries"
        found = found if self.queries else "exact"
        return (
            f"{self.kind} index of {self.rows:,} videos ({how}): {found}, {self.bytes / 1e6:.1f} MB, "
            f"{self.build_seconds:.1f} s"
        )


class Index:
    """An opened index, approximate or exact. `load_index` makes it."""

    def __init__(self, report: IndexReport, vectors_VxD: np.ndarray, row_N: np.ndarray, searcher, reorder: int):
        self.report = report
        self.vectors_VxD = vectors_VxD
        self._row_N = row_N
        self._searcher = searcher
        self._reorder = reorder
        # Vectors of zeros are left out of exact search: their score 0 would beat every negative cosine.
        self._row_of_M = np.concatenate([[0], row_N]).astype(np.int32)
        self._whole = len(self._row_of_M) == len(vectors_VxD)

    @functools.cached_property
    def _exact(self) -> ExactSearch:
        return ExactSearch(self.vectors_VxD if self._whole else self.vectors_VxD[self._row_of_M])

    def exact(self, query_BxD: np.ndarray, k: int, seen: Sequence[np.ndarray] = ()) -> Candidates:
        """As `search`, by comparing every vector."""
        if self._whole:
            return self._exact.search(query_BxD, k, seen)
        found = self._exact.search(query_BxD, k + max((len(s) for s in seen), default=0))
        return withhold_seen(self._row_of_M[np.maximum(found.ids_BxK, 0)], found.scores_BxK, seen, k)

    def search(self, query_BxD: np.ndarray, k: int, seen: Sequence[np.ndarray] = ()) -> Candidates:
        """The k unseen videos with the greatest inner product, best first, padded with -1 / -inf.

        `seen`: () or B sorted arrays of video rows. As many more results are fetched as seen ones may be dropped.
        """
        query_BxD = np.ascontiguousarray(query_BxD, np.float32)
        if query_BxD.ndim != 2 or query_BxD.shape[1] != self.report.width:
            raise ValueError(f"queries have shape {query_BxD.shape}, the index holds vectors of {self.report.width}")
        if self._searcher is None:
            return self.exact(query_BxD, k, seen)
        if not len(query_BxD):
            return Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))
        fetch = min(k + max((len(s) for s in seen), default=0), self.report.rows)
        enough = math.ceil(POINTS_PER_RESULT * fetch * self.report.leaves / self.report.rows)
        leaves = min(max(self.report.leaves_searched, enough), self.report.leaves)
        parallel = len(query_BxD) >= PARALLEL_BATCH
        search = self._searcher.search_batched_parallel if parallel else self._searcher.search_batched
        at_BxN, score_BxN = search(
            query_BxD,
            final_num_neighbors=fetch,
            pre_reorder_num_neighbors=min(max(self._reorder, REORDER_PER_RESULT * fetch), self.report.rows),
            leaves_to_search=leaves,
        )
        score_BxN = np.asarray(score_BxN, np.float32)
        found_BxN = np.isfinite(score_BxN)
        row_BxN = np.where(found_BxN, self._row_N[np.where(found_BxN, at_BxN, 0)], 0)
        if not (score_BxN[:, :-1] > score_BxN[:, 1:]).all():
            # ScaNN's order among equal scores is its own; ours is by ascending row.
            order_BxN = np.lexsort((row_BxN, np.where(found_BxN, -score_BxN, np.inf)), axis=1)
            row_BxN, score_BxN = (np.take_along_axis(x, order_BxN, 1) for x in (row_BxN, score_BxN))
        return withhold_seen(row_BxN, score_BxN, seen, k)


def build_index(
    vectors_VxD: np.ndarray,
    directory: Path,
    config: RetrievalConfig,
    queries_NxD: np.ndarray | None = None,
) -> IndexReport:
    """Writes an index of unit vectors into `directory` and measures its recall. Row 0 and zero vectors are left out.

    Recall is measured on at most `RECALL_QUERIES` of `queries_NxD`, or of the videos themselves. BadInput where a
    vector is not finite. ScaNN's builds are not bit-reproducible: keep the index.
    """
    started = time.perf_counter()
    vectors_VxD = np.ascontiguousarray(vectors_VxD, np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors_VxD).all(1))
    if len(bad):
        raise BadInput(f"index: vector of video row {bad[0]} is not finite ({len(bad)} of {len(vectors_VxD)} rows)")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / "scann", ignore_errors=True)
    row_N = np.flatnonzero(vectors_VxD[1:].any(1)).astype(np.int32) + np.int32(1)
    rows = len(row_N)
    told_NxD = vectors_VxD[1:] if rows == len(vectors_VxD) - 1 else vectors_VxD[row_N]
    approximate = scann is not None and rows >= max(config.ann_min_rows, 2)
    leaves = searched = 0
    if approximate:
        leaves = min(config.ann_leaves or 2 * math.isqrt(rows), rows)
        searched = max(1, math.ceil(config.ann_search_share * leaves))
        _build_scann(told_NxD, directory / "scann", leaves, searched, config)
    np.save(directory / "vectors.npy", vectors_VxD)
    np.save(directory / "rows.npy", row_N)
    report = IndexReport(
        kind="scann" if approximate else "exact",
        rows=rows,
        width=vectors_VxD.shape[1],
        leaves=leaves,
        leaves_searched=searched,
        recall_at=config.ann_recall_at,
        recall=1.0,
        queries=0,
        build_seconds=time.perf_counter() - started,
        bytes=sum(f.stat().st_size for f in directory.rglob("*") if f.is_file() and f.name != "index.json"),
    )
    _write_report(directory, report, config.ann_reorder)
    if approximate:
        pool_NxD = told_NxD if queries_NxD is None else np.asarray(queries_NxD, np.float32)
        report = _with_recall(report, load_index(directory), pool_NxD)
        _write_report(directory, report, config.ann_reorder)
    return report


def load_index(directory: Path, *, exact: bool = False) -> Index:
    """Opens what `build_index` wrote. Search is exact with `exact`, or without ScaNN.

    Fitting and training need `exact`, because ScaNN's builds differ from run to run.
    """
    path = directory / "index.json"
    if not path.exists():
        raise StaleArtifact(f"{path}: not found; build the index first (pr2 index)")
    written = json.loads(path.read_text(encoding="utf-8"))
    if written["schema"] != SCHEMA:
        raise StaleArtifact(f"{path}: index schema {written['schema']}, this version reads {SCHEMA}; rebuild it")
    report = IndexReport(**written["report"])
    vectors_VxD = np.load(directory / "vectors.npy", mmap_mode="r")
    row_N = np.load(directory / "rows.npy")
    if len(row_N) != report.rows or vectors_VxD.shape[1] != report.width or len(vectors_VxD) <= row_N.max(initial=0):
        raise StaleArtifact(
            f"{directory / 'vectors.npy'}: shape {vectors_VxD.shape}, index.json says {(report.rows + 1, report.width)}"
        )
    searcher = None
    if report.kind == "scann" and scann is not None and not exact:
        with _quiet_stderr():
            searcher = scann.load_searcher(str((directory / "scann").resolve()))
    return Index(report, vectors_VxD, row_N, searcher, written["reorder"])


def _build_scann(vectors_NxD: np.ndarray, directory: Path, leaves: int, searched: int, config: RetrievalConfig):
    directory.mkdir(parents=True)
    reorder = config.ann_reorder or REORDER_PER_RESULT * config.ann_recall_at
    with _quiet_stderr():
        # Spherical, or recall halves on skewed unit vectors.
        builder = scann.builder(vectors_NxD, config.ann_recall_at, "dot_product").tree(
            leaves, searched, training_sample_size=min(len(vectors_NxD), TRAINING_POINTS), spherical=True
        )
        searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(reorder).build()
        searcher.serialize(str(directory), relative_path=True)


def _with_recall(report: IndexReport, index: Index, pool_NxD: np.ndarray) -> IndexReport:
    pick = np.random.default_rng(0).permutation(len(pool_NxD))[:RECALL_QUERIES]
    query_NxD, k = pool_NxD[np.sort(pick)], min(report.recall_at, report.rows)
    found = index.search(query_NxD, k)
    exact = index.exact(query_NxD, k)
    # Counted by score, not by id: a video that ties with the k-th exact one is as good.
    floor_N = exact.scores_BxK[:, -1:] - 1e-5
    recall = float((found.scores_BxK >= floor_N).mean()) if len(query_NxD) else 1.0
    return dataclasses.replace(report, recall=recall, queries=len(query_NxD))


def _write_report(directory: Path, report: IndexReport, reorder: int):
    written = {"schema": SCHEMA, "reorder": reorder, "report": dataclasses.asdict(report)}
    artifacts.write_text(directory / "index.json", json.dumps(written, indent=1))


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Redirects file descriptor 2: ScaNN's C++ ignores log levels."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept), os.close(nowhere)
