"""The functions of the models that lie in a work directory. What is served from an artifact never imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pr2_jax.models.build_tasks import content_task, pdr_task, preference_task, qin_task
from pr2_jax.models.model_functions import (
    content_functions,
    load_model,
    pdr_functions,
    preference_functions,
    ranker_functions,
    ranker_insides,
)
from pr2_jax.training.task import Task
from pr2_jax.types import Functions, ModelFunction

if TYPE_CHECKING:
    from pr2_jax.search.system import System

FUNCTIONS = {
    "content": content_functions,
    "preference": preference_functions,
    "pdr": pdr_functions,
    "qin": ranker_functions,
    "base": ranker_functions,
}


class TrainedModels:
    """Tasks over one system's log, each made once, and finished models, each loaded and compiled once."""

    def __init__(self, system: System) -> None:
        self._system, self._tasks, self._loaded = system, {}, {}

    def functions(self, model: str, directory: Path) -> Functions:
        """Of a model whose parameters lie in `directory`."""
        if (model, directory) not in self._loaded:
            task = self.task(model)
            self._loaded[model, directory] = FUNCTIONS[model](task, *load_model(task, directory))
        return self._loaded[model, directory]

    def insides(self, ranker: str, directory: Path) -> ModelFunction:
        """Of `qin` or `base`: logits, what positions add, and gates (models/model_functions.py)."""
        task = self.task(ranker)
        return ranker_insides(task, *load_model(task, directory))

    def task(self, model: str) -> Task:
        """Of `content`, `preference`, `pdr`, `qin` or `base`."""
        if model not in self._tasks:
            self._tasks[model] = self._make(model)
        return self._tasks[model]

    def _make(self, model: str) -> Task:
        system = self._system
        store, config, catalogue = system.store, system.config, system.catalogue
        if model == "content":
            return content_task(store, config, catalogue)
        content_VxD = np.asarray(system.space.videos_VxD)
        if model == "preference":
            return preference_task(store, config, catalogue, content_VxD)
        if model == "pdr":
            return pdr_task(store, config, catalogue, system.frozen_spaces)
        ranker = config.qin if model == "qin" else config.base
        return qin_task(store, ranker, catalogue, content_VxD, len(system.columns(ranker)))
