"""Tasks from a store: the only place where vocabulary sizes meet models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from pr2_jax.config import Config, QinConfig
from pr2_jax.models.content import ContentTask
from pr2_jax.models.layers import VIDEO_KEYS
from pr2_jax.models.pdr import PdrTask
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.models.qin import QinTask

if TYPE_CHECKING:
    from pr2_jax.data.store.log_store import LogStore

Catalogue = dict[str, np.ndarray]


def content_task(
    store: LogStore, config: Config, catalogue: Catalogue, log_unigram_V: np.ndarray | None = None
) -> ContentTask:
    """The content towers. `log_unigram_V` is needed to train, not to encode."""
    counts = store.counts
    frozen = _frozen(catalogue, VIDEO_KEYS, log_unigram=log_unigram_V)
    return ContentTask(config.content, frozen, counts.words, counts.authors, counts.categories)


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
    """PDR. `spaces`: `content` and `preference` vectors; `log_unigram_V` is needed to train, not to encode."""
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
    arrays = {name: catalogue[name] for name in names if name in catalogue} | others
    return {name: jnp.asarray(x) for name, x in arrays.items() if x is not None}


def _table_sizes(store: LogStore) -> dict[str, int]:
    c = store.counts
    return {"video": c.videos, "word": c.words, "author": c.authors, "category": c.categories}


def _profile_sizes(store: LogStore) -> tuple[int, ...]:
    return tuple(int(size) for size in store.users.profile_sizes)
