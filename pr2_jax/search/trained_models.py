"""Trained models of a work directory. Serving from an artifact never imports this."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax.data.log_view import LogView
from pr2_jax.models import model_functions as models
from pr2_jax.ranking.features import columns
from pr2_jax.search.fitted_artifacts import FittedArtifacts
from pr2_jax.training.loop import Task
from pr2_jax.types import Functions, ModelFunction

FUNCTIONS = {
    "content": models.content_functions,
    "preference": models.preference_functions,
    "pdr": models.pdr_functions,
    "qin": models.ranker_functions,
    "base": models.ranker_functions,
}


class TrainedModels:
    """Tasks and trained models over one log, each loaded once."""

    def __init__(self, log: LogView, fitted: FittedArtifacts) -> None:
        self._log, self._fitted, self._tasks, self._loaded = log, fitted, {}, {}

    def functions(self, model: str, directory: Path) -> Functions:
        if (model, directory) not in self._loaded:
            task = self.task(model)
            self._loaded[model, directory] = FUNCTIONS[model](task, *models.load_model(task, directory))
        return self._loaded[model, directory]

    def insides(self, ranker: str, directory: Path) -> ModelFunction:
        """Logits, position terms and gates of `qin` or `base` (models/model_functions.py)."""
        task = self.task(ranker)
        return models.ranker_insides(task, *models.load_model(task, directory))

    def task(self, model: str) -> Task:
        if model not in self._tasks:
            self._tasks[model] = self._make(model)
        return self._tasks[model]

    def _make(self, model: str) -> Task:
        store, config, catalogue = self._log.store, self._fitted.config, self._log.catalogue
        if model == "content":
            return models.content_task(store, config, catalogue)
        content_VxD = np.asarray(self._fitted.vectors("content"))
        if model == "preference":
            return models.preference_task(store, config, catalogue, content_VxD)
        if model == "pdr":
            spaces = {"content": content_VxD, "preference": np.asarray(self._fitted.vectors("preference"))}
            return models.pdr_task(store, config, catalogue, spaces)
        ranker = config.qin if model == "qin" else config.base
        read = columns(ranker, again=self._fitted.choices.counts_own_clicks)
        return models.qin_task(store, ranker, catalogue, content_VxD, len(read))
