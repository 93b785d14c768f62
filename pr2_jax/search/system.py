"""A log, its fitted artifacts and its models, composed into channels, features and rankers.

LogView           store, histories, counters            one per view of the log
FittedArtifacts   choices, indices, snapshots, BM25     one per work directory or serving artifact
Models            trained functions                     of a work directory, or exported
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, workdir
from pr2_jax.config.loader import read
from pr2_jax.config.schema import CHANNELS, Config, QinConfig
from pr2_jax.data.batches.sessions import FOLDS, training_parts
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.history.histories import seen
from pr2_jax.data.log_view import LogView
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders.space_encoders import ContentEncoder, PreferenceEncoder
from pr2_jax.errors import BadConfig, StaleArtifact
from pr2_jax.export.serving_artifact import MADE_BY, ServingArtifact
from pr2_jax.ranking.features import RankingFeatures, Scaler, columns
from pr2_jax.ranking.ranker import Ranker
from pr2_jax.retrieval import item_similarity, merge
from pr2_jax.retrieval.ann import Index
from pr2_jax.retrieval.channels import DenseChannel, PdrEncoder, QrcfChannel
from pr2_jax.retrieval.encoded_requests import Channel, EncodedRequests, Encoders
from pr2_jax.retrieval.item_similarity import ItemSimilarity
from pr2_jax.retrieval.merge import Merged, Scorer
from pr2_jax.retrieval.qrcf import SeedFilter
from pr2_jax.search.fitted_artifacts import FittedArtifacts, Snapshot
from pr2_jax.search.pipelines import Pipeline
from pr2_jax.types import Candidates, Functions, Models, Requests

SPACES = ("content", "preference")
"""Directories of the frozen spaces."""


@dataclasses.dataclass(frozen=True, eq=False)
class System:
    """One log with one set of models. Each piece is opened on first use, so that a stage needs only what it reads."""

    log: LogView
    fitted: FittedArtifacts
    models: Models

    @classmethod
    def open(cls, directory: Path, config: Config) -> System:
        """A work directory, finished or not. On use, StaleArtifact names a stage that is missing or stale."""
        from pr2_jax.search.trained_models import TrainedModels  # not above: a serving artifact needs no model code

        log = LogView.of(LogStore.open(directory / workdir.STORE), config.data)
        fitted = FittedArtifacts(directory, config, log.store)
        return cls(log, fitted, TrainedModels(log, fitted))

    def over(self, store: LogStore) -> System:
        """The same models over another view of the log."""
        return System(dataclasses.replace(self.log, store=store), self.fitted, self.models)

    @property
    def workdir(self) -> Path:
        return self.fitted.directory

    @property
    def config(self) -> Config:
        return self.fitted.config

    @property
    def store(self) -> LogStore:
        return self.log.store

    @functools.cached_property
    def space(self) -> ContentEncoder:
        return self._content(self.workdir / "content")

    @functools.cached_property
    def preference(self) -> PreferenceEncoder:
        return self._preference(self.workdir / "preference", self.workdir / "preference")

    @functools.cached_property
    def seeds(self) -> SeedFilter:
        choices = self.fitted.choices
        qrcf = self.config.retrieval.qrcf
        return SeedFilter(self.log.reader, self.space, qrcf, choices.epsilon, choices.cosine_sample)

    def withheld(self, user_B: np.ndarray, time_ms_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """`Requests.seen` of these people at these times."""
        return seen(self.store, user_B, time_ms_B) if self.fitted.choices.withholds_clicked else ()

    def encode(self, requests: Requests, held_out: int | None = None) -> EncodedRequests:
        """`held_out`: a part of the training days. Its rows need encoders that were not trained on it."""
        return EncodedRequests(requests, self if held_out is None else self._held_out[held_out])

    @functools.cached_property
    def _held_out(self) -> dict[int, Encoders]:
        """Cross-fitted encoders, by part of the training days."""
        out = {}
        for part in training_parts(self.fitted.store).tolist():
            content, preference = (workdir.fold_directory(self.workdir / space, part % FOLDS) for space in SPACES)
            fit = workdir.part_directory(self.workdir / "preference", part)
            out[part] = _HeldOut(self._content(content), self._preference(preference, fit), self)
        return out

    def _content(self, directory: Path) -> ContentEncoder:
        self.fitted.require("content")
        return ContentEncoder(self.models.functions("content", directory), directory)

    def _preference(self, directory: Path, fit: Path) -> PreferenceEncoder:
        self.fitted.require("preference")
        functions = self.models.functions("preference", directory)
        with artifacts.reading(fit):
            return PreferenceEncoder(functions, self.config.preference, directory, self.log.reader, fit)

    @functools.cached_property
    def pdr(self) -> PdrEncoder:
        self.fitted.require("pdr")
        return self.pdr_encoder(self.models.functions("pdr", self.workdir / "pdr"))

    def pdr_encoder(self, functions: Functions) -> PdrEncoder:
        """A dual encoder over this log, perhaps still in training."""
        return PdrEncoder(functions, self.config.pdr.history, self.log.reader)

    def channels(
        self,
        snapshot: Snapshot,
        names: Sequence[str] = CHANNELS,
        *,
        exact: bool = False,
        index: Callable[[str], Index] | None = None,
    ) -> dict[str, Channel]:
        """Channels by name. Fitting needs `exact`. `index` opens the index of `dr` or `pdr`."""
        index = index or functools.partial(self.fitted.index, exact=exact)
        open_channel = {
            "bm25": lambda: self.fitted.bm25,
            "dr": lambda: DenseChannel("dr", lambda encoded: encoded.query_BxD, index("dr")),
            "qrcf": lambda: QrcfChannel(snapshot.similarity),
            "pdr": lambda: DenseChannel("pdr", self.pdr, index("pdr")),
        }
        return {name: open_channel[name]() for name in names}

    def scorers(self, requests: Requests) -> dict[str, Scorer]:
        """Scorers for the merge. Only BM25 matches far more than it returns and is cheap to compute."""
        return {"bm25": lambda ids_BxN: self.fitted.bm25.scores(requests.words_BxQ, ids_BxN)}

    def merged(self, pipeline: Pipeline, requests: Requests, found: Mapping[str, Candidates], k: int) -> Merged:
        """Merges a pipeline's channels with the weights of the validation day."""
        mine = {name: found[name] for name in pipeline.channels}
        return merge.merge(mine, self.fitted.choices.merge_weights[pipeline.name], k, self.scorers(requests))

    def similarity_as_of(self, before_ms: int) -> ItemSimilarity:
        """Item-to-item similarity from clicks strictly before that time."""
        qrcf = self.config.retrieval.qrcf
        return item_similarity.fit(self.store, before_ms, qrcf, self.fitted.content_neighbours)

    @functools.cached_property
    def features(self) -> RankingFeatures:
        log = self.log
        return RankingFeatures(log.counters, log.numbers, self.fitted.bm25, again=self.fitted.choices.counts_own_clicks)

    def columns(self, ranker: QinConfig) -> np.ndarray:
        """The feature columns that a ranker reads."""
        return columns(ranker, again=self.fitted.choices.counts_own_clicks)

    def ranker(self, name: str, directory: Path) -> Ranker:
        """The ranker `qin` or `base` of a ranker directory, finished or in the making."""
        config = self.config.qin if name == "qin" else self.config.base
        requests = SlateReader(self.log.reader, None, config, self.config.data)
        with artifacts.reading(directory):
            scaler = Scaler.load(directory / "scaler.npz")
        function = self.models.functions(name, directory / name)[name]
        return Ranker(function, config, requests, scaler, again=self.fitted.choices.counts_own_clicks)


@dataclasses.dataclass(frozen=True, eq=False)
class _HeldOut:
    """Encoders that were not trained on a part of the training days. The seed filter is not trained, and shared."""

    space: ContentEncoder
    preference: PreferenceEncoder
    system: System

    @property
    def seeds(self) -> SeedFilter:
        return self.system.seeds


def open_system(place: Path, config: Config | None = None) -> System:
    """A serving artifact, or a work directory whose models are finished; `config` may be given for the latter.

    StaleArtifact says what is missing or damaged, and the command to run.
    """
    if (place / artifacts.MANIFEST).exists():
        exported = ServingArtifact.open(place)
        try:
            config = read(place / workdir.CONFIG_FILE)
        except BadConfig as error:  # undamaged, so that another version with other fields wrote it
            raise StaleArtifact(f"{error}: of another version of pr2; make {place} anew with `{MADE_BY}`") from None
        log = LogView.of(LogStore.open(place / workdir.STORE), config.data)
        return System(log, FittedArtifacts(place, config, log.store, verified=True), exported)
    config = config or read(workdir.config_path(place))
    workdir.require("qin", place, config)
    return System.open(place, config)
