"""A catalogue of 40 videos and one fixed batch a model; widths as small as they can be."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax.config import ContentConfig, OptimConfig, PdrConfig, PreferenceConfig, QinConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models.content import ContentTask
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.models.qin import QinTask
from pr2_jax.training.embedding_tables import gather
from pr2_jax.training.loop import init_state, make_step

SIZES = {"video": 40, "word": 30, "author": 9, "category": 12}
WIDTH, PREFERENCE, PROFILES, FEATURES = 8, 3, (3, 4), 5
OPTIM = OptimConfig(batch=4, clip_norm=1e9, seed=1, table_optimizer="adam")


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _ids(rng: np.random.Generator, table: str, *shape: int, lowest: int = 1) -> np.ndarray:
    return rng.integers(lowest, SIZES[table], shape).astype(np.int32)


@pytest.fixture(scope="session")
def frozen() -> dict[str, jax.Array]:
    """Catalogue arrays, unit content vectors (row 0 is zero) and a skewed unigram."""
    rng, videos = np.random.default_rng(5), SIZES["video"]
    content = _unit(rng.normal(size=(videos, WIDTH)))
    content[0] = 0
    share = rng.random(videos) ** 3 + 0.01
    arrays = {
        "caption": _ids(rng, "word", videos, 5, lowest=0),
        "author": _ids(rng, "author", videos, lowest=0),
        "category": _ids(rng, "category", videos, 4, lowest=0),
        "numbers": rng.normal(size=(videos, 4)).astype(np.float32),
        "brought": _unit(rng.normal(size=(videos, 6))),
        "content": content,
        "preference": rng.normal(size=(videos, PREFERENCE)).astype(np.float32),
        "log_unigram": np.log(share / share.sum()).astype(np.float32),
    }
    return {name: jnp.asarray(array) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def content_task(frozen) -> ContentTask:
    catalogue = {name: x for name, x in frozen.items() if name not in ("content", "preference")}
    config = ContentConfig(width=WIDTH, hidden=12, uniform_negatives=6, optim=OPTIM)
    return ContentTask(config, catalogue, {name: SIZES[name] for name in ("word", "author", "category")})


@pytest.fixture(scope="session")
def preference_task(frozen) -> PreferenceTask:
    known = {name: frozen[name] for name in ("content", "numbers", "author", "category", "brought")}
    return PreferenceTask(PreferenceConfig(width=WIDTH, pseudo_events=2.0, id_dropout=0.5, optim=OPTIM), known, SIZES)


@pytest.fixture(scope="session")
def pdr_task(frozen) -> PdrTask:
    config = PdrConfig(width=WIDTH, hidden=12, heads=2, history=6, uniform_negatives=5, optim=OPTIM)
    return PdrTask(config, frozen, SIZES, PROFILES)


@pytest.fixture(scope="session")
def make_qin(frozen) -> Callable[..., QinTask]:
    def make(**changes) -> QinTask:
        wanted = {"width": WIDTH, "heads": 2, "history": 12, "keep_query": 6, "keep_video": 3, "realtime": 4}
        wanted |= {"experts": 3, "expert_width": 8, "slate": 5, "optim": OPTIM} | changes
        known = {name: frozen[name] for name in ("content", "author", "category", "brought")}
        return QinTask(QinConfig(**wanted), known, SIZES, PROFILES, FEATURES)

    return make


@pytest.fixture(scope="session")
def qin_task(make_qin) -> QinTask:
    return make_qin()


@pytest.fixture
def content_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    words = _ids(rng, "word", 4, 3)
    words[1, 2], words[2, 1:] = 0, 0
    return {"words_BxQ": words, "video_B": _ids(rng, "video", 4), "uniform_N": _ids(rng, "video", 6)}


def _events(rng: np.random.Generator, size: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video rows padded in front (the last row wholly), signals and gaps in seconds."""
    video = _ids(rng, "video", size, length)
    video[1, : length // 2], video[-1] = 0, 0
    signals = rng.random((size, length, len(SIGNALS))).astype(np.float32) * (video > 0)[..., None]
    gap = (10 ** (rng.random((size, length)) * 6) * (video > 0)).astype(np.float32)
    return video, signals, gap


@pytest.fixture
def preference_batch() -> dict[str, np.ndarray]:
    """Timelines of 4 and 3 events; the third and fourth share their time, the fifth is a search click."""
    rng = np.random.default_rng(14)
    return {
        "video_E": _ids(rng, "video", 7),
        "signals_ExG": rng.random((7, len(SIGNALS))).astype(np.float32),
        "first_E": np.array([0, 0, 0, 0, 4, 4, 4], np.int32),
        "end_E": np.array([0, 1, 2, 2, 4, 5, 6], np.int32),
        "label_ExT": (rng.random((7, 3)) < 0.5).astype(np.float32),
        "weight_ExT": np.repeat(np.array([[1], [1], [1], [1], [0], [1], [1]], np.float32), 3, 1),
    }


@pytest.fixture
def pdr_batch() -> dict[str, np.ndarray]:
    """Three searches, of which 0 and 1 are one session, and a feed view (empty query) without a past."""
    rng = np.random.default_rng(12)
    words, query = _ids(rng, "word", 4, 3), _unit(rng.normal(size=(4, WIDTH)))
    words[1, 2], words[3], query[3] = 0, 0, 0
    video, signals, gap = _events(rng, 4, 6)
    hard = _ids(rng, "video", 4, 2)
    hard[3] = 0
    return {
        "words_BxQ": words,
        "query_content_BxD": query,
        "profile_BxP": rng.integers(0, 3, (4, 2)).astype(np.int32),
        "preference_BxD": rng.normal(size=(4, PREFERENCE)).astype(np.float32),
        "video_B": np.array([1, 2, 3, 4], np.int32),
        "shown_B": np.array([1, 7, 8, 0], np.int32),
        "uniform_N": np.array([11, 12, 13, 14, 15], np.int32),
        "hard_BxK": np.array([[21, 22], [23, 24], [25, 26], [0, 0]], np.int32),
        "feedback_BxT": np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32),
        "session_B": np.array([5, 5, 6, -1], np.int32),
        "history_BxH": video,
        "signals_BxHxG": signals,
        "gap_seconds_BxH": gap,
    }


@pytest.fixture
def qin_batch() -> dict[str, np.ndarray]:
    """Two search slates (the second of 3 results) and a feed slate of a person without a past."""
    rng = np.random.default_rng(13)
    words, query = _ids(rng, "word", 3, 3), _unit(rng.normal(size=(3, WIDTH)))
    words[2], query[2] = 0, 0
    video, signals, gap = _events(rng, 3, 12)
    recent, recent_signals, recent_gap = _events(rng, 3, 4)
    results = np.stack([rng.permutation(np.arange(1, 40))[:5] for _ in range(3)]).astype(np.int32)
    results[1, 3:] = 0
    real = results > 0
    label = (rng.random((3, 5, 3)) < 0.5) * real[..., None]
    label[:, 0, 0] = True
    weight = np.repeat(real[..., None], 3, -1).astype(np.float32)
    weight[:2, :, 1:] = 0
    position = np.where(real, np.arange(5), -1)
    position[2] = -1
    return {
        "words_BxQ": words,
        "query_content_BxD": query,
        "profile_BxP": rng.integers(0, 3, (3, 2)).astype(np.int32),
        "is_feed_B": np.array([0, 0, 1], np.float32),
        "history_BxH": video,
        "signals_BxHxG": signals,
        "gap_seconds_BxH": gap,
        "recent_BxR": recent,
        "recent_signals_BxRxG": recent_signals,
        "recent_gap_BxR": recent_gap,
        "video_BxS": results,
        "position_BxS": position.astype(np.int32),
        "features_BxSxF": rng.normal(size=(3, 5, FEATURES)).astype(np.float32),
        "label_BxSxT": label.astype(np.float32),
        "weight_BxSxT": weight,
    }


@functools.cache
def _reader(task):
    def read(tables, frozen, batch):
        batch = task.prepare(frozen, batch)
        return batch, gather(tables, task.lookups(batch))

    return jax.jit(read)


@functools.cache
def _model(task, method):
    part = method and (lambda model, *given: getattr(model, method)(*given))
    return jax.jit(lambda params, rows, batch: task.model.apply({"params": params}, rows, batch, method=part))


@functools.cache
def _loss(task, gradient):
    def loss(params, rows, batch):
        return task.loss(params, rows, batch, jax.random.key(0))

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True) if gradient else loss)


@pytest.fixture(scope="session")
def read():
    """(prepared batch, rows) as the step and the serving functions make them. One compilation a shape, as below."""
    return lambda task, tables, batch: _reader(task)(tables, task.frozen, batch)


@pytest.fixture(scope="session")
def apply():
    """The model of a task on rows and a prepared batch, without dropout."""
    return lambda task, params, rows, batch, method=None: _model(task, method)(params, rows, batch)


@pytest.fixture(scope="session")
def loss_of(read):
    """Loss and metrics of a batch as it comes from a builder."""

    def loss_of(task, weights, batch):
        prepared, rows = read(task, weights[1], batch)
        return _loss(task, False)(weights[0], rows, prepared)

    return loss_of


@pytest.fixture(scope="session")
def gradient_of(read):
    """(loss, gradient by parameters, gradient by rows, prepared batch)."""

    def gradient_of(task, weights, batch):
        prepared, rows = read(task, weights[1], batch)
        (loss, _), (by_params, by_rows) = _loss(task, True)(weights[0], rows, prepared)
        return loss, by_params, by_rows, prepared

    return gradient_of


@functools.cache
def _fresh(task):
    return init_state(task, OPTIM, 10)


@pytest.fixture(scope="session")
def weights_of():
    """Fresh (parameters, tables) of a task."""
    return lambda task: (_fresh(task).params, _fresh(task).tables)


@pytest.fixture(scope="session")
def one_step():
    """Loss, gradient norm and update norm of a fixed batch, by the very step that trains.

    The gradient is read off Adam's first moment (nothing is clipped here). The update is that of the second step: at
    the first the warm-up's learning rate is 0.
    """

    def norm(tree) -> float:
        return float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree))))

    def one_step(task, batch) -> dict[str, float]:
        step, fresh = make_step(task, OPTIM, 10), _fresh(task)
        state, metrics = step(jax.tree.map(jnp.copy, fresh), task.frozen, batch)
        moments = state.dense_opt[1][0].mu, [memory.mu for memory in state.table_opt.values()]
        out = {"loss": float(metrics["loss"]), "gradient": norm(moments) / 0.1}
        state, _ = step(state, task.frozen, batch)
        moved = jax.tree.map(lambda new, old: new - old, (state.params, state.tables), (fresh.params, fresh.tables))
        return out | {"update": norm(moved)}

    return one_step
