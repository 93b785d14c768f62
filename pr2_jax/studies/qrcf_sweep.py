"""`pr2 evaluate --sweep qrcf`: QRCF's threshold and K, swept on the validation day. The test day is not read.

Points are of two families: one epsilon for all queries, and the adaptive threshold. Each is judged alone and merged
with the other channels under the index's weights; for the configured point and the best ones the weights are chosen
anew. Finished points are kept in `points/`, so that a killed run resumes.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console, workdir
from pr2_jax.config.loader import to_dict
from pr2_jax.config.schema import THRESHOLDS, Config, QrcfConfig
from pr2_jax.data.history.event_reader import EventReader
from pr2_jax.errors import BadConfig, BadInput
from pr2_jax.evaluation.judged_day import Day, Refinding, day_of
from pr2_jax.evaluation.rankings import catalogue_metrics
from pr2_jax.metrics import diversity, per_session
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.retrieval import merge
from pr2_jax.retrieval.channels import QrcfChannel
from pr2_jax.retrieval.qrcf import SeedFilter, Seeds, cosine_sample, epsilon_at, past_cosines
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.pipelines import pipelines
from pr2_jax.search.system import System
from pr2_jax.stages.build_index import threshold_requests
from pr2_jax.types import Candidates

SCHEMA = "1"
DIRECTORY = "sweep_qrcf"
PIPELINE = "pr2"
MOST_SEARCHES = 2_000
"""Searches of the day that are judged, evenly spread: more would narrow the intervals little."""
ALONE, MERGED, REFITTED = "alone", "merged", "refitted"
"""A point's lists: QRCF's own, and the merged ones with the index's weights and with refitted ones."""
METRICS = ("recall@10", "recall@100", "ndcg@10")
LEAST = 1e-9
"""A seed's cosine is above 0, whatever epsilon is."""
DEPTH = 100
"""Of merged lists: no metric looks deeper."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Points are both families x K, and the configured one."""

    quantile: tuple[float, ...] = (0.0, 0.6, 0.8, 0.9, 0.94, 0.97)  # epsilon_quantile
    adaptive: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # adaptive_quantile
    k: tuple[int, ...] = (5, 20, 50, 200)
    refitted: int = 3  # best points of each family, by the merge with the index's weights, whose weights are refitted


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """One setting of the filter."""

    threshold: str  # of THRESHOLDS
    k: int
    quantile: float

    @property
    def name(self) -> str:
        return f"{self.threshold}_{self.quantile:g}_k{self.k}"

    def config(self, qrcf: QrcfConfig) -> QrcfConfig:
        field = "adaptive_quantile" if self.threshold == "adaptive" else "epsilon_quantile"
        return dataclasses.replace(qrcf, k=self.k, threshold=self.threshold, **{field: self.quantile})


@dataclasses.dataclass(frozen=True)
class Judged:
    """A point with the metrics of its lists: `ALONE`, `MERGED` and, where weights were refitted, `REFITTED`."""

    point: Point
    metrics: dict[str, PerSession]
    epsilon: float  # mean over queries where adaptive
    weights: dict[str, float] | None = None  # of the refitted merge


Pairs = list[tuple[Judged, Judged]]
"""An adaptive point, and one epsilon that keeps as many seeds."""


def configured(qrcf: QrcfConfig) -> Point:
    """The point that the work directory uses."""
    quantile = qrcf.adaptive_quantile if qrcf.threshold == "adaptive" else qrcf.epsilon_quantile
    return Point(qrcf.threshold, qrcf.k, quantile)


def points_of(grid: Grid, qrcf: QrcfConfig) -> list[Point]:
    """All points in order; a K above the history that is filtered is left out."""
    fits = {Point(name, k, q) for name in THRESHOLDS for q in getattr(grid, name) for k in grid.k if k <= qrcf.history}
    return sorted(fits | {configured(qrcf)}, key=lambda p: (THRESHOLDS.index(p.threshold), p.k, p.quantile))


def fingerprint(directory: Path, config: Config, grid: Grid) -> dict:
    """All that the study depends on. StaleArtifact where the index is missing or was made from something else."""
    workdir.require("index", directory, config)
    if "qrcf" not in config.retrieval.channels:
        raise BadConfig(f"retrieval.channels = {config.retrieval.channels!r} lacks qrcf: there is nothing to sweep")
    reads = (*workdir.STAGES["index"].reads, "index")
    inputs, evaluation = {part: artifacts.identity(directory / part) for part in reads}, config.evaluation
    figures = {"bootstrap": evaluation.bootstrap, "seed": evaluation.seed, "most_searches": MOST_SEARCHES}
    return {"inputs": inputs, "config": figures, "grid": to_dict(grid)}


def judge(directory: Path, config: Config, out: Path, grid: Grid) -> tuple[list[Judged], Pairs, Refinding]:
    """Judges every point that `out/points/` does not hold yet, and refits the merge of the best ones."""
    study = Study(System.open(directory, config), config)
    (out / "points").mkdir(exist_ok=True)
    points, judged, pairs = points_of(grid, config.retrieval.qrcf), {}, []
    for point in console.progress(points, "points", unit=" points"):
        judged[point] = _once(out, point, point.name, functools.partial(study.judge, point))
    chosen = best_of(judged.values(), MERGED, grid.refitted) | {configured(config.retrieval.qrcf)}
    chosen = [point for point in points if point in chosen]
    for point in console.progress(chosen, "merge weights", unit=" points"):
        again = _once(out, point, f"{REFITTED}_{point.name}", functools.partial(study.refit, judged[point]))
        judged[point] = dataclasses.replace(again, metrics=judged[point].metrics | again.metrics)
    for one in console.progress(list(judged.values()), "equally many seeds", unit=" points"):
        if one.point.threshold == "adaptive" and one.point.k == config.retrieval.qrcf.k:
            point = study.alike(one)
            pairs.append((one, _once(out, point, point.name, functools.partial(study.judge, point))))
    return list(judged.values()), pairs, study.day.refinding


def objective(judged: Judged, by: str) -> float:
    """The mean of recall@100 and NDCG@10, by which merge weights are chosen, too."""
    return float(np.nanmean((judged.metrics[by]["recall@100"] + judged.metrics[by]["ndcg@10"]) / 2))


def best_of(judged: Iterable[Judged], by: str, most: int) -> set[Point]:
    """The best points of each family; among equals the one with fewer seeds at most and the stricter cut."""
    found = set()
    for name in THRESHOLDS:
        mine = [one for one in judged if one.point.threshold == name and by in one.metrics]
        mine.sort(key=lambda one: (-objective(one, by), one.point.k, -one.point.quantile))
        found |= {one.point for one in mine[:most]}
    return found


class Study:
    """Judges points on the searches of the validation day; what does not depend on the point is computed once."""

    def __init__(self, system: System, config: Config) -> None:
        self._system, self._config = system, config
        self._reader, self._pipeline = _ReadOnce(system.log.reader), pipelines(config)[PIPELINE]

    @functools.cached_property
    def day(self) -> Day:
        """Searches of the validation day with a click, `MOST_SEARCHES` at most."""
        cuts = self._system.store.cuts
        day = day_of(self._system, cuts.validation_ms, cuts.test_ms)
        if not len(day.sessions):
            raise BadInput("no search of the validation day has a click: there is nothing to judge by")
        return day.sample(MOST_SEARCHES)

    @functools.cached_property
    def _found(self) -> dict[str, Candidates]:
        """Candidates of the other channels, exact: merge weights are chosen by them."""
        others = [name for name in self._pipeline.channels if name != "qrcf"]
        channels = self._system.channels(self._snapshot, others, exact=True)
        depth, encoded = self._config.retrieval.depth, self._system.encode(self.day.requests)
        names = console.progress(others, "other channels", unit=" channels")
        return {name: channels[name].retrieve(encoded, depth) for name in names}

    @functools.cached_property
    def _snapshot(self) -> Snapshot:
        return self._system.fitted.snapshot(self._system.store.cuts.validation_ms)

    @functools.cached_property
    def _past_cosine_N(self) -> np.ndarray:
        requests = threshold_requests(self._system)
        return past_cosines(self._system.log.reader, self._system.space, self._config.retrieval.qrcf, requests)

    @functools.cached_property
    def _query_SxD(self) -> np.ndarray:
        return self._system.space.queries(self.day.requests.words_BxQ)

    def _filter(self, point: Point) -> SeedFilter:
        """As the index stage would fit it: on the training days."""
        qrcf, store = point.config(self._config.retrieval.qrcf), self._system.store
        epsilon = epsilon_at(self._past_cosine_N, qrcf.epsilon_quantile)
        sample_N = cosine_sample(store, store.cuts.validation_ms, qrcf.adaptive_sample)
        return SeedFilter(self._reader, self._system.space, qrcf, epsilon, sample_N)

    def _retrieve(self, point: Point) -> tuple[float, Seeds, Candidates]:
        seeds_of, channel = self._filter(point), QrcfChannel(self._snapshot.similarity)
        seeds = seeds_of(self.day.requests, self._query_SxD)
        epsilon = float(np.mean(seeds_of.cuts(self._query_SxD)))
        return epsilon, seeds, channel.from_seeds(seeds, self.day.requests, self._config.retrieval.depth)

    def judge(self, point: Point) -> Judged:
        """QRCF alone, and merged with the index's weights."""
        epsilon, seeds, own = self._retrieve(point)
        kept_S = (seeds.strength_BxK > 0).sum(1)
        alone, videos = self._metrics(own), self._system.store.videos
        alone.metrics.update(coverage=(kept_S > 0).astype(np.float64), seeds=kept_S.astype(np.float64))
        known = self._system.space.videos_VxD, videos.category, videos.author
        alone.metrics.update(diversity.list_metrics(own.ids_BxK, self._query_SxD, *known))
        merged = self._merged(own, self._system.fitted.choices.merge_weights[PIPELINE])
        return Judged(point, {ALONE: alone, MERGED: merged}, epsilon)

    def refit(self, judged: Judged) -> Judged:
        """The merge with weights chosen for this point. The index's stay where the search finds none better: it climbs
        from equal weights and may end in a local optimum."""
        _, _, own = self._retrieve(judged.point)
        scorers = self._system.scorers(self.day.requests)
        weights = merge.choose_weights(self._together(own), self.day.clicked, scorers=scorers)
        found = Judged(judged.point, {REFITTED: self._merged(own, weights)}, judged.epsilon, weights)
        if objective(found, REFITTED) >= objective(judged, MERGED):
            return found
        kept = self._system.fitted.choices.merge_weights[PIPELINE]
        return dataclasses.replace(found, metrics={REFITTED: judged.metrics[MERGED]}, weights=kept)

    def alike(self, judged: Judged) -> Point:
        """The quantile of one epsilon, to four decimals, with which searches have as many seeds on average."""
        lax = Point("quantile", judged.point.k, 0.0)
        # Stricter cuts keep the first of these.
        relevance_SxK = self._filter(lax)(self.day.requests, self._query_SxD).relevance_BxK
        wanted, steps = float(judged.metrics[ALONE]["seeds"].mean()), 10_000

        def excess(step: int) -> float:
            epsilon = max(epsilon_at(self._past_cosine_N, step / steps), LEAST)
            return float((relevance_SxK >= np.float32(epsilon)).sum(1).mean()) - wanted

        first = bisect.bisect_left(range(steps), 0.0, key=lambda step: -excess(step))
        return dataclasses.replace(lax, quantile=min((max(first - 1, 0), first), key=lambda s: abs(excess(s))) / steps)

    def _together(self, own: Candidates) -> dict[str, Candidates]:
        return {name: own if name == "qrcf" else self._found[name] for name in self._pipeline.channels}

    def _merged(self, own: Candidates, weights: dict[str, float]) -> PerSession:
        scorers = self._system.scorers(self.day.requests)
        return self._metrics(merge.merge(self._together(own), weights, DEPTH, scorers))

    def _metrics(self, found: Candidates | merge.Merged) -> PerSession:
        metrics, _ = catalogue_metrics(self.day, found.ids_BxK, found.scores_BxK)
        return dataclasses.replace(metrics, metrics={name: metrics[name] for name in METRICS})


class _ReadOnce(EventReader):
    """Keeps histories: every point reads the same ones, and reading takes longer than filtering."""

    def __init__(self, reader: EventReader) -> None:
        super().__init__(reader.store, reader.long_play)
        object.__setattr__(self, "_read", {})

    def engaged(self, user_B: np.ndarray, time_ms_B: np.ndarray, n: int) -> dict[str, np.ndarray]:
        key = (user_B.tobytes(), time_ms_B.tobytes(), n)
        if key not in self._read:
            self._read[key] = super().engaged(user_B, time_ms_B, n)
        return self._read[key]


def _once(out: Path, point: Point, name: str, make: Callable[[], Judged]) -> Judged:
    """Reads a point from `points/`, judged first where it is not there: the JSON comes last, so the metrics are too."""
    place, beside = out / "points" / f"{name}.npz", out / "points" / f"{name}.new.npz"
    if not place.with_suffix(".json").exists():
        judged = make()
        per_session.save(beside, judged.metrics)
        beside.replace(place)
        artifacts.write_json(place.with_suffix(".json"), {"epsilon": judged.epsilon, "weights": judged.weights})
    return _read(out, point, name)


def _read(out: Path, point: Point, name: str) -> Judged:
    facts = json.loads((out / "points" / f"{name}.json").read_text())
    return Judged(point, per_session.load(out / "points" / f"{name}.npz"), facts["epsilon"], facts["weights"])
