"""Item-to-item similarity from clicks: Swing, or cosine with shrinkage (docs/method.md, Item similarity).

Both read the clicks of both surfaces strictly before `before_ms`: the latest items of each user, and a seeded sample of
each item's users. The result is padded [V, M] neighbour lists.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import scipy.sparse as sp

from pr2_jax.config import QrcfConfig
from pr2_jax.data.history.histories import laid_out, place_in_run
from pr2_jax.data.outcomes import clicked_ms
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.errors import StaleArtifact
from pr2_jax.retrieval.ann import ExactSearch
from pr2_jax.retrieval.candidates import best_of

Block = tuple[int, np.ndarray, np.ndarray]
"""(first row, columns [B, K], weights [B, K]): the best entries of some rows, best first, weight 0 = padding."""
BLOCK_CELLS = 16_000_000
"""Cells of an item x item block whose best entries are picked at once."""
DENSE_CELLS = 100_000_000
"""Largest item x item sum held densely (float32, 400 MB). Larger ones are sparse."""
SPARSE_CELLS = 60_000_000
"""Entries of the sparse sum (about 0.7 GB). Beyond it only each item's best stay."""
POSTINGS = 2_000_000
"""Shared clicks of pairs of users processed at once (about 100 MB)."""
NEIGHBOUR_CELLS = 200_000_000
"""Largest [V, M] (1.6 GB for ids and weights); M shrinks on larger catalogues. Long lists pay where people are few
(docs/decisions/015-item-similarity-and-merge.md)."""
FALLBACK_ROWS = 200_000
"""Most videos with content neighbours. Clicked videos come first, because only they can be seeds; then the newest."""


@dataclasses.dataclass(frozen=True)
class ItemSimilarity:
    """The M best neighbours of each video, best first."""

    neighbour_VxM: np.ndarray  # int32 video rows, 0 = padding
    weight_VxM: np.ndarray  # float32, 0 = padding

    @functools.cached_property
    def matrix(self) -> sp.csr_array:
        """The neighbour lists as a sparse [V, V] matrix, row = seed."""
        kept = np.nonzero(self.weight_VxM > 0)
        size = len(self.neighbour_VxM)
        return sp.csr_array((self.weight_VxM[kept], (kept[0], self.neighbour_VxM[kept])), shape=(size, size))

    def save(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        np.save(directory / "neighbour.npy", self.neighbour_VxM)
        np.save(directory / "weight.npy", self.weight_VxM)

    @classmethod
    def load(cls, directory: Path) -> ItemSimilarity:
        """Memory-mapped. StaleArtifact where a file is missing or the two do not match."""
        for name in ("neighbour.npy", "weight.npy"):
            if not (directory / name).exists():
                raise StaleArtifact(f"{directory / name}: not found; build the index again (pr2 index)")
        neighbour, weight = (np.load(directory / f"{name}.npy", mmap_mode="r") for name in ("neighbour", "weight"))
        if neighbour.shape != weight.shape:
            raise StaleArtifact(f"{directory}: neighbour.npy has shape {neighbour.shape}, weight.npy {weight.shape}")
        return cls(neighbour, weight)


class ContentNeighbours:
    """The m nearest videos by content. Each video is searched once, for all snapshots."""

    def __init__(self, content_VxD: np.ndarray, m: int) -> None:
        self.told_V = np.abs(content_VxD).sum(1) > 0
        self._content_VxD = content_VxD
        self._id_VxM = np.zeros((len(content_VxD), m), np.int32)
        self._cosine_VxM = np.zeros((len(content_VxD), m), np.float32)
        self._searched_V = np.zeros(len(content_VxD), bool)

    @functools.cached_property
    def _search(self) -> ExactSearch:
        return ExactSearch(self._content_VxD)

    def of(self, rows_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Video rows and cosines `[N, m]`, best first; cosine 0 = padding."""
        new_N = rows_N[~self._searched_V[rows_N]]
        m = self._id_VxM.shape[1]
        if len(new_N) and m:
            found = self._search.search(self._content_VxD[new_N], m, seen=new_N[:, None].astype(np.int32))
            real = found.scores_BxK > 0
            self._cosine_VxM[new_N] = np.where(real, found.scores_BxK, 0)
            self._id_VxM[new_N] = np.where(real, found.ids_BxK, 0)
            self._searched_V[new_N] = True
        return self._id_VxM[rows_N], self._cosine_VxM[rows_N]


def fit(
    store: LogStore, before_ms: int, config: QrcfConfig, content: ContentNeighbours | None = None
) -> ItemSimilarity:
    """Similarity from the clicks known strictly before `before_ms`.

    Videos without a co-clicked partner get their neighbours from `content`.
    """
    videos = len(store.videos.raw_id)
    # A video is no neighbour of itself, and row 0 of none.
    m = max(min(config.neighbours, NEIGHBOUR_CELLS // videos, videos - 2), 1)
    clicks_UxV = engagement(store, before_ms, config)
    # Swing counts pairs of users, so that a video with one user has no partner.
    least = 2 if config.similarity == "swing" else 1
    active = np.flatnonzero(np.bincount(clicks_UxV.indices, minlength=videos) >= least)
    active_UxN = clicks_UxV[:, active]
    if config.similarity == "swing":
        blocks = _swing(active_UxN, np.diff(clicks_UxV.indptr), m, config)
    else:
        blocks = _cosine(active_UxN, m, config)
    neighbour_VxM = np.zeros((videos, m), np.int32)
    weight_VxM = np.zeros((videos, m), np.float32)
    for start, partner_BxK, weight_BxK in blocks:
        at, found = active[start : start + len(partner_BxK)], weight_BxK.shape[1]
        weight_VxM[at, :found] = weight_BxK
        neighbour_VxM[at, :found] = np.where(weight_BxK > 0, active[partner_BxK], 0)
    if content is not None:
        lonely = np.flatnonzero((weight_VxM[:, 0] <= 0) & content.told_V)
        clicked_V = np.bincount(clicks_UxV.indices, minlength=videos) > 0
        lonely = _first_to_fall_back(store, before_ms, lonely[lonely > 0], clicked_V)
        _fall_back_on_content(neighbour_VxM, weight_VxM, lonely, content)
    return ItemSimilarity(neighbour_VxM, weight_VxM)


def engagement(store: LogStore, before_ms: int, config: QrcfConfig, seed: int = 0) -> sp.csr_array:
    """Clicks known before `before_ms`, as ones in float32 [U, V], after both caps."""
    events = store.events
    at = np.flatnonzero(np.asarray(events.click) & (np.asarray(events.video) > 0))
    time_ms = clicked_ms(events, at)
    at, time_ms = at[time_ms < before_ms], time_ms[time_ms < before_ms]
    user, video = np.asarray(events.user)[at].astype(np.int64), np.asarray(events.video)[at].astype(np.int64)
    users, videos = len(store.users.raw_id), len(store.videos.raw_id)
    # Latest first within a user, then one row per pair: the cap keeps each user's latest items.
    order = np.lexsort((video, -time_ms, user))
    user, video = user[order], video[order]
    first = np.sort(np.unique(user * videos + video, return_index=True)[1])
    user, video = user[first], video[first]
    keep = place_in_run(user) < config.max_items_per_user
    user, video = user[keep], video[keep]
    # A sample of each item's users: its first ones in a random order.
    shuffled = np.random.default_rng(seed).permutation(len(video))
    shuffled = shuffled[np.argsort(video[shuffled], kind="stable")]
    kept = shuffled[place_in_run(video[shuffled]) < config.max_users_per_item]
    ones = np.ones(len(kept), np.float32)
    return sp.csr_array((ones, (user[kept], video[kept])), shape=(users, videos), dtype=np.float32)


def _swing(active_UxN: sp.csr_array, size_U: np.ndarray, m: int, config: QrcfConfig) -> Iterator[Block]:
    """Swing, degree-normalised: s(i,j) = sum of w_a w_c / (alpha + |I_a ∩ I_c|) over pairs of users a < c of i and j.

    `size_U`: items of each user; w_u = (user_alpha + size_u)^-user_beta. The weight is (s(i,j) / sqrt(d_i d_j))^power
    with d_i = sum_j s(i,j). Plain sums grow with the square of popularity, so that a few popular seeds would drown all
    others (docs/decisions/015-item-similarity-and-merge.md).

    Each pair (a, c) that shares two items or more is a row of Z, which marks the shared items. A step adds
    Z^T diag(w_a w_c / (alpha + n_ac)) Z for the pairs of some users a.
    """
    users, items = active_UxN.shape
    weight_U = ((config.swing_user_alpha + size_U) ** -config.swing_user_beta).astype(np.float32)
    by_item = active_UxN.tocsc()
    dense = items * items <= DENSE_CELLS
    total = _DenseSum(items) if dense else _SparseSum(items, 4 * m)
    for first, end in _runs_of_users(active_UxN, dense):
        user, other, item = _postings_after(by_item, active_UxN, first, end)
        key = user * np.int64(users) + other
        shared = np.bincount(key)
        kept = shared[key] >= 2
        key, item = key[kept], item[kept]
        if not len(key):
            continue
        pairs = np.flatnonzero(shared >= 2)
        a, c = pairs // users + first, pairs % users
        scale = np.sqrt(weight_U[a] * weight_U[c] / np.float32(config.swing_alpha + shared[pairs]))
        row = np.searchsorted(pairs, key)
        total.add(row, item, scale[row].astype(np.float32), len(pairs))
    return total.best_rows(m, config.swing_power)


def _runs_of_users(active_UxN: sp.csr_array, alone: bool) -> Iterator[tuple[int, int]]:
    """(first, end) of the users a of a step; `alone`: one user per step."""
    users = active_UxN.shape[0]
    if alone:
        yield from itertools.pairwise(range(users + 1))
        return
    by_item_N = np.bincount(active_UxN.indices, minlength=active_UxN.shape[1])
    postings_E = np.concatenate([[0], np.cumsum(by_item_N[active_UxN.indices])])[active_UxN.indptr]
    cells_U = np.cumsum(np.diff(active_UxN.indptr).astype(np.int64) ** 2)
    first = 0
    while first < users:
        few = np.searchsorted(postings_E, postings_E[first] + POSTINGS, side="right") - 1
        small = np.searchsorted(cells_U, (cells_U[first - 1] if first else 0) + SPARSE_CELLS, side="right")
        end = max(int(min(few, small)), first + 1)
        yield first, end
        first = end


def _postings_after(
    by_item: sp.csc_array, active_UxN: sp.csr_array, first: int, end: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(user counted from `first`, later user, item): every item that a user of [first, end) shares with a later one."""
    low, high = active_UxN.indptr[[first, end]]
    items = active_UxN.indices[low:high]
    user = np.repeat(np.arange(end - first), np.diff(active_UxN.indptr[first : end + 1]))
    start = by_item.indptr[items]
    length = (by_item.indptr[items + 1] - start).astype(np.int64)
    other, user = by_item.indices[laid_out(start, length)], np.repeat(user, length)
    after = other > user + first
    return user[after], other[after], np.repeat(items, length)[after]


class _DenseSum:
    """The item x item sum as one array."""

    def __init__(self, items: int):
        self._sum_NxN = np.zeros((items, items), np.float32)

    def add(self, row: np.ndarray, item: np.ndarray, value: np.ndarray, rows: int):
        items, column = np.unique(item, return_inverse=True)
        z = np.zeros((rows, len(items)), np.float32)
        z[row, column] = value
        self._sum_NxN[np.ix_(items, items)] += z.T @ z

    def best_rows(self, m: int, power: float) -> Iterator[Block]:
        items = len(self._sum_NxN)
        np.fill_diagonal(self._sum_NxN, 0)
        root_N = _inverse_root(self._sum_NxN.sum(1, dtype=np.float64))
        step = max(1, BLOCK_CELLS // max(items, 1))
        for start in range(0, items, step):
            block = self._sum_NxN[start : start + step] * root_N[start : start + step, None] * root_N
            weight, at = jax.lax.top_k(block, min(m, items))  # ties by ascending row
            yield start, np.asarray(at), np.asarray(weight) ** np.float32(power)


class _SparseSum:
    """The same sum as sparse rows. Beyond `SPARSE_CELLS` only each item's `keep` best pairs stay."""

    def __init__(self, items: int, keep: int):
        self._keep = keep
        self._sum = sp.csr_array((items, items), dtype=np.float32)

    def add(self, row: np.ndarray, item: np.ndarray, value: np.ndarray, rows: int):
        z = sp.csr_array((value, (row, item)), shape=(rows, self._sum.shape[0]))
        self._sum = self._sum + z.T.tocsr() @ z
        if self._sum.nnz > SPARSE_CELLS:
            self._sum = _best_entries(_without_diagonal(self._sum), self._keep)

    def best_rows(self, m: int, power: float) -> Iterator[Block]:
        self._sum = _without_diagonal(self._sum)
        root_N = _inverse_root(np.asarray(self._sum.sum(1), np.float64))
        step = max(1, BLOCK_CELLS // (10 * m))
        for start in range(0, self._sum.shape[0], step):
            part = self._sum[start : start + step]
            part.data *= np.repeat(root_N[start : start + step], np.diff(part.indptr)) * root_N[part.indices]
            part.data **= np.float32(power)
            yield start, *_best_of_rows(part, m)


def _inverse_root(degree_N: np.ndarray) -> np.ndarray:
    return np.divide(1, np.sqrt(degree_N), out=np.zeros(len(degree_N)), where=degree_N > 0).astype(np.float32)


def _without_diagonal(rows_NxN: sp.csr_array) -> sp.csr_array:
    row = np.repeat(np.arange(rows_NxN.shape[0]), np.diff(rows_NxN.indptr))
    rows_NxN.data[row == rows_NxN.indices] = 0
    rows_NxN.eliminate_zeros()
    return rows_NxN


def _best_entries(rows_BxN: sp.csr_array, m: int) -> sp.csr_array:
    """The m greatest entries of each row in ascending order of columns; of equal ones the first.

    Row by row, which is several times as fast as sorting all entries.
    """
    rows_BxN.sort_indices()
    data, kept = rows_BxN.data, np.ones(rows_BxN.nnz, bool)
    for low, high in itertools.pairwise(rows_BxN.indptr.tolist()):
        if high - low > m:
            kept[low:high] = False
            kept[low + best_of(np.arange(high - low), data[low:high], m)[0]] = True
    row = np.repeat(np.arange(rows_BxN.shape[0]), np.diff(rows_BxN.indptr))[kept]
    return sp.csr_array((data[kept], (row, rows_BxN.indices[kept])), shape=rows_BxN.shape)


def _best_of_rows(rows_BxN: sp.csr_array, m: int) -> tuple[np.ndarray, np.ndarray]:
    """(columns, values) [B, m] of the m greatest entries of each row, best first, ties by ascending column, padded with
    0."""
    best = _best_entries(rows_BxN, m)
    length = np.diff(best.indptr)
    row = np.repeat(np.arange(len(length)), length)
    place = np.arange(best.nnz) - np.repeat(best.indptr[:-1], length)
    column_BxK = np.zeros((len(length), m), np.int64)
    value_BxK = np.zeros((len(length), m), np.float32)
    column_BxK[row, place], value_BxK[row, place] = best.indices, best.data
    order_BxK = np.argsort(-value_BxK, axis=1, kind="stable")
    return np.take_along_axis(column_BxK, order_BxK, axis=1), np.take_along_axis(value_BxK, order_BxK, axis=1)


def _cosine(active_UxN: sp.csr_array, m: int, config: QrcfConfig) -> Iterator[Block]:
    """Cosine with shrinkage: |U_i ∩ U_j| / sqrt((|U_i| + shrinkage) (|U_j| + shrinkage)), by blocks of items."""
    inverse_N = 1 / np.sqrt(np.bincount(active_UxN.indices, minlength=active_UxN.shape[1]) + config.shrinkage)
    scaled_UxN = (active_UxN @ sp.diags_array(inverse_N.astype(np.float32))).tocsr()
    by_item_NxU = scaled_UxN.T.tocsr()
    step = 1_024
    for start in range(0, active_UxN.shape[1], step):
        product = (by_item_NxU[start : start + step] @ scaled_UxN).tocoo()
        off = product.row + start != product.col
        part = sp.csr_array((product.data[off], (product.row[off], product.col[off])), shape=product.shape)
        yield start, *_best_of_rows(part, m)


def _first_to_fall_back(store: LogStore, before_ms: int, lonely: np.ndarray, clicked_V: np.ndarray) -> np.ndarray:
    """At most `FALLBACK_ROWS` of some video rows, ascending: clicked ones first, then by age, the newest first.

    A video is as old as its upload, or as its first event where the log does not tell that. What comes at `before_ms`
    or later, or at a time that nobody knows, comes last: nobody can have watched it.
    """
    if len(lonely) <= FALLBACK_ROWS:
        return lonely
    since_V = np.asarray(store.videos.upload_ms).copy()
    untold_V = since_V <= 0
    if untold_V[lonely].any():
        video_E, time_ms_E = np.asarray(store.events.video), np.asarray(store.events.time_ms)
        first_V = np.full(len(since_V), before_ms)
        np.minimum.at(first_V, video_E, time_ms_E)
        since_V[untold_V] = first_V[untold_V]
    since_N = since_V[lonely]
    since_N[since_N >= before_ms] = 0
    return np.sort(lonely[np.lexsort((-since_N, ~clicked_V[lonely]))[:FALLBACK_ROWS]])


def _fall_back_on_content(neighbour_VxM, weight_VxM, lonely: np.ndarray, content: ContentNeighbours) -> None:
    """Gives content neighbours to `lonely`, videos without a co-clicked partner.

    The weight is the cosine times the median weight of co-clicked neighbours at that rank, to put both on one scale.
    """
    linked = weight_VxM[:, 0] > 0
    ids, cosines = content.of(lonely)
    m = min(ids.shape[1], weight_VxM.shape[1])
    usual_M = np.median(weight_VxM[linked, :m], axis=0) if linked.any() else np.ones(m, np.float32)
    weight = cosines[:, :m] * usual_M
    neighbour_VxM[lonely, :m], weight_VxM[lonely, :m] = np.where(weight > 0, ids[:, :m], 0), weight
