"""The trained ranker as a function: padding, blocks and company change no logit; one compilation a padded shape."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import DataConfig, QinConfig
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.models.model_functions import ranker_functions
from pr2_jax.models.qin import QinTask
from pr2_jax.ranking import ranker as ranker_module
from pr2_jax.ranking.features import FEATURES, Scaler, columns
from pr2_jax.ranking.ranker import Ranker
from pr2_jax.retrieval.encoded_requests import EncodedRequests
from pr2_jax.training.embedding_tables import init_tables
from pr2_jax.types import Requests

SIZES = {"video": 30, "word": 12, "author": 5, "category": 6}
WIDTH, USERS = 8, 4


def _reader() -> SimpleNamespace:
    """Histories by user: nobody (row 0) has none."""
    rng = np.random.default_rng(8)
    video = rng.integers(1, 30, (USERS, 6)).astype(np.int32)
    video[0], video[1, :3] = 0, 0
    signals = (rng.random((USERS, 6, 8)) * (video > 0)[..., None]).astype(np.float32)
    gap = (rng.random((USERS, 6)) * 1e5 * (video > 0)).astype(np.float32)

    def engaged(user_B, time_ms_B, n):
        return {"history_BxH": video[user_B], "signals_BxHxG": signals[user_B], "gap_seconds_BxH": gap[user_B]}

    def recent(user_B, time_ms_B, n):
        parts = (x[user_B][:, -n:] for x in (video, signals, gap))
        return dict(zip(("recent_BxR", "recent_signals_BxRxG", "recent_gap_BxR"), parts, strict=True))

    users = SimpleNamespace(profile=rng.integers(0, 3, (USERS, 1)).astype(np.int32))
    return SimpleNamespace(engaged=engaged, recent=recent, store=SimpleNamespace(users=users))


@pytest.fixture(scope="module")
def make():
    rng = np.random.default_rng(4)
    frozen = {
        "content": jnp.asarray(rng.normal(size=(30, WIDTH)), jnp.float32).at[0].set(0.0),
        "author": jnp.asarray(rng.integers(0, 5, 30), jnp.int32),
        "category": jnp.asarray(rng.integers(0, 6, (30, 4)), jnp.int32),
    }
    scaler = Scaler.fit(np.exp(rng.normal(size=(200, len(FEATURES)))).astype(np.float32))

    def make(personal: bool) -> Ranker:
        config = QinConfig(
            personal=personal, width=WIDTH, heads=2, history=6, keep_query=4, keep_video=2, realtime=3, experts=2,
            expert_width=8,
        )  # fmt: skip
        task = QinTask(config, frozen, SIZES, (3,), len(columns(config)))
        params = jax.jit(task.init)(jax.random.key(1))
        tables = init_tables(task.table_specs(), jax.random.key(2))
        function = ranker_functions(task, params, tables)["qin"]
        return Ranker(function, config, SlateReader(_reader(), None, config, DataConfig()), scaler)

    return make


@pytest.fixture(scope="module")
def personal(make) -> Ranker:
    return make(True)


@pytest.fixture
def inputs(rng) -> dict[str, np.ndarray]:
    """Five requests with seven results."""
    return {
        "user_N": np.array([1, 2, 3, 0, 1]),
        "time_ms_N": np.zeros(5, np.int64),
        "words_NxQ": rng.integers(1, 12, (5, 3)).astype(np.int32),
        "content_NxD": rng.normal(size=(5, WIDTH)).astype(np.float32),
        "video_NxS": rng.integers(1, 30, (5, 7)).astype(np.int32),
        "features_NxSxF": np.exp(rng.normal(size=(5, 7, len(FEATURES)))).astype(np.float32),
    }


RESULTS = ("video_NxS", "features_NxSxF")


def _logits(ranker: Ranker, inputs: dict[str, np.ndarray]) -> np.ndarray:
    requests = Requests(inputs["user_N"], inputs["time_ms_N"], inputs["words_NxQ"])
    space = SimpleNamespace(queries=lambda words_BxQ: inputs["content_NxD"])
    encoded = EncodedRequests(requests, SimpleNamespace(space=space))
    return ranker.logits(encoded, *(inputs[name] for name in RESULTS))


def test_alone_and_in_company(personal, inputs):
    together = _logits(personal, inputs)
    assert together.shape == (5, 7, 3)
    for n in range(5):
        alone = _logits(personal, {name: x[n : n + 1] for name, x in inputs.items()})
        np.testing.assert_allclose(alone[0], together[n], atol=1e-5)
    fewer = _logits(personal, inputs | {name: inputs[name][:, 2:5] for name in RESULTS})
    np.testing.assert_allclose(fewer, together[:, 2:5], atol=1e-5)


def test_blocks_of_requests_and_results(personal, inputs, monkeypatch):
    together = _logits(personal, inputs)
    monkeypatch.setattr(ranker_module, "REQUEST_BLOCK", 2)
    monkeypatch.setattr(ranker_module, "RESULT_BLOCK", 4)
    np.testing.assert_allclose(_logits(personal, inputs), together, atol=1e-5)


def test_no_requests(personal, inputs):
    assert _logits(personal, {name: x[:0] for name, x in inputs.items()}).shape == (0, 7, 3)


def test_one_compilation_a_padded_shape(make, inputs):
    fresh, compiled = make(True), set()
    for requests, results in ((5, 7), (5, 5), (5, 6)):
        few = {name: x[:requests] for name, x in inputs.items()}
        _logits(fresh, few | {name: few[name][:, :results] for name in RESULTS})
        compiled.add(fresh._function.program._cache_size())
    assert len(compiled) == 1


def test_base_ranker_reads_its_columns_and_no_person(make, inputs):
    base = make(False)
    plain = _logits(base, inputs)
    assert np.array_equal(_logits(base, inputs | {"user_N": np.array([3, 0, 1, 2, 2])}), plain)
    spoiled = inputs["features_NxSxF"].copy()
    spoiled[..., np.setdiff1d(np.arange(len(FEATURES)), columns(QinConfig(personal=False)))] = 9
    assert np.array_equal(_logits(base, inputs | {"features_NxSxF": spoiled}), plain)
    spoiled[..., 0] = 9
    assert not np.allclose(_logits(base, inputs | {"features_NxSxF": spoiled}), plain)


def test_personal_ranker_reads_the_person(personal, inputs):
    other = _logits(personal, inputs | {"user_N": np.array([2, 2, 3, 0, 1])})
    changed = ~np.isclose(other, _logits(personal, inputs), atol=1e-5).all((1, 2))
    assert changed.tolist() == [True, False, False, False, False]
