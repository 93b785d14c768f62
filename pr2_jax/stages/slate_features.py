"""Ranking features of training slates, in one file that is read by rows.

Features of a large log do not fit into memory. They are computed in blocks and appended to the file, so that what a
killed run has written is what the next one need not compute, and a full disk is an error, not a crash.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.data.batches.sessions import day_start_ms, evenly_spread, part_of
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.history.histories import place_in_run
from pr2_jax.ranking.features import FEATURES, Scaler
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.search.system import System

FEATURE_BLOCK = 512
"""Slates whose features are computed at a time."""
SCALER_RESULTS = 1_000_000
"""Search results from which the scaler is fitted, at most: 128 MB of features, and two copies more meanwhile."""


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Raw features `[N, S, F]`, float32, as they lie in a file: the order is that in which they were computed."""

    path: Path
    slate: int  # S

    @property
    def finished(self) -> int:
        """Slates whose features are in the file; one that was being written when the process ended does not count."""
        return self.path.stat().st_size // self._slate_bytes if self.path.exists() else 0

    def append(self, features_BxSxF: np.ndarray, at: int) -> None:
        """Writes the features of slates `at`, `at + 1`, ...; whatever the file holds from there on is dropped."""
        with self.path.open("r+b" if at else "wb") as file:
            file.truncate(at * self._slate_bytes)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(features_BxSxF, np.float32))

    def read(self, place_B: np.ndarray) -> np.ndarray:
        """Features `[B, S, F]` of the slates at these places.

        The file is mapped anew each time, because pages that a map has touched count as the process's memory until it
        is closed.
        """
        if not len(place_B):
            return np.zeros((0, self.slate, len(FEATURES)), np.float32)
        mapped = np.memmap(self.path, np.float32, "r", shape=(self.finished, self.slate, len(FEATURES)))
        return np.array(mapped[place_B])

    @property
    def _slate_bytes(self) -> int:
        return self.slate * len(FEATURES) * np.dtype(np.float32).itemsize


@dataclasses.dataclass(frozen=True)
class SlateFeatures:
    """Features `[B, S, F]` of some slates of one kind by their rows: raw, or scaled and of some columns."""

    file: FeatureFile
    place_N: np.ndarray
    scaler: Scaler | None = None
    columns: np.ndarray | None = None

    def scaled(self, scaler: Scaler, columns: np.ndarray) -> SlateFeatures:
        """The same slates as a ranker reads them; `scaler` is for all columns."""
        return dataclasses.replace(self, scaler=scaler.of(columns), columns=columns)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        raw = self.file.read(self.place_N[rows])
        return raw if self.scaler is None else self.scaler(np.take(raw, self.columns, -1))


@dataclasses.dataclass(frozen=True)
class ComputingOrder:
    """The slates of several kinds in the order in which their features are computed, in blocks of one day.

    A block holds at most `FEATURE_BLOCK` slates, of one kind and one part of the training days.
    """

    kind_N: np.ndarray  # int8
    row_N: np.ndarray  # int32, of the slates of that kind
    day_ms_N: np.ndarray
    part_N: np.ndarray
    start_B: np.ndarray  # where each block starts

    @classmethod
    def of(cls, system: System, kinds: list[Slates]) -> ComputingOrder:
        store = system.store
        day, part = (
            np.concatenate([function(store, slates.time_ms_N) for slates in kinds])
            for function in (day_start_ms, part_of)
        )
        kind = np.repeat(np.arange(len(kinds), dtype=np.int8), [len(slates) for slates in kinds])
        row = np.concatenate([np.arange(len(slates), dtype=np.int32) for slates in kinds])
        order = np.lexsort((part, kind, day))
        kind, row, day, part = (column[order] for column in (kind, row, day, part))
        run = np.cumsum(np.any([np.diff(column, prepend=-1) != 0 for column in (day, kind, part)], axis=0))
        return cls(kind, row, day, part, np.flatnonzero(place_in_run(run) % FEATURE_BLOCK == 0))

    def places(self, kind: int) -> np.ndarray:
        """int32 [N]: where each slate of a kind lies in the file."""
        place = np.flatnonzero(self.kind_N == kind)
        out = np.empty(len(place), np.int32)
        out[self.row_N[place]] = place
        return out


def write_features(system: System, kinds: list[Slates], path: Path) -> None:
    """Computes the features of slates that all have one width, and writes them to `path`, one block after the other.

    Blocks that are there already, from a run with the same slates, are kept. Item-to-item scores come from a snapshot
    that ends before the slate's day, content cosines and preference logits from encoders that were not trained on that
    day (stages/train_content.py, stages/train_preference.py).
    """
    order, file = ComputingOrder.of(system, kinds), FeatureFile(path, kinds[0].video_NxS.shape[1])
    stop_B = np.append(order.start_B[1:], len(order.row_N))
    day_B = order.day_ms_N[order.start_B]
    left_B = stop_B > file.finished
    for day_ms in console.progress(np.unique(day_B[left_B]), "features by day", unit=" days"):
        similarity = system.similarity_as_of(int(day_ms))
        for start, stop in zip(*(at[left_B & (day_B == day_ms)] for at in (order.start_B, stop_B)), strict=True):
            slates, part = kinds[order.kind_N[start]], int(order.part_N[start])
            file.append(slate_features(system, slates, order.row_N[start:stop], similarity, part), start)


def open_features(system: System, kinds: list[Slates], path: Path) -> list[SlateFeatures]:
    """What `write_features` has written, one for each kind of slates."""
    order, file = ComputingOrder.of(system, kinds), FeatureFile(path, kinds[0].video_NxS.shape[1])
    return [SlateFeatures(file, order.places(kind)) for kind in range(len(kinds))]


def fit_scaler(features: SlateFeatures, slates: Slates) -> Scaler:
    """A scaler from the results of all slates; from evenly spread slates where there are over `SCALER_RESULTS`."""
    results_N = np.count_nonzero(slates.video_NxS, axis=1)
    total = int(results_N.sum())
    rows = np.arange(len(slates))
    if total > SCALER_RESULTS:
        rows = evenly_spread(len(slates), max(1, len(slates) * SCALER_RESULTS // total))
        console.log(f"scaler: from {results_N[rows].sum():,} of {total:,} search results, evenly spread")
    ends = np.cumsum(results_N[rows])
    out = np.empty((ends[-1] if len(ends) else 0, len(FEATURES)), np.float32)
    for start in range(0, len(rows), FEATURE_BLOCK):
        block = rows[start : start + FEATURE_BLOCK]
        real = features[block][slates.video_NxS[block] > 0]
        stop = ends[start + len(block) - 1]
        out[stop - len(real) : stop] = real
    return Scaler.fit(out)


def slate_features(
    system: System, slates: Slates, rows: np.ndarray, similarity: ItemSimilarity, held_out: int | None = None
) -> np.ndarray:
    """Raw features of some slates against one snapshot; `held_out` as in `System.encode`."""
    encoded = system.encode(system.log.requests_of(slates, rows), held_out)
    return system.features(encoded, slates.video_NxS[rows], similarity)
