"""What every channel, pipeline and ranker answers to the searches of one day, and what each answer was worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pr2_jax import console
from pr2_jax.config.schema import CHANNELS, Config
from pr2_jax.data.batches.slates import Slates, search_slates
from pr2_jax.evaluation.judged_day import Day
from pr2_jax.metrics import ranking_metrics
from pr2_jax.metrics.per_session import Values
from pr2_jax.search.fitted_artifacts import Snapshot
from pr2_jax.search.pipelines import COMPARED, pipelines
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import System
from pr2_jax.types import NO_VIDEO, Requests

SESSION_BLOCK = 128
UNLEARNED = ("random", "popularity")
LISTS = (*UNLEARNED, "bm25", "dr", "bm25+dr", "qrcf", "pdr", "pr2")
ORDER = (*(f"retrieval.{name}" for name in LISTS), "pipeline.base", "pipeline.pr2")
"""Of the rankings of the whole catalogue, in tables."""
UNIQUE_DEPTH = 100
"""Results of a channel within which a clicked video counts as found by it."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Results `[S, K]` of S sessions; padding is id -1, or 0 in a slate."""

    ids_SxK: np.ndarray  # video rows
    scores_SxK: np.ndarray  # float32
    probability_SxK: np.ndarray | None = None  # calibrated chance of a click, where there is one
    heads_SxKxT: np.ndarray | None = None  # and of every task
    of_shown: bool = False  # of what was shown, in all sessions; else of the whole catalogue


@dataclasses.dataclass(frozen=True)
class Answers:
    """Rankings of one day by name: `retrieval.*` and `pipeline.*` of the whole catalogue for the sessions by which
    retrieval is judged, `slate.*` of what was shown for all sessions."""

    day: Day
    slates: Slates
    rankings: dict[str, Ranking]
    searchers: dict[str, Searcher] = dataclasses.field(default_factory=dict)  # by pipeline


def answers(system: System, config: Config, day: Day, names: Sequence[str] = COMPARED) -> Answers:
    """Everything for these pipelines; with none, the channels and merged lists alone (no ranker needs to be there)."""
    searchers = searchers_of(system, day, names)
    slates = search_slates(system.store, day.all_sessions, _longest(system, day), system.log.long_play)
    found = catalogue(system, config, day, searchers)
    if names:
        found |= _slates(system, config, day, slates, searchers)
    return Answers(day, slates, found, searchers)


def values(system: System, given: Answers) -> dict[str, Values]:
    """What each ranking was worth in each session."""
    day, user_N = given.day, np.asarray(system.store.sessions.user)
    positives = np.array([len(videos) for videos in day.clicked])
    shown, clicked = given.slates.video_NxS > 0, given.slates.label("click")
    out, hits = {}, {}
    for name, ranking in given.rankings.items():
        if ranking.of_shown:
            found = ranking_metrics.slate_metrics(ranking.scores_SxK, clicked, shown)
            if clicked[shown].all():  # any order of what was clicked throughout is a perfect one
                found = {metric: np.full(len(value_S), np.nan) for metric, value_S in found.items()}
            out[name] = Values(day.all_sessions, user_N[day.all_sessions], found)
            continue
        out[name], hit = list_values(day, ranking.ids_SxK, ranking.scores_SxK)
        if name.removeprefix("retrieval.") in CHANNELS:
            hits[name] = [row[:UNIQUE_DEPTH][h[:UNIQUE_DEPTH]] for row, h in zip(ranking.ids_SxK, hit, strict=True)]
    for name in hits:
        out[name].metrics["unique@100"] = _unique(name, hits) / positives
    return out


def list_values(day: Day, ids_SxK: np.ndarray, scores_SxK: np.ndarray) -> tuple[Values, np.ndarray]:
    """Of one ranking of the whole catalogue for the sessions by which it is judged, and which results were clicked."""
    real_SxK = ids_SxK > 0
    hit_SxK = np.stack([np.isin(row, videos) for row, videos in zip(ids_SxK, day.clicked, strict=True)]) & real_SxK
    positives_S = np.array([len(videos) for videos in day.clicked])
    found = ranking_metrics.retrieval_metrics(scores_SxK, hit_SxK, real_SxK, positives_S)
    return Values(day.sessions, day.requests.user_B, found), hit_SxK


def _unique(name: str, hits: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Clicked videos of each session that this channel found and no other."""
    others = [hits[other] for other in hits if other != name]
    return np.array(
        [
            len(np.setdiff1d(mine, np.concatenate(theirs) if theirs else []))
            for mine, *theirs in zip(hits[name], *others, strict=True)
        ]
    )


def _longest(system: System, day: Day) -> int:
    first = np.asarray(system.store.sessions.first_impression)
    return int((first[day.all_sessions + 1] - first[day.all_sessions]).max(initial=1))


def searchers_of(system: System, day: Day, names: Sequence[str]) -> dict[str, Searcher]:
    """The pipelines as they stood at the start of a day."""
    snapshot = system.fitted.snapshot(day.start_ms)
    return {name: Searcher.open(system, snapshot, name) for name in names}


def catalogue(system: System, config: Config, day: Day, searchers: Mapping[str, Searcher]) -> dict[str, Ranking]:
    """Rankings of the whole catalogue, for the sessions by which they are judged, a block of them at a time."""
    snapshot = system.fitted.snapshot(day.start_ms)
    channels, merging, parts = system.channels(snapshot), pipelines(config), []
    starts = range(0, len(day.sessions), SESSION_BLOCK)
    for start in console.progress(starts, "retrieve and rank", unit=" blocks"):
        requests = day.requests.slice(start, start + SESSION_BLOCK)
        encoded = system.encode(requests)
        found = {name: channel.retrieve(encoded, config.retrieval.depth) for name, channel in channels.items()}
        part = _unlearned(system, snapshot, requests, config, start)
        part |= {f"retrieval.{name}": (c.ids_BxK, c.scores_BxK) for name, c in found.items()}
        for pipeline in (merging[name] for name in COMPARED):
            merged = system.merged(pipeline, requests, found, config.retrieval.depth)
            part[f"retrieval.{pipeline.merged}"] = (merged.ids_BxK, merged.scores_BxK)
        for name, searcher in searchers.items():
            shallow = searcher.candidates(encoded, found, config.search.candidates)
            ranked = searcher.rank(encoded, shallow)
            part[f"pipeline.{name}"] = (ranked.ids_BxK, ranked.scores_BxK)
        parts.append(part)
    names = [name for name in ORDER if name in parts[0]]
    return {name: Ranking(*(np.concatenate([part[name][i] for part in parts]) for i in (0, 1))) for name in names}


def _unlearned(
    system: System, snapshot: Snapshot, requests: Requests, config: Config, start: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random and popularity rankings of what is not withheld; neither looks at the whole catalogue."""
    seen = requests.seen or (np.zeros(0, np.int32),) * len(requests)
    videos = system.store.counts.videos
    depth = min(config.retrieval.depth, videos - 1)
    popularity_V = np.asarray(snapshot.popularity_V).astype(np.float32)
    most = min(videos, depth + 1 + max((len(gone) for gone in seen), default=0))
    popular = np.lexsort((np.arange(videos), -popularity_V))[:most]
    rng = np.random.default_rng([config.evaluation.seed, start])
    shape = (len(seen), depth)
    out = {name: (np.full(shape, NO_VIDEO, np.int32), np.full(shape, -np.inf, np.float32)) for name in UNLEARNED}
    for row, gone in enumerate(seen):
        drawn = rng.permutation(np.unique(rng.integers(1, videos, 2 * most)))
        for name, ids in zip(UNLEARNED, (drawn, popular), strict=True):
            kept = ids[(ids > 0) & ~np.isin(ids, gone)][:depth]
            scores = popularity_V[kept] if name == "popularity" else np.arange(len(kept), 0, -1)
            out[name][0][row, : len(kept)], out[name][1][row, : len(kept)] = kept, scores
    return {f"retrieval.{name}": ranking for name, ranking in out.items()}


def _slates(
    system: System, config: Config, day: Day, slates: Slates, searchers: Mapping[str, Searcher]
) -> dict[str, Ranking]:
    """Orders of what was shown, for all sessions; of the rankers also calibrated chances of a click."""
    snapshot = system.fitted.snapshot(day.start_ms)
    requests, ids = system.log.requests_of(slates), slates.video_NxS
    scores = {
        "random": np.random.default_rng(config.evaluation.seed).random(ids.shape),
        "popularity": np.asarray(snapshot.popularity_V)[ids],
        "bm25": system.fitted.bm25.scores(requests.words_BxQ, ids),
    }
    out = {
        f"slate.{name}": Ranking(ids, np.asarray(score, np.float32), of_shown=True) for name, score in scores.items()
    }
    for searcher in searchers.values():
        logits = searcher.score(system.encode(requests), ids)
        heads = searcher.probabilities(requests, logits)
        click_NxS = np.asarray(logits[..., 0], np.float32)
        out[f"slate.{searcher.pipeline.ranker}"] = Ranking(ids, click_NxS, heads[..., 0], heads, of_shown=True)
    return out
