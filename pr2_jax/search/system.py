"""Everything trained and indexed, opened from a work directory or a serving artifact, each piece on first use.

Both hold the same files at the same places. Only the functions of the models differ in where they come from: from the
model's code and its parameters (search/trained_models.py), or from exported programs (export/serving_artifact.py).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pr2_jax import artifacts, workdir
from pr2_jax.config.loader import read
from pr2_jax.config.schema import CHANNELS, Config, QinConfig
from pr2_jax.data.batches.sessions import FOLDS, training_parts
from pr2_jax.data.batches.slates import Slates
from pr2_jax.data.batches.training_batches import SlateReader
from pr2_jax.data.history.counters import Counters
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.data.history.histories import seen
from pr2_jax.data.history.labels import LongPlay
from pr2_jax.data.history.video_attributes import VideoNumbers, catalogue_arrays, query_words
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders.content_encoder import ContentEncoder
from pr2_jax.encoders.pdr_encoder import PdrEncoder
from pr2_jax.encoders.preference_encoder import PreferenceEncoder
from pr2_jax.errors import BadConfig, StaleArtifact
from pr2_jax.export.serving_artifact import MADE_BY, ServingArtifact
from pr2_jax.ranking.features import RankingFeatures, Scaler, columns
from pr2_jax.ranking.query_numbers import QueryNumbers
from pr2_jax.ranking.ranker import Ranker
from pr2_jax.retrieval import item_similarity, merge
from pr2_jax.retrieval.ann import load_index
from pr2_jax.retrieval.bm25 import Bm25Channel
from pr2_jax.retrieval.dense import DenseChannel
from pr2_jax.retrieval.item_similarity import ContentNeighbours, ItemSimilarity
from pr2_jax.retrieval.merge import Merged, Scorer
from pr2_jax.retrieval.qrcf import QrcfChannel, SeedFilter
from pr2_jax.types import Candidates, Channel, Functions, Requests

if TYPE_CHECKING:
    from pr2_jax.search.trained_models import TrainedModels

PIPELINES = ("base", "pr2")
"""The two that are compared. `base` knows nothing of the person: bm25, dr, and the ranker without the person."""
LADDER = {"+qrcf": ("qrcf",), "+pdr": ("pdr",), "+qrcf+pdr": ("qrcf", "pdr"), "+qin": ()}
"""Steps from one to the other, for experiments: channels that each adds to those of `base`."""
RANKERS = {"base": "base", "+qrcf": "base", "+pdr": "base", "+qrcf+pdr": "base", "+qin": "qin", "pr2": "qin"}
"""By pipeline, its ranker."""
SCORES = {"base": "base", "qin": "pr2"}
"""By ranker, the pipeline with whose candidates its scores were fused."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What was counted strictly before `as_of_ms`."""

    as_of_ms: int
    similarity: ItemSimilarity | None  # None where nobody who serves from it walks
    popularity_V: np.ndarray  # clicks per video, float32


class System:
    """The opened work directory, or serving artifact where `exported` is given.

    `store` may be a truncated one (the leak probe).
    """

    def __init__(
        self, directory: Path, config: Config, store: LogStore | None = None, exported: ServingArtifact | None = None
    ) -> None:
        self.workdir, self.config, self.exported = directory, config, exported
        if store is None:
            store = LogStore.open(directory / "store")
        self.store = store

    def over(self, store: LogStore) -> System:
        """The same system over another view of the log (the leak probe's). What is trained or fitted is shared."""
        view = System(self.workdir, self.config, store, self.exported)
        shared = ["bm25", "space", "held_out_spaces", "fitted", "content_neighbours"]
        shared += ["trained"] if self.exported is None else []
        view.__dict__ |= {name: getattr(self, name) for name in shared}
        view.__dict__["reader"] = EventReader(store, self.reader.long_play)
        view.__dict__["preference"] = self.preference.over(view.reader)
        preferences = self.held_out_preferences.items()
        view.__dict__["held_out_preferences"] = {part: preference.over(view.reader) for part, preference in preferences}
        return view

    @functools.cached_property
    def reader(self) -> EventReader:
        """Histories; long play as the training days define it."""
        return EventReader(self.store, LongPlay.fit(self.store, self.store.cuts.validation_ms, self.config.data))

    @functools.cached_property
    def catalogue(self) -> dict[str, np.ndarray]:
        """Video attributes as the training days knew them."""
        return catalogue_arrays(self.store, self.store.cuts.validation_ms, self.config.data)

    @functools.cached_property
    def space(self) -> ContentEncoder:
        """The frozen content space."""
        self.require("content")
        return self._space_in(self.workdir / "content")

    @functools.cached_property
    def held_out_spaces(self) -> list[ContentEncoder]:
        """By fold: content spaces that have not learnt from the clicks of its days. Each has axes of its own."""
        self.require("content")
        return [self._space_in(workdir.fold_directory(self.workdir / "content", fold)) for fold in range(FOLDS)]

    def _space_in(self, directory: Path) -> ContentEncoder:
        return ContentEncoder(self.functions("content", directory), directory)

    def functions(self, model: str, directory: Path) -> Functions:
        """Of `content`, `preference`, `pdr`, `qin` or `base`; `directory` holds its parameters in a work directory."""
        return self.trained.functions(model, directory) if self.exported is None else self.exported

    @functools.cached_property
    def trained(self) -> TrainedModels:
        """The models in the work directory."""
        from pr2_jax.search.trained_models import TrainedModels  # not above: what is exported needs no model code

        return TrainedModels(self)

    @functools.cached_property
    def query_vectors_NqxD(self) -> np.ndarray:
        """Content vectors of the log's distinct queries; row 0 is the empty query."""
        return np.load(self.workdir / "content" / "query_vectors.npy", mmap_mode="r")

    @functools.cached_property
    def preference(self) -> PreferenceEncoder:
        """The frozen preference space."""
        self.require("preference")
        directory = self.workdir / "preference"
        return self._preference_in(directory, self.functions("preference", directory), directory)

    @functools.cached_property
    def held_out_preferences(self) -> dict[int, PreferenceEncoder]:
        """By part of the training days: a preference space that has not learnt from the feed views of its days."""
        self.require("preference")
        preference = self.workdir / "preference"
        folds = [workdir.fold_directory(preference, fold) for fold in range(FOLDS)]
        functions = [self.functions("preference", directory) for directory in folds]
        return {
            part: self._preference_in(
                folds[part % FOLDS], functions[part % FOLDS], workdir.part_directory(preference, part)
            )
            for part in training_parts(self.store).tolist()
        }

    def _preference_in(self, directory: Path, functions: Functions, fit: Path) -> PreferenceEncoder:
        with artifacts.reading(fit):
            return PreferenceEncoder(functions, self.config.preference, directory, self.reader, fit)

    @functools.cached_property
    def pdr(self) -> PdrEncoder:
        """The trained dual encoder."""
        self.require("pdr")
        return self.pdr_encoder(self.functions("pdr", self.workdir / "pdr"))

    def pdr_encoder(self, functions: Functions) -> PdrEncoder:
        """A dual encoder, also one still in training, over this log."""
        return PdrEncoder(functions, self.config.pdr.history, self.reader, self.space, self.preference)

    @property
    def frozen_spaces(self) -> dict[str, np.ndarray]:
        """Vectors of every video in both frozen spaces."""
        return {"content": np.asarray(self.space.videos_VxD), "preference": np.asarray(self.preference.videos_VxD)}

    @functools.cached_property
    def bm25(self) -> Bm25Channel:
        """Captions against queries."""
        return Bm25Channel(self.store, self.config.retrieval)

    def channels_of(self, pipeline: str) -> tuple[str, ...]:
        """The channels that it merges, in the order of `CHANNELS`."""
        if pipeline == "base" or pipeline in LADDER:
            return ("bm25", "dr", *LADDER.get(pipeline, ()))
        return tuple(name for name in CHANNELS if name in self.config.retrieval.channels.split("+"))

    def merged(self, pipeline: str, requests: Requests, found: Mapping[str, Candidates], k: int) -> Merged:
        """One list of a pipeline's channels, with the weights of the validation day."""
        mine = {name: found[name] for name in self.channels_of(pipeline)}
        return merge.merge(mine, self.fitted["merge_weights"][pipeline], k, self.scorers(requests))

    @functools.cached_property
    def fitted(self) -> dict:
        """What the index stage chose: `epsilon`, `merge_weights` (pipeline to channel to weight), `clicked` (`show` or
        `withhold`) and, where QRCF's threshold is adaptive, `cosine_sample` (video rows)."""
        self.require("index")
        with artifacts.reading(self.workdir / "index"):
            return json.loads((self.workdir / "index" / "fitted.json").read_text())

    @property
    def withholds_clicked(self) -> bool:
        """Whether nobody finds again what they clicked before, as the index stage decided
        (stages/refinding_policy.py)."""
        return self.fitted["clicked"] == "withhold"

    def withheld(self, user_B: np.ndarray, time_ms_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """`Requests.seen` of these people at these times."""
        return seen(self.store, user_B, time_ms_B) if self.withholds_clicked else ()

    @functools.cached_property
    def seeds(self) -> SeedFilter:
        """QRCF's filter with the threshold fitted to this content space."""
        return self.seed_filter(self.fitted)

    def seed_filter(self, fitted: dict) -> SeedFilter:
        """The filter with a threshold, also one that the index stage has just fitted."""
        qrcf = self.config.retrieval.qrcf
        return SeedFilter(self.reader, self.space, qrcf, fitted["epsilon"], fitted.get("cosine_sample"))

    @functools.cached_property
    def content_neighbours(self) -> ContentNeighbours:
        """The nearest videos by content, searched as they are asked for."""
        return ContentNeighbours(np.asarray(self.space.videos_VxD), self.config.retrieval.qrcf.content_fallback)

    def similarity_as_of(self, before_ms: int) -> ItemSimilarity:
        """Item-to-item similarity fitted on what was strictly before that time."""
        return item_similarity.fit(self.store, before_ms, self.config.retrieval.qrcf, self.content_neighbours)

    def snapshot(self, as_of_ms: int) -> Snapshot:
        """The snapshot that the index holds for that moment."""
        self.require("index")
        directory = self.workdir / "index" / f"as_of_{as_of_ms}"
        with artifacts.reading(directory):
            popularity = np.load(directory / "popularity.npy", mmap_mode="r")
            return Snapshot(as_of_ms, ItemSimilarity.load(directory), popularity)

    def channels(self, snapshot: Snapshot, *, exact: bool = False) -> dict[str, Channel]:
        """The four channels, in the order in which `merge` weighs them. `exact`: as what is fitted must see them."""
        dense = self.dense_channels(self.workdir / "index", exact=exact)
        qrcf = QrcfChannel(self.seeds, snapshot.similarity)
        return {"bm25": self.bm25, "dr": dense["dr"], "qrcf": qrcf, "pdr": dense["pdr"]}

    def dense_channels(self, index: Path, *, exact: bool = False) -> dict[str, Channel]:
        """`dr` and `pdr` over the indices in a directory, also one in the making."""
        encoders = {"dr": lambda r: self.space.queries(r.words_BxQ), "pdr": self.pdr}
        with artifacts.reading(index):
            opened = {name: load_index(index / name, exact=exact) for name in encoders}
        return {name: DenseChannel(name, encode, opened[name]) for name, encode in encoders.items()}

    def scorers(self, requests: Requests) -> dict[str, Scorer]:
        """Channels that can cheaply rate what only other channels returned: BM25 matches far more than it returns."""
        return {"bm25": lambda ids_BxN: self.bm25.scores(requests.words_BxQ, ids_BxN)}

    def features(self, held_out: int | None = None) -> RankingFeatures:
        """The ranker's features over this store; `held_out`: for training rows of that part of the training days."""
        space, preference = self.space, self.preference
        if held_out is not None:
            space, preference = self.held_out_spaces[held_out % FOLDS], self.held_out_preferences[held_out]
        again = not self.withholds_clicked
        return RankingFeatures(self.counters, space, preference, self.bm25, self.numbers, self.seeds, again=again)

    def columns(self, ranker: QinConfig) -> np.ndarray:
        """Of those features the columns that a ranker reads."""
        return columns(ranker, again=not self.withholds_clicked)

    @functools.cached_property
    def numbers(self) -> VideoNumbers:
        """Durations and ages of videos as they stood at any moment."""
        return VideoNumbers(self.store)

    @functools.cached_property
    def query_numbers(self) -> QueryNumbers:
        """What calibration is told about queries."""
        return QueryNumbers(self.counters)

    @functools.cached_property
    def counters(self) -> Counters:
        """Counts of the log as they stood at any moment."""
        return Counters(self.store)

    def ranker(self, name: str, directory: Path) -> Ranker:
        """`qin` or `base`, from a finished ranker directory or one in the making."""
        config = self.config.qin if name == "qin" else self.config.base
        requests = SlateReader(self.reader, None, config, self.config.data)
        with artifacts.reading(directory):
            scaler = Scaler.load(directory / "scaler.npz")
        again = not self.withholds_clicked
        return Ranker(self.functions(name, directory / name)[name], config, requests, scaler, again=again)

    def requests(self, sessions_N: np.ndarray, *, withhold: bool | None = None) -> Requests:
        """The searches of some sessions. `withhold`: videos clicked before from retrieval; None: as was decided."""
        user = np.asarray(self.store.sessions.user)[sessions_N]
        time_ms = np.asarray(self.store.sessions.time_ms)[sessions_N]
        words = query_words(self.store, np.asarray(self.store.sessions.query)[sessions_N], self.config.data)
        withhold = self.withholds_clicked if withhold is None else withhold
        return Requests(user, time_ms, words, seen(self.store, user, time_ms) if withhold else ())

    def requests_of(self, slates: Slates) -> Requests:
        """The requests of slates, for ranking alone: nothing is withheld."""
        return Requests(slates.user_N, slates.time_ms_N, query_words(self.store, slates.query_N, self.config.data))

    def require(self, stage: str) -> None:
        """StaleArtifact where a stage is missing or was made from something else. An artifact was checked whole."""
        if self.exported is None:
            workdir.require(stage, self.workdir, self.config)


def open_system(place: Path, config: Config | None = None) -> System:
    """A serving artifact, or a work directory whose models are finished; `config` may be given for the latter.

    StaleArtifact says what is missing or damaged, and the command to run.
    """
    if (place / artifacts.MANIFEST).exists():
        exported = ServingArtifact.open(place)
        try:
            return System(place, read(place / workdir.CONFIG_FILE), exported=exported)
        except BadConfig as error:  # whole, so of a version with other fields
            raise StaleArtifact(f"{error}: of another version of pr2; make {place} anew with `{MADE_BY}`") from None
    if config is None and not (place / workdir.CONFIG_FILE).exists():
        raise StaleArtifact(f"{place} is not a work directory (no config.json): make it with `pr2 run`")
    system = System(place, config or read(place / workdir.CONFIG_FILE))
    system.require("qin")
    return system
