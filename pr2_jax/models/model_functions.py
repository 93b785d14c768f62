"""Tasks from a store, and trained models as functions on arrays.

Only here do sizes of vocabularies meet models. Retrieval and ranking call the functions, and `pr2 export` writes them.
Each is a pure program `(weights, batch) -> arrays` with only the weights that it reads: an export stores all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pr2_jax import artifacts
from pr2_jax.config import Config, QinConfig
from pr2_jax.data.columns import SIGNALS
from pr2_jax.models.content import QUERY, ContentTask
from pr2_jax.models.layers import VIDEO_KEYS, take_videos
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.models.qin import QinTask
from pr2_jax.training.checkpoint import load_params
from pr2_jax.training.embedding_tables import Lookups, Tables, gather, init_tables
from pr2_jax.training.loop import Batch, Params, Task, shared
from pr2_jax.training.mesh import Schema, floats, ints
from pr2_jax.types import ModelFunction, People

if TYPE_CHECKING:
    from pr2_jax.data.store.log_store import LogStore

Catalogue = dict[str, np.ndarray]
Weights = dict[str, Any]
VIDEOS: Schema = {"video_N": ints("N")}


def content_task(
    store: LogStore, config: Config, catalogue: Catalogue, log_unigram_V: np.ndarray | None = None
) -> ContentTask:
    """The content towers. `log_unigram_V` is needed to train, not to encode."""
    frozen = _frozen(catalogue, VIDEO_KEYS, log_unigram=log_unigram_V)
    return ContentTask(config.content, frozen, _some(_table_sizes(store), "word", "author", "category"))


def preference_task(store: LogStore, config: Config, catalogue: Catalogue, content_VxD: np.ndarray) -> PreferenceTask:
    """The preference model."""
    frozen = _frozen(catalogue, ("numbers", "author", "category", "brought", "style"), content=content_VxD)
    return PreferenceTask(config.preference, frozen, _table_sizes(store))


def pdr_task(
    store: LogStore,
    config: Config,
    catalogue: Catalogue,
    spaces: dict[str, np.ndarray],
    log_unigram_V: np.ndarray | None = None,
) -> PdrTask:
    """PDR. `spaces`: `content` and `preference` vectors; `log_unigram_V` as for the content towers."""
    frozen = _frozen(catalogue, VIDEO_KEYS, **spaces, log_unigram=log_unigram_V)
    return PdrTask(config.pdr, frozen, _table_sizes(store), _profile_sizes(store))


def qin_task(
    store: LogStore, config: QinConfig, catalogue: Catalogue, content_VxD: np.ndarray, features: int
) -> QinTask:
    """The ranker that `config.personal` names; it reads so many `features` of each result."""
    frozen = _frozen(catalogue, ("author", "category", "brought"), content=content_VxD)
    name = "qin" if config.personal else "base"
    return QinTask(config, frozen, _table_sizes(store), _profile_sizes(store), features, name)


def _frozen(catalogue: Catalogue, names: tuple[str, ...], **others: np.ndarray | None) -> dict[str, Array]:
    """Device arrays: those attributes of the catalogue that the log has, and the others that are given."""
    arrays = _some(catalogue, *names) | others
    return {name: jnp.asarray(x) for name, x in arrays.items() if x is not None}


def _table_sizes(store: LogStore) -> dict[str, int]:
    c = store.counts
    return {"video": c.videos, "word": c.words, "author": c.authors, "category": c.categories}


def _profile_sizes(store: LogStore) -> tuple[int, ...]:
    return tuple(int(size) for size in store.users.profile_sizes)


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
    made = functools.partial(_function, task, params, tables)
    of_video = ("video_tower",), ("word", "author", "category"), VIDEO_KEYS
    return {
        "content_query": made(_content_query, QUERY, (("query_tower",), ("word",), ())),
        "content_video": made(_content_video, VIDEOS, of_video),
    }


def _content_query(task: ContentTask, weights: Weights, batch: Batch) -> Array:
    return _apply(task, weights, task.lookups(batch), batch, "query_tower")


def _content_video(task: ContentTask, weights: Weights, batch: Batch) -> Array:
    video = take_videos(weights["frozen"], batch["video_N"])
    return _apply(task, weights, task.lookups({"video": video}), video, "video_tower")


def preference_functions(task: PreferenceTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`preference_says`: an event, `item_NxD` and `signals_NxG`, to `[N, D]`. `preference_logits`: `item_NxSxD` and the
    fields of `People` to personal logits and appeal, `[N, S, T]` both. `preference_video`: `video_N` to `[N, D]`."""
    made, dense = functools.partial(_function, task, params, tables), (params, (), ())
    width, signals = task.config.width, len(SIGNALS)
    event = {"item_NxD": floats("N", width), "signals_NxG": floats("N", signals)}
    people = {"preference_NxD": floats("N", width), "habit_NxG": floats("N", signals), "events_N": floats("N")}
    return {
        "preference_says": made(_preference_says, event, dense),
        "preference_logits": made(_preference_logits, {"item_NxSxD": floats("N", "S", width), **people}, dense),
        "preference_video": made(_preference_video, VIDEOS),
    }


def _preference_says(task: PreferenceTask, weights: Weights, batch: Batch) -> Array:
    return task.model.apply(weights, batch["item_NxD"], batch["signals_NxG"], method="says")


def _preference_logits(task: PreferenceTask, weights: Weights, batch: Batch) -> tuple[Array, Array]:
    people = People(*(batch[name][:, None] for name in People._fields))
    personal = task.model.apply(weights, batch["item_NxSxD"], people, method="personal")
    return personal, task.model.apply(weights, batch["item_NxSxD"], method="appeal")


def _preference_video(task: PreferenceTask, weights: Weights, batch: Batch) -> Array:
    prepared = task.prepare(weights["frozen"], {"video_E": batch["video_N"]})
    return _apply(task, weights, task.lookups(prepared), prepared["video"], "item")


def pdr_functions(task: PdrTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`pdr_query_user`: the query side of a batch to `[B, D]`; `pdr_video`: `video_N` to `[N, D]`."""
    made = functools.partial(_function, task, params, tables)
    of_query = ("query_user_tower",), ("word", "video", "author"), ("content", "author", "brought")
    of_video = ("video_tower",), ("word", "video", "author", "category"), (*VIDEO_KEYS, "content", "preference")
    return {
        "pdr_query_user": made(_pdr_query_user, task.query_schema, of_query),
        "pdr_video": made(_pdr_video, VIDEOS, of_video),
    }


def _pdr_query_user(task: PdrTask, weights: Weights, batch: Batch) -> Array:
    batch = task.prepare(weights["frozen"], batch)
    return _apply(task, weights, task.lookups(batch), batch, "query_user_tower")


def _pdr_video(task: PdrTask, weights: Weights, batch: Batch) -> Array:
    video = take_videos(weights["frozen"], batch["video_N"], "content", "preference")
    return _apply(task, weights, task.lookups({"video": video, "ids_N": batch["video_N"]}), video, "video_tower")


def ranker_functions(task: QinTask, params: Params, tables: Tables) -> dict[str, ModelFunction]:
    """`qin` or `base`, as the task is named: a slate to logits `[B, S, T]`."""
    return {task.name: _function(task, params, tables, _ranker_logits, task.slate_schema)}


def ranker_insides(task: QinTask, params: Params, tables: Tables) -> ModelFunction:
    """For diagnosis: a slate to logits and position logits, `[B, S, T]` both, and the gates `[B, S, T, E]`."""
    return _function(task, params, tables, _ranker_outputs, task.slate_schema)


def _ranker_logits(task: QinTask, weights: Weights, batch: Batch) -> Array:
    return _ranker_outputs(task, weights, batch)[0]


def _ranker_outputs(task: QinTask, weights: Weights, batch: Batch) -> tuple[Array, Array, Array]:
    batch = task.prepare(weights["frozen"], batch)
    return _apply(task, weights, task.lookups(batch), batch)


def _apply(task: Task, weights: Weights, lookups: Lookups, inputs: Batch, part: str | None = None) -> Any:
    """A tower or method of the model (default: all of it) on its inputs and on the rows that `lookups` read."""
    method = part and (lambda model, *given: getattr(model, part)(*given))
    return task.model.apply({"params": weights["params"]}, gather(weights["tables"], lookups), inputs, method=method)


def _function(task: Task, params: Params, tables: Tables, body, inputs: Schema, reads=None) -> ModelFunction:
    """`reads`: names of the parameters, tables and frozen arrays that `body` reads (default: all)."""
    weights = {"params": params, "tables": tables, "frozen": task.frozen}
    if reads:
        weights = {part: _some(tree, *names) for (part, tree), names in zip(weights.items(), reads, strict=True)}
    return ModelFunction(_program(task, body), {part: tree for part, tree in weights.items() if tree}, inputs)


@shared
def _program(task: Task, body) -> Callable[[Weights, Batch], Any]:
    return jax.jit(functools.partial(body, task))


def _some(tree: dict, *names: str) -> dict:
    return {name: tree[name] for name in names if name in tree}
