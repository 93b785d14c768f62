"""Rankings of one day by every channel, merged list, pipeline and ranker, and their per-session metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pr2_jax import console
from pr2_jax.config.schema import CHANNELS, Config
from pr2_jax.data.batches.slates import Slates, search_slates
from pr2_jax.evaluation.judged_day import Day
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.per_session import PerSession
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.pipelines import BASE, COMPARED, pipelines
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System
from pr2_jax.types import NO_VIDEO, Requests

SESSION_BLOCK = 128
BASELINES = ("random", "popularity")
LISTS = (*BASELINES, *dict.fromkeys((*BASE.channels, BASE.merged, *CHANNELS, "pr2")))
ORDER = (*(f"retrieval.{name}" for name in LISTS), "pipeline.base", "pipeline.pr2")
"""Of the rankings of the whole catalogue, in tables."""
UNIQUE_DEPTH = 100
"""Results of a channel within which a clicked video counts as found by it."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Results `[S, K]` of S sessions; padding is id -1, or 0 in a slate."""

    ids_SxK: np.ndarray  # video rows
    scores_SxK: np.ndarray  # float32
    probability_SxK: np.ndarray | None = None  # calibrated click probability, where there is one
    heads_SxKxT: np.ndarray | None = None  # calibrated probability of every task
    of_shown: bool = False  # of shown results, in all sessions; else of the whole catalogue


@dataclasses.dataclass(frozen=True)
class Rankings:
    """Rankings of one day by name. `retrieval.*` and `pipeline.*` rank the whole catalogue for the sessions on which
    retrieval is judged, `slate.*` the shown results of all sessions."""

    day: Day
    slates: Slates
    by_name: dict[str, Ranking]
    searchers: dict[str, Searcher] = dataclasses.field(default_factory=dict)  # by pipeline


def rank_day(system: System, config: Config, day: Day, names: Sequence[str] = COMPARED) -> Rankings:
    """Every ranking for these pipelines; without any, channels and merged lists alone, for which no ranker is read."""
    first = np.asarray(system.store.sessions.first_impression)
    longest = int((first[day.all_sessions + 1] - first[day.all_sessions]).max(initial=1))
    slates = search_slates(system.store, day.all_sessions, longest, system.log.long_play)
    searchers = searchers_of(system, day, names)
    found = rank_catalogue(system, config, day, searchers)
    if names:
        found |= _rank_slates(system, config, day, slates, searchers)
    return Rankings(day, slates, found, searchers)


def session_metrics(system: System, rankings: Rankings) -> dict[str, PerSession]:
    """Per-session metrics of each ranking, of channels also the share of clicks that no other channel finds."""
    day, user_N = rankings.day, np.asarray(system.store.sessions.user)
    shown, clicked = rankings.slates.video_NxS > 0, rankings.slates.label("click")
    out, hits = {}, {}
    for name, ranking in rankings.by_name.items():
        if ranking.of_shown:
            found = ranking_metrics.slate_metrics(ranking.scores_SxK, clicked, shown)
            if clicked[shown].all():  # any order of what was clicked throughout is a perfect one
                found = {metric: np.full(len(value_S), np.nan) for metric, value_S in found.items()}
            out[name] = PerSession(day.all_sessions, user_N[day.all_sessions], found)
            continue
        out[name], hit = catalogue_metrics(day, ranking.ids_SxK, ranking.scores_SxK)
        if name.removeprefix("retrieval.") in CHANNELS:
            hits[name] = [row[:UNIQUE_DEPTH][h[:UNIQUE_DEPTH]] for row, h in zip(ranking.ids_SxK, hit, strict=True)]
    for name, mine in hits.items():
        others = [found for other, found in hits.items() if other != name]
        alone = [len(np.setdiff1d(ids, np.concatenate([[], *rest]))) for ids, *rest in zip(mine, *others, strict=True)]
        out[name].metrics["unique@100"] = np.array(alone) / [len(videos) for videos in day.clicked]
    return out


def catalogue_metrics(day: Day, ids_SxK: np.ndarray, scores_SxK: np.ndarray) -> tuple[PerSession, np.ndarray]:
    """Metrics of one ranking of the whole catalogue, and which of its results were clicked."""
    real_SxK = ids_SxK > 0
    hit_SxK = np.stack([np.isin(row, videos) for row, videos in zip(ids_SxK, day.clicked, strict=True)]) & real_SxK
    positives_S = np.array([len(videos) for videos in day.clicked])
    found = ranking_metrics.retrieval_metrics(scores_SxK, hit_SxK, real_SxK, positives_S)
    return PerSession(day.sessions, day.requests.user_B, found), hit_SxK


def searchers_of(system: System, day: Day, names: Sequence[str]) -> dict[str, Searcher]:
    """These pipelines with the snapshot of the day's start."""
    snapshot = system.fitted.snapshot(day.start_ms)
    return {name: Searcher.open(system, snapshot, name) for name in names}


def rank_catalogue(system: System, config: Config, day: Day, searchers: Mapping[str, Searcher]) -> dict[str, Ranking]:
    """Rankings of the whole catalogue, a block of sessions at a time."""
    snapshot = system.fitted.snapshot(day.start_ms)
    channels, merging, parts = system.channels(snapshot), pipelines(config), []
    starts = range(0, len(day.sessions), SESSION_BLOCK)
    for start in console.progress(starts, "retrieve and rank", unit=" blocks"):
        requests = day.requests.slice(start, start + SESSION_BLOCK)
        encoded = system.encode(requests)
        found = {name: channel.retrieve(encoded, config.retrieval.depth) for name, channel in channels.items()}
        part = _baselines(snapshot, requests, config, start)
        part |= {f"retrieval.{name}": (c.ids_BxK, c.scores_BxK) for name, c in found.items()}
        wanted = dict.fromkeys((*COMPARED, *searchers))
        merged = {name: system.merged(merging[name], requests, found, config.retrieval.depth) for name in wanted}
        for name in COMPARED:
            part[f"retrieval.{merging[name].merged}"] = (merged[name].ids_BxK, merged[name].scores_BxK)
        for name, searcher in searchers.items():  # the candidates are the head of the deep list
            shallow = searcher.filled(encoded, merged[name].best(config.search.candidates))
            ranked = searcher.rank(encoded, shallow)
            part[f"pipeline.{name}"] = (ranked.ids_BxK, ranked.scores_BxK)
        parts.append(part)
    names = [name for name in ORDER if name in parts[0]]
    return {name: Ranking(*(np.concatenate([part[name][i] for part in parts]) for i in (0, 1))) for name in names}


def _baselines(
    snapshot: Snapshot, requests: Requests, config: Config, start: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random and popularity rankings of what is not withheld; neither scores the whole catalogue."""
    seen = requests.seen or (np.zeros(0, np.int32),) * len(requests)
    popularity_V = np.asarray(snapshot.popularity_V).astype(np.float32)
    videos = len(popularity_V)
    depth = min(config.retrieval.depth, videos - 1)
    most = min(videos, depth + 1 + max((len(gone) for gone in seen), default=0))
    popular = np.argsort(-popularity_V, kind="stable")[:most]
    rng = np.random.default_rng([config.evaluation.seed, start])
    shape = (len(seen), depth)
    out = {name: (np.full(shape, NO_VIDEO, np.int32), np.full(shape, -np.inf, np.float32)) for name in BASELINES}
    for row, gone in enumerate(seen):
        drawn = rng.permutation(np.unique(rng.integers(1, videos, 2 * most)))
        for name, ids in zip(BASELINES, (drawn, popular), strict=True):
            kept = ids[(ids > 0) & ~np.isin(ids, gone)][:depth]
            scores = popularity_V[kept] if name == "popularity" else np.arange(len(kept), 0, -1)
            out[name][0][row, : len(kept)], out[name][1][row, : len(kept)] = kept, scores
    return {f"retrieval.{name}": ranking for name, ranking in out.items()}


def _rank_slates(
    system: System, config: Config, day: Day, slates: Slates, searchers: Mapping[str, Searcher]
) -> dict[str, Ranking]:
    """Orders of the shown results, for all sessions; of the rankers also calibrated probabilities."""
    snapshot = system.fitted.snapshot(day.start_ms)
    requests, ids = system.log.requests_of(slates), slates.video_NxS
    scores = {
        "random": np.random.default_rng(config.evaluation.seed).random(ids.shape),
        "popularity": np.asarray(snapshot.popularity_V)[ids],
        "bm25": system.fitted.bm25.scores(requests.words_BxQ, ids),
    }
    out = {f"slate.{name}": Ranking(ids, np.asarray(one, np.float32), of_shown=True) for name, one in scores.items()}
    for searcher in searchers.values():
        logits = searcher.score(system.encode(requests), ids)
        heads = searcher.probabilities(requests, logits)
        click = np.asarray(logits[..., 0], np.float32)
        out[f"slate.{searcher.pipeline.ranker}"] = Ranking(ids, click, heads[..., 0], heads, of_shown=True)
    return out
