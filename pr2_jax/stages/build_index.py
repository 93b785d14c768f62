"""Builds the retrieval artifacts: BM25 postings, ANN indices, item-to-item snapshots, epsilon, merge weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.history.labels import popularity
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.retrieval import merge, postings
from pr2_jax.retrieval.ann import build_index, load_index
from pr2_jax.retrieval.encoded_requests import Channel
from pr2_jax.retrieval.qrcf import cosine_sample, fit_epsilon
from pr2_jax.search.fitted_artifacts import Choices, Snapshot
from pr2_jax.search.pipelines import pipelines
from pr2_jax.search.system import System
from pr2_jax.stages import refinding_policy
from pr2_jax.types import Requests

EPSILON_SESSIONS = 2_000
"""Training sessions, evenly spread, on which epsilon's quantile is taken."""


def build(workdir: Path, config: Config, out: Path) -> None:
    """Writes `bm25/`, `dr/`, `pdr/`, `as_of_*/` and `fitted.json` into `out`."""
    system = System.open(workdir, config)
    cuts = system.store.cuts
    made = postings.fit(system.store, config.retrieval, out / "bm25")
    system = dataclasses.replace(system, fitted=dataclasses.replace(system.fitted, made_postings=made))
    console.log(f"bm25: {len(made.video):,} pairs of a word and a caption")
    build_indices(system, {"dr": np.asarray(system.space.videos_VxD), "pdr": system.pdr.videos()}, out)
    for as_of_ms in (cuts.validation_ms, cuts.test_ms, cuts.end_ms):
        snapshot = out / f"as_of_{as_of_ms}"
        system.similarity_as_of(as_of_ms).save(snapshot)
        np.save(snapshot / "popularity.npy", popularity(system.store, as_of_ms))
    system = _with_threshold(system)
    # Exact search, with the snapshot of the start of the validation day.
    snapshot = Snapshot.load(out / f"as_of_{cuts.validation_ms}")
    channels = system.channels(snapshot, index=lambda name: load_index(out / name, exact=True))
    choices = dataclasses.replace(system.fitted.choices, **refinding_policy.decide(system, channels))
    weights = _merge_weights(system, channels, withhold=choices.withholds_clicked)
    dataclasses.replace(choices, merge_weights=weights).save(out / "fitted.json")


def build_indices(system: System, vectors: dict[str, np.ndarray], out: Path) -> None:
    """`dr/` and `pdr/` in `out`, from the vectors of every video. Recall is measured on training searches."""
    training = training_sessions(system.store)
    encoded = system.encode(system.log.requests(training[:: max(1, len(training) // 256)], withhold=False))
    queries = {"dr": encoded.query_BxD, "pdr": system.pdr(encoded)}
    for name, vectors_VxD in vectors.items():
        report = build_index(vectors_VxD, out / name, system.config.retrieval, queries[name])
        console.log(f"{name} index: {report}")


def threshold_requests(system: System) -> Requests:
    """The training searches on which thresholds are fitted."""
    training = training_sessions(system.store)
    return system.log.requests(training[:: max(1, len(training) // EPSILON_SESSIONS)], withhold=False)


def _with_threshold(system: System) -> System:
    """The system with QRCF's fitted threshold: `epsilon` and, where it is adaptive, `cosine_sample`."""
    qrcf, requests = system.config.retrieval.qrcf, threshold_requests(system)
    chosen = Choices(fit_epsilon(system.log.reader, system.space, qrcf, requests))
    said = f"epsilon {chosen.epsilon:.3f} (quantile {qrcf.epsilon_quantile})"
    if qrcf.threshold == "adaptive":
        sample_N = cosine_sample(system.store, system.store.cuts.validation_ms, qrcf.adaptive_sample)
        chosen = dataclasses.replace(chosen, cosine_sample=sample_N.tolist())
        said = f"adaptive threshold (quantile {qrcf.adaptive_quantile} of {len(sample_N):,} videos)"
    system = dataclasses.replace(system, fitted=dataclasses.replace(system.fitted, made=chosen))
    seeds = system.seeds(requests)
    per_search = (seeds.strength_BxK > 0).sum(1).mean()
    console.log(f"qrcf: {said}, coverage {seeds.coverage:.1%} of searches have a seed, {per_search:.1f} seeds a search")
    return system


def _merge_weights(system: System, channels: dict[str, Channel], *, withhold: bool) -> dict[str, dict[str, float]]:
    day = day_of(system, system.store.cuts.validation_ms, system.store.cuts.test_ms, withhold=withhold)
    encoded, depth = system.encode(day.requests), system.config.retrieval.depth
    found = {name: channel.retrieve(encoded, depth) for name, channel in channels.items()}
    weights, scorers = {}, system.scorers(day.requests)
    for label, pipeline in pipelines(system.config).items():
        mine = {name: found[name] for name in pipeline.channels}
        weights[label] = merge.choose_weights(mine, day.clicked, scorers=scorers)
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in weights[label].items())
        console.log(f"merge weights {label} (validation day): {shares}")
    return weights
