"""Swing and cosine against slow plain twins, both sums alike, caps, the clock, and the content fallback."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pr2_jax.config import QrcfConfig
from pr2_jax.errors import StaleArtifact
from pr2_jax.retrieval import item_similarity

USERS, VIDEOS, NOW = 30, 41, 1_000
SWING = QrcfConfig(swing_power=1.0)
COSINE = QrcfConfig(similarity="cosine", shrinkage=2.0)


def store_of(user, video, known_ms, click) -> SimpleNamespace:
    """What `fit` reads of a LogStore."""
    order = np.lexsort((known_ms, user))
    columns = {"user": user, "video": video, "known_ms": known_ms, "time_ms": known_ms - 90, "click": click}
    columns["surface"] = np.zeros(len(user), np.int8)
    return SimpleNamespace(
        events=SimpleNamespace(**{name: np.asarray(column)[order] for name, column in columns.items()}),
        users=SimpleNamespace(raw_id=np.arange(USERS)),
        videos=SimpleNamespace(raw_id=np.arange(VIDEOS)),
    )


@pytest.fixture
def store(rng: np.random.Generator) -> SimpleNamespace:
    """Repeats, unclicked views, unknown videos (row 0), and events at and after NOW; videos 36 to 40 are rare."""
    n = 900
    video = np.minimum(rng.integers(0, 36, n), rng.integers(0, 36, n))
    video[:5], user = np.arange(36, 41), rng.integers(1, USERS, n)
    return store_of(user, video, rng.integers(0, 1_500, n), rng.random(n) < 0.7)


def plain_clicks(store: SimpleNamespace) -> dict[int, set[int]]:
    out: dict[int, set[int]] = {}
    e = store.events
    for user, video, time_ms, click in zip(e.user, e.video, e.known_ms, e.click, strict=True):
        if click and time_ms < NOW and video > 0:
            out.setdefault(int(user), set()).add(int(video))
    return out


def plain_swing(clicks: dict[int, set[int]], c: QrcfConfig) -> np.ndarray:
    """Pair of users by pair of users, then the degree normalisation."""
    sim = np.zeros((VIDEOS, VIDEOS))
    weight = {u: (c.swing_user_alpha + len(items)) ** -c.swing_user_beta for u, items in clicks.items()}
    for a, b in itertools.combinations(sorted(clicks), 2):
        both = clicks[a] & clicks[b]
        for i, j in itertools.permutations(both, 2):
            sim[i, j] += weight[a] * weight[b] / (c.swing_alpha + len(both))
    root = np.sqrt(np.maximum(sim.sum(1), 1e-30))
    return (sim / root[:, None] / root) ** c.swing_power


def plain_cosine(clicks: dict[int, set[int]], c: QrcfConfig) -> np.ndarray:
    users = {v: {u for u, items in clicks.items() if v in items} for v in range(VIDEOS)}
    sim = np.zeros((VIDEOS, VIDEOS))
    for i, j in itertools.permutations(range(VIDEOS), 2):
        size = (len(users[i]) + c.shrinkage) * (len(users[j]) + c.shrinkage)
        sim[i, j] = len(users[i] & users[j]) / np.sqrt(size)
    return sim


def as_matrix(similarity: item_similarity.ItemSimilarity) -> np.ndarray:
    out = np.zeros((VIDEOS, VIDEOS))
    for i, (ids, weights) in enumerate(zip(similarity.neighbour_VxM, similarity.weight_VxM, strict=True)):
        assert ((ids > 0) == (weights > 0)).all()
        assert (np.diff(weights) <= 0).all()
        assert len(set(ids[ids > 0])) == (ids > 0).sum()
        out[i, ids[ids > 0]] = weights[ids > 0]
    return out


@pytest.mark.parametrize("dense_cells", [0, 10**8])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_swing_is_the_plain_twin(
    store: SimpleNamespace, dense_cells: int, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_similarity, "DENSE_CELLS", dense_cells)
    config = dataclasses.replace(SWING, swing_power=power)
    got = as_matrix(item_similarity.fit(store, NOW, config))
    np.testing.assert_allclose(got, plain_swing(plain_clicks(store), config), rtol=1e-4, atol=1e-7)
    assert got.any(1).sum() > 20


def test_cosine_is_the_plain_twin(store: SimpleNamespace) -> None:
    got = as_matrix(item_similarity.fit(store, NOW, COSINE))
    np.testing.assert_allclose(got, plain_cosine(plain_clicks(store), COSINE), rtol=1e-5)


@pytest.mark.parametrize("config", [SWING, COSINE])
def test_the_first_m_are_kept(store: SimpleNamespace, config: QrcfConfig) -> None:
    whole = item_similarity.fit(store, NOW, config)
    few = item_similarity.fit(store, NOW, dataclasses.replace(config, neighbours=4, content_fallback=4))
    np.testing.assert_array_equal(few.weight_VxM, whole.weight_VxM[:, :4])
    assert few.neighbour_VxM.shape == (VIDEOS, 4)


@pytest.mark.parametrize("config", [SWING, COSINE])
def test_what_happens_later_changes_nothing(store: SimpleNamespace, config: QrcfConfig) -> None:
    e = store.events
    past = e.known_ms < NOW
    truncated = store_of(e.user[past], e.video[past], e.known_ms[past], e.click[past])
    whole, before = (item_similarity.fit(s, NOW, config) for s in (store, truncated))
    np.testing.assert_array_equal(whole.neighbour_VxM, before.neighbour_VxM)
    np.testing.assert_array_equal(whole.weight_VxM, before.weight_VxM)


def test_pruning_keeps_each_items_best(store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pruning after every other user may lose weak pairs only: the best neighbour survives for most items.
    monkeypatch.setattr(item_similarity, "DENSE_CELLS", 0)
    config = dataclasses.replace(SWING, neighbours=5, content_fallback=5)
    whole = item_similarity.fit(store, NOW, config)
    monkeypatch.setattr(item_similarity, "SPARSE_CELLS", 300)
    pruned = item_similarity.fit(store, NOW, config)
    linked = whole.weight_VxM[:, 0] > 0
    assert (pruned.weight_VxM[linked, 0] > 0).all()
    assert (pruned.neighbour_VxM[linked, 0] == whole.neighbour_VxM[linked, 0]).mean() > 0.7


def test_caps(store: SimpleNamespace) -> None:
    config = dataclasses.replace(SWING, max_items_per_user=3, max_users_per_item=2)
    got = item_similarity.engagement(store, NOW, config).toarray()
    assert got.sum(1).max() == 3
    assert got.sum(0).max() == 2
    np.testing.assert_array_equal(got, item_similarity.engagement(store, NOW, config).toarray())
    assert (got != item_similarity.engagement(store, NOW, config, seed=5).toarray()).any()
    # Without the users' cap of items, the latest three of each user are those kept.
    by_user = item_similarity.engagement(store, NOW, dataclasses.replace(SWING, max_items_per_user=3)).toarray()
    e = store.events
    for user in range(1, USERS):
        mine = (e.user == user) & e.click & (e.known_ms < NOW) & (e.video > 0)
        order = np.argsort(-e.known_ms[mine], kind="stable")
        latest = list(dict.fromkeys(e.video[mine][order].tolist()))[:3]
        assert set(np.flatnonzero(by_user[user])) == set(latest)


def test_content_stands_in_where_nobody_clicked_along(store: SimpleNamespace, rng: np.random.Generator) -> None:
    content = rng.normal(size=(VIDEOS, 8)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    content[[0, 39]] = 0
    plain = item_similarity.fit(store, NOW, SWING)
    got = item_similarity.fit(store, NOW, SWING, item_similarity.ContentNeighbours(content, 3))
    lonely = np.flatnonzero(plain.weight_VxM[:, 0] == 0)
    assert set(lonely) >= {0, 39, 40}
    np.testing.assert_array_equal(np.delete(got.weight_VxM, lonely, 0), np.delete(plain.weight_VxM, lonely, 0))
    # Neither the unknown video nor one without content is given neighbours.
    assert not got.weight_VxM[[0, 39]].any()
    cosine = content @ content[40]
    cosine[[0, 40]] = -1
    np.testing.assert_array_equal(got.neighbour_VxM[40, :3], np.argsort(-cosine)[:3])
    assert not got.neighbour_VxM[40, 3:].any()
    assert 0 < got.weight_VxM[40, 0] <= np.median(plain.weight_VxM[plain.weight_VxM[:, 0] > 0, 0])


@pytest.fixture
def lonely_store() -> SimpleNamespace:
    """Nobody clicks two videos. Videos 1 to 3 are clicked, each once; 4 and 5 are seen only; NOW is 1,000."""
    videos = np.array([1, 2, 3, 4, 5, 5])
    known = np.array([500, 600, 700, 390, 890, 1_500])  # an event begins 90 before
    store = store_of(np.arange(1, 7), videos, known, np.array([1, 1, 1, 0, 0, 0], bool))
    upload_ms = np.zeros(VIDEOS, np.int64)
    upload_ms[6:30] = 100 + np.arange(24)  # the higher row is the newer, all older than the events
    upload_ms[[1, 2, 3]] = [300, 200, 250]
    upload_ms[[30, 31]] = [1_000, 2_000]  # to come
    store.videos.upload_ms = upload_ms
    return store


@pytest.mark.parametrize(
    ("most", "rows"),
    [
        (1, [1]),  # clicked ones, the newest of them
        (2, [1, 3]),
        (3, [1, 2, 3]),
        (4, [1, 2, 3, 5]),  # by its first event, 800
        (5, [1, 2, 3, 4, 5]),  # 300
        (7, [1, 2, 3, 4, 5, 28, 29]),  # by upload, newest first
        (29, list(range(1, 30))),  # all that there is before what is to come
    ],
)
def test_the_newest_fall_back_first_where_not_all_can(lonely_store, most, rows, rng, monkeypatch) -> None:
    content = item_similarity.ContentNeighbours(rng.normal(size=(VIDEOS, 8)).astype(np.float32), 3)
    monkeypatch.setattr(item_similarity, "FALLBACK_ROWS", most)
    got = item_similarity.fit(lonely_store, NOW, SWING, content)
    assert np.flatnonzero(got.weight_VxM[:, 0] > 0).tolist() == rows


def test_all_fall_back_where_they_fit(lonely_store, rng, monkeypatch) -> None:
    """Whatever is known of their ages."""
    vectors = rng.normal(size=(VIDEOS, 8)).astype(np.float32)
    whole = item_similarity.fit(lonely_store, NOW, SWING, item_similarity.ContentNeighbours(vectors, 3))
    assert np.flatnonzero(whole.weight_VxM[:, 0] > 0).tolist() == list(range(1, VIDEOS))
    monkeypatch.setattr(item_similarity, "FALLBACK_ROWS", VIDEOS - 1)
    del lonely_store.videos.upload_ms
    exact = item_similarity.fit(lonely_store, NOW, SWING, item_similarity.ContentNeighbours(vectors, 3))
    assert np.array_equal(whole.neighbour_VxM, exact.neighbour_VxM)


@pytest.mark.parametrize("config", [SWING, COSINE])
def test_a_log_without_clicks(config: QrcfConfig) -> None:
    nothing = np.zeros(0, np.int64)
    got = item_similarity.fit(store_of(nothing, nothing, nothing, nothing.astype(bool)), NOW, config)
    assert not got.weight_VxM.any()
    assert not got.neighbour_VxM.any()


def test_saved_and_loaded(store: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(StaleArtifact, match=r"neighbour\.npy: not found"):
        item_similarity.ItemSimilarity.load(tmp_path)
    fitted = item_similarity.fit(store, NOW, SWING)
    fitted.save(tmp_path)
    loaded = item_similarity.ItemSimilarity.load(tmp_path)
    assert isinstance(loaded.neighbour_VxM, np.memmap)
    np.testing.assert_array_equal(loaded.neighbour_VxM, fitted.neighbour_VxM)
    np.testing.assert_allclose(loaded.matrix.toarray(), as_matrix(fitted))
    np.save(tmp_path / "weight.npy", fitted.weight_VxM[:3])
    with pytest.raises(StaleArtifact, match=r"neighbour\.npy has shape"):
        item_similarity.ItemSimilarity.load(tmp_path)
