"""Tasks from a store: the only place where vocabulary sizes meet models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from pr2_jax.config import Config, QinConfig
from pr2_jax.models.content import ContentTask
from pr2_jax.models.layers import VIDEO_KEYS
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.models.qin import QinTask

if TYPE_CHECKING:
    from pr2_jax.data.store.log_store import LogStore

Catalogue = dict[str, np.ndarray]


def profile_sizes(store: LogStore) -> tuple[int, ...]:
    """Vocabulary size of each profile field."""
    return tuple(int(size) for size in store.users.profile_sizes)


def table_sizes(store: LogStore) -> dict[str, int]:
    """Rows of each table that PDR and QIN train."""
    counts = store.counts
    return {
        "video": counts.videos,
        "word": counts.words,
        "author": counts.authors,
        "category": counts.categories,
    }


def content_task(
    store: LogStore, config: Config, catalogue: Catalogue, log_unigram_V: np.ndarray | None = None
) -> ContentTask:
    """The content towers. `log_unigram_V` is needed to train, not to encode."""
    frozen = {name: jnp.asarray(catalogue[name]) for name in VIDEO_KEYS if name in catalogue}
    if log_unigram_V is not None:
        frozen["log_unigram"] = jnp.asarray(log_unigram_V)
    counts = store.counts
    return ContentTask(config.content, frozen, counts.words, counts.authors, counts.categories)


def preference_task(store: LogStore, config: Config, catalogue: Catalogue, content_VxD: np.ndarray) -> PreferenceTask:
    """The preference model."""
    known = [name for name in ("numbers", "author", "category", "brought", "style") if name in catalogue]
    frozen = {name: jnp.asarray(catalogue[name]) for name in known} | {"content": jnp.asarray(content_VxD)}
    return PreferenceTask(config.preference, frozen, table_sizes(store))


def pdr_task(
    store: LogStore,
    config: Config,
    catalogue: Catalogue,
    spaces: dict[str, np.ndarray],
    log_unigram_V: np.ndarray | None = None,
) -> PdrTask:
    """The dual encoder. `spaces`: `content` and `preference` vectors; `log_unigram_V` is needed to train, not to
    encode."""
    known = {name: catalogue[name] for name in VIDEO_KEYS if name in catalogue}
    frozen = {name: jnp.asarray(x) for name, x in {**known, **spaces}.items()}
    if log_unigram_V is not None:
        frozen["log_unigram"] = jnp.asarray(log_unigram_V)
    return PdrTask(config.pdr, frozen, table_sizes(store), profile_sizes(store))


def qin_task(
    store: LogStore, config: QinConfig, catalogue: Catalogue, content_VxD: np.ndarray, features: int
) -> QinTask:
    """A ranker; `config.personal` says which, `features` how many numbers it reads about each result."""
    frozen = {
        "content": jnp.asarray(content_VxD),
        "author": jnp.asarray(catalogue["author"]),
        "category": jnp.asarray(catalogue["category"]),
    }
    if "brought" in catalogue:
        frozen["brought"] = jnp.asarray(catalogue["brought"])
    name = "qin" if config.personal else "base"
    return QinTask(config, frozen, table_sizes(store), profile_sizes(store), features, name)
