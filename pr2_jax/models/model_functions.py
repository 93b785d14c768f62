"""Trained models as functions on arrays: what retrieval and ranking call, and what `pr2 export` writes.

Each is a pure program `(weights, batch) -> arrays` with the weights that it reads, and no others: an exported function
carries all that it is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import Array

from pr2_jax import artifacts
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models.content import QUERY, ContentTask
from pr2_jax.models.layers import VIDEO_KEYS, take_videos
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.models.qin import QinTask
from pr2_jax.training.checkpoint import load_params
from pr2_jax.training.embedding_tables import Tables, gather, init_tables
from pr2_jax.training.loop import Batch, Params, Task, shared
from pr2_jax.training.mesh import Schema, floats, ints
from pr2_jax.types import ModelFunction, People

Weights = dict[str, Any]
VIDEOS: Schema = {"video_N": ints("N")}


def load_model(task: Task, directory: Path) -> tuple[dict, dict]:
    """Dense parameters and tables of a trained model."""
    with artifacts.reading(directory):
        params, tables = load_params(directory, _shapes(task))
    return params, tables


@shared
def _shapes(task: Task) -> Any:
    return jax.eval_shape(lambda key: (task.init(key), init_tables(task.table_specs(), key)), jax.random.key(0))


def content_functions(task: ContentTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`content_query`: `words_BxQ` to `[B, D]`; `content_video`: `video_N` to `[N, D]`."""
    query = {"params": _some(params, "query_tower"), "tables": _some(tables, "word")}
    video = {
        "params": _some(params, "video_tower"),
        "tables": _some(tables, "word", "author", "category"),
        "frozen": _some(task.frozen, *VIDEO_KEYS),
    }
    return {
        "content_query": _function(_content_query, task, query, QUERY),
        "content_video": _function(_content_video, task, video, VIDEOS),
    }


def _content_query(task: ContentTask, weights: Weights, batch: Batch) -> Array:
    rows = gather(weights["tables"], task.query_lookups(batch))
    return task.model.apply({"params": weights["params"]}, rows, batch, method="query")


def _content_video(task: ContentTask, weights: Weights, batch: Batch) -> Array:
    video = take_videos(weights["frozen"], batch["video_N"])
    rows = gather(weights["tables"], task.video_lookups(video))
    return task.model.apply({"params": weights["params"]}, rows, video, method="video")


def preference_functions(task: PreferenceTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`preference_says`: one event, `item_NxD` and `signals_NxG`, to `[N, D]`; `preference_logits`: `item_NxSxD` and
    the fields of `People` to what each person adds and to the appeal, `[N, S, T]` both; `preference_video`: `video_N`
    to `[N, D]`."""
    dense, width, signals = {"params": params}, task.config.width, len(SIGNALS)
    event = {"item_NxD": floats("N", width), "signals_NxG": floats("N", signals)}
    people = {"preference_NxD": floats("N", width), "habit_NxG": floats("N", signals), "events_N": floats("N")}
    items = {"item_NxSxD": floats("N", "S", width), **people}
    return {
        "preference_says": _function(_preference_says, task, dense, event),
        "preference_logits": _function(_preference_logits, task, dense, items),
        "preference_video": _function(
            _preference_video, task, {**dense, "tables": tables, "frozen": task.frozen}, VIDEOS
        ),
    }


def _preference_says(task: PreferenceTask, weights: Weights, batch: Batch) -> Array:
    return task.model.apply(weights, batch["item_NxD"], batch["signals_NxG"], method="says")


def _preference_logits(task: PreferenceTask, weights: Weights, batch: Batch) -> tuple[Array, Array]:
    people = People(*(batch[name][:, None] for name in People._fields))
    personal = task.model.apply(weights, batch["item_NxSxD"], people, method="personal")
    return personal, task.model.apply(weights, batch["item_NxSxD"], method="appeal")


def _preference_video(task: PreferenceTask, weights: Weights, batch: Batch) -> Array:
    prepared = task.prepare(weights["frozen"], {"video_E": batch["video_N"]})
    rows = gather(weights["tables"], task.lookups(prepared))
    return task.model.apply({"params": weights["params"]}, rows, prepared["video"], method="item")


def pdr_functions(task: PdrTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`pdr_query_user`: the query side of a batch to `[B, D]`; `pdr_video`: `video_N` to `[N, D]`."""
    query_user = {
        "params": _some(params, "query_user_tower"),
        "tables": _some(tables, "word", "video", "author"),
        "frozen": _some(task.frozen, "content", "author", "brought"),
    }
    video = {
        "params": _some(params, "video_tower"),
        "tables": _some(tables, "word", "video", "author", "category"),
        "frozen": _some(task.frozen, *VIDEO_KEYS, "content", "preference"),
    }
    return {
        "pdr_query_user": _function(_pdr_query_user, task, query_user, task.query_schema),
        "pdr_video": _function(_pdr_video, task, video, VIDEOS),
    }


def _pdr_query_user(task: PdrTask, weights: Weights, batch: Batch) -> Array:
    batch = task.prepare(weights["frozen"], batch)
    rows = gather(weights["tables"], task.lookups(batch))
    return task.model.apply({"params": weights["params"]}, rows, batch, method="query_user")


def _pdr_video(task: PdrTask, weights: Weights, batch: Batch) -> Array:
    video = task.videos(weights["frozen"], batch["video_N"])
    rows = gather(weights["tables"], task.video_lookups(video, batch["video_N"]))
    return task.model.apply({"params": weights["params"]}, rows, video, method="video")


def ranker_functions(task: QinTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`qin` or `base`, as the task is named: a slate to logits `[B, S, T]`."""
    weights = {"params": params, "tables": tables, "frozen": task.frozen}
    return {task.name: _function(_logits, task, weights, task.slate_schema)}


def ranker_insides(task: QinTask, params: Params, tables: Tables) -> ModelFunction:
    """A slate to everything that a ranker computes of it: logits and what the positions of the batch would add to them,
    `[B, S, T]` both, and the gates over the experts `[B, S, T, E]`. For diagnosis; nothing that serves calls it."""
    weights = {"params": params, "tables": tables, "frozen": task.frozen}
    return _function(_everything, task, weights, task.slate_schema)


def _logits(task: QinTask, weights: Weights, batch: Batch) -> Array:
    return _everything(task, weights, batch)[0]


def _everything(task: QinTask, weights: Weights, batch: Batch) -> tuple[Array, Array, Array]:
    batch = task.prepare(weights["frozen"], batch)
    rows = gather(weights["tables"], task.lookups(batch))
    return task.model.apply({"params": weights["params"]}, rows, batch)


def _function(body, task: Task, weights: Weights, inputs: Schema) -> ModelFunction:
    return ModelFunction(_program(task, body), weights, inputs)


@shared
def _program(task: Task, body) -> Callable[[Weights, Batch], Any]:
    return jax.jit(functools.partial(body, task))


def _some(tree: dict, *names: str) -> dict:
    return {name: tree[name] for name in names if name in tree}
