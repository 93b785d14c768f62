"""Exact and ScaNN search behind one contract, and the traps of ScaNN."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pr2_jax.config import RetrievalConfig
from pr2_jax.errors import BadInput, StaleArtifact
from pr2_jax.retrieval import ann

EXACT = RetrievalConfig()
APPROXIMATE = dataclasses.replace(EXACT, ann_min_rows=100)


def unit_vectors(rng: np.random.Generator, rows: int, width: int = 16) -> np.ndarray:
    """Clustered unit vectors, row 0 zero."""
    centre = rng.normal(size=(12, width))
    x = centre[rng.integers(0, 12, rows)] + 0.4 * rng.normal(size=(rows, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[0] = 0
    return x.astype(np.float32)


@pytest.fixture(scope="module", params=["exact", "scann"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ann.Index:
    if request.param == "scann":
        pytest.importorskip("scann")
    directory = tmp_path_factory.mktemp(request.param)
    config = APPROXIMATE if request.param == "scann" else EXACT
    report = ann.build_index(unit_vectors(np.random.default_rng(1), 1500), directory, config)
    assert report.kind == request.param
    return ann.load_index(directory)


def test_finds_what_sorting_finds(index: ann.Index, rng: np.random.Generator) -> None:
    query = unit_vectors(rng, 9)[1:]
    got = index.search(query, 20)
    score = query @ index.vectors_VxD.T
    score[:, 0] = -np.inf
    want = np.argsort(-score, axis=1, kind="stable")[:, :20]
    found = np.mean([np.isin(got.ids_BxK[b], want[b]).mean() for b in range(8)])
    assert found == 1.0 if index.report.kind == "exact" else found > 0.95
    np.testing.assert_allclose(got.scores_BxK, np.take_along_axis(score, got.ids_BxK, 1), atol=1e-5)
    assert (np.diff(got.scores_BxK, axis=1) <= 0).all()


def test_own_vector_comes_first_and_can_be_withheld(index: ann.Index) -> None:
    rows = np.array([3, 700, 1499], np.int32)
    query = np.asarray(index.vectors_VxD[rows])
    assert (index.search(query, 5).ids_BxK[:, 0] == rows).all()
    seen = tuple(np.sort(np.r_[rows[b : b + 1], index.search(query, 4).ids_BxK[b, 1:]]) for b in range(3))
    got = index.search(query, 5, seen)
    assert (got.ids_BxK > 0).all()
    assert not any(np.isin(got.ids_BxK[b], seen[b]).any() for b in range(3))


def test_fewer_than_k_is_padded(index: ann.Index) -> None:
    query = np.asarray(index.vectors_VxD[1:3])
    seen = (np.arange(1, 1490, dtype=np.int32),) * 2
    got = index.search(query, 2000, seen)
    assert got.ids_BxK.shape == (2, 2000)
    found = got.ids_BxK > 0
    assert (found.sum(1) == 10).all()
    assert (got.ids_BxK[~found] == -1).all()
    assert np.isneginf(got.scores_BxK[~found]).all()
    assert (np.sort(got.ids_BxK[found].reshape(2, 10), axis=1) == np.arange(1490, 1500)).all()


def test_empty_batch_and_wrong_width(index: ann.Index) -> None:
    assert index.search(np.zeros((0, 16), np.float32), 3).ids_BxK.shape == (0, 3)
    with pytest.raises(ValueError, match="index holds vectors of 16"):
        index.search(np.zeros((1, 17), np.float32), 3)


def test_recall_is_measured(index: ann.Index) -> None:
    assert 0.9 < index.report.recall <= 1.0
    assert ("recall@100" if index.report.queries else ": exact, ") in str(index.report)


def test_a_moved_index_loads(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scann")
    monkeypatch.chdir(tmp_path)
    ann.build_index(unit_vectors(rng, 400), Path("index"), APPROXIMATE)
    shutil.move("index", "moved")
    query = unit_vectors(rng, 3)[1:]
    before = ann.load_index(Path("moved")).search(query, 5)
    monkeypatch.chdir(os.sep)
    np.testing.assert_array_equal(before.ids_BxK, ann.load_index(tmp_path / "moved").search(query, 5).ids_BxK)


def test_without_scann_its_index_is_searched_exactly(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scann")
    vectors = unit_vectors(rng, 400)
    ann.build_index(vectors, tmp_path, APPROXIMATE)
    monkeypatch.setattr(ann, "scann", None)
    got, want = ann.load_index(tmp_path).search(vectors[1:4], 7), ann.ExactSearch(vectors).search(vectors[1:4], 7)
    np.testing.assert_array_equal(got.ids_BxK, want.ids_BxK)


def test_what_is_fitted_can_ask_for_results_that_no_build_changes(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("scann")
    vectors, config = unit_vectors(rng, 3000), dataclasses.replace(APPROXIMATE, ann_search_share=0.01)
    ann.build_index(vectors, tmp_path, config)
    query = unit_vectors(rng, 40)
    want = ann.ExactSearch(vectors).search(query, 5).ids_BxK
    assert (ann.load_index(tmp_path).search(query, 5).ids_BxK != want).any(), "or this shows nothing"
    np.testing.assert_array_equal(ann.load_index(tmp_path, exact=True).search(query, 5).ids_BxK, want)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, rng: np.random.Generator, value: float) -> None:
    vectors = unit_vectors(rng, 300)
    vectors[17, 3] = value
    with pytest.raises(BadInput, match="vector of video row 17 is not finite"):
        ann.build_index(vectors, tmp_path, APPROXIMATE)


def test_more_leaves_than_points_and_zero_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("scann")
    vectors = unit_vectors(rng, 145)
    vectors[5:30] = 0
    config = dataclasses.replace(APPROXIMATE, ann_leaves=5_000)
    assert ann.build_index(vectors, tmp_path, config).leaves == 119  # zeros are no points
    assert ann.load_index(tmp_path).search(vectors[50:51], 3).ids_BxK[0, 0] == 50


def test_stale_index_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(StaleArtifact, match="not found"):
        ann.load_index(tmp_path)
    ann.build_index(unit_vectors(rng, 20), tmp_path, EXACT)
    np.save(tmp_path / "vectors.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(StaleArtifact, match=r"shape \(3, 3\), index.json says \(20, 16\)"):
        ann.load_index(tmp_path)
    written = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(written | {"schema": 99}))
    with pytest.raises(StaleArtifact, match="index schema 99, this version reads 1"):
        ann.load_index(tmp_path)


def test_chunked_equals_whole(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small integers: many ties, and sums that no order of addition can change.
    vectors = rng.integers(-2, 3, (300, 8)).astype(np.float32)
    query = rng.integers(-2, 3, (5, 8)).astype(np.float32)
    whole = ann.ExactSearch(vectors).search(query, 40)
    monkeypatch.setattr(ann, "CHUNK", 32)
    chunked = ann.ExactSearch(vectors).search(query, 40)
    np.testing.assert_array_equal(chunked.ids_BxK, whole.ids_BxK)
    score = query @ vectors.T
    score[:, 0] = -np.inf
    np.testing.assert_array_equal(whole.ids_BxK, np.argsort(-score, axis=1, kind="stable")[:, :40])


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_vectors_of_zeros_are_never_found(kind, rng, tmp_path):
    """Not even before what is unlike the query."""
    if kind == "scann":
        pytest.importorskip("scann")
    vectors = unit_vectors(rng, 400)
    silent = np.arange(3, 400, 5)
    vectors[silent] = 0
    report = ann.build_index(vectors, tmp_path, APPROXIMATE if kind == "scann" else EXACT)
    assert (report.kind, report.rows) == (kind, 399 - len(silent))
    index, query = ann.load_index(tmp_path), unit_vectors(rng, 6)[1:]
    seen = tuple(np.array([7, 9 + n]) for n in range(5))
    got = index.search(query, 390, seen).ids_BxK
    assert not np.isin(got, silent).any()
    assert ((got > 0).sum(1) > (390 - len(silent) - 2) * (kind == "exact")).all()
    for row in range(5):
        order = np.argsort(-(vectors @ query[row]), kind="stable")
        want = order[~np.isin(order, [0, *silent, *seen[row]])]
        assert index.exact(query, 20, seen).ids_BxK[row].tolist() == want[:20].tolist()


def test_an_index_of_nothing_finds_nothing(rng, tmp_path):
    report = ann.build_index(np.zeros((9, 4), np.float32), tmp_path, dataclasses.replace(EXACT, ann_min_rows=1))
    assert (report.kind, report.rows) == ("exact", 0)
    found = ann.load_index(tmp_path).search(rng.normal(size=(3, 4)).astype(np.float32), 5)
    assert (found.ids_BxK == -1).all()
    assert np.isneginf(found.scores_BxK).all()


def test_compiles_once_a_padded_shape(rng: np.random.Generator) -> None:
    search = ann.ExactSearch(unit_vectors(rng, 333, 24))
    before = ann._top_inner_products._cache_size()
    for size in (5, 6, 7, 8):
        for seen in range(3):
            search.search(unit_vectors(rng, size, 24), 60, tuple(np.arange(1, 1 + seen) for _ in range(size)))
    assert ann._top_inner_products._cache_size() - before == 1
