"""Builds what retrieval needs: ANN indices, item-to-item snapshots, epsilon, and the weights of the merge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pr2_jax import console
from pr2_jax.config import Config
from pr2_jax.data.batches.sessions import training_sessions
from pr2_jax.data.history.labels import popularity
from pr2_jax.evaluation.judged_day import day_of
from pr2_jax.retrieval import item_similarity, merge
from pr2_jax.retrieval.ann import build_index
from pr2_jax.retrieval.qrcf import QrcfChannel, cosine_sample, fit_epsilon
from pr2_jax.search.system import LADDER, PIPELINES, System
from pr2_jax.stages import refinding_policy
from pr2_jax.types import Candidates, Channel, Requests

EPSILON_SESSIONS = 2_000
"""Training sessions, evenly spread, on which epsilon's quantile is taken."""


def build(workdir: Path, config: Config, out: Path) -> None:
    """Writes `dr/`, `pdr/`, `as_of_*/` and `fitted.json` into `out`."""
    system = System(workdir, config)
    cuts = system.store.cuts
    build_indices(system, {"dr": np.asarray(system.space.videos_VxD), "pdr": system.pdr.videos()}, out)
    for as_of_ms in (cuts.validation_ms, cuts.test_ms, cuts.end_ms):
        _snapshot(system, as_of_ms, out / f"as_of_{as_of_ms}")
    fitted = _threshold(system, config)
    channels = _exact_channels(system, fitted, out)
    fitted |= refinding_policy.decide(system, channels)
    fitted["merge_weights"] = _merge_weights(system, config, channels, withhold=fitted["clicked"] == "withhold")
    (out / "fitted.json").write_text(json.dumps(fitted, indent=1) + "\n")


def build_indices(system: System, vectors: dict[str, np.ndarray], out: Path) -> None:
    """`dr/` and `pdr/` in `out`, from the vectors of every video. Recall is measured on training searches."""
    training = training_sessions(system.store)
    requests = system.requests(training[:: max(1, len(training) // 256)], withhold=False)
    queries = {"dr": system.space.queries(requests.words_BxQ), "pdr": system.pdr(requests)}
    for name, vectors_VxD in vectors.items():
        report = build_index(vectors_VxD, out / name, system.config.retrieval, queries[name])
        console.log(f"{name} index: {report}")


def _snapshot(system: System, as_of_ms: int, out: Path) -> None:
    system.similarity_as_of(as_of_ms).save(out)
    np.save(out / "popularity.npy", popularity(system.store, as_of_ms))


def threshold_requests(system: System) -> Requests:
    """The training searches on which thresholds are fitted."""
    training = training_sessions(system.store)
    sample = training[:: max(1, len(training) // EPSILON_SESSIONS)]
    return system.requests(sample, withhold=False)


def _threshold(system: System, config: Config) -> dict:
    """`epsilon` and, where the threshold is adaptive, `cosine_sample`."""
    qrcf, requests = config.retrieval.qrcf, threshold_requests(system)
    fitted: dict = {"epsilon": fit_epsilon(system.store, system.reader, system.space, qrcf, requests)}
    said = f"epsilon {fitted['epsilon']:.3f} (quantile {qrcf.epsilon_quantile})"
    if qrcf.threshold == "adaptive":
        sample_N = cosine_sample(system.store, system.store.cuts.validation_ms, qrcf.adaptive_sample)
        fitted["cosine_sample"] = sample_N.tolist()
        said = f"adaptive threshold (quantile {qrcf.adaptive_quantile} of {len(sample_N):,} videos)"
    seeds = system.seed_filter(fitted)(requests)
    per_search = (seeds.strength_BxK > 0).sum(1).mean()
    console.log(f"qrcf: {said}, coverage {seeds.coverage:.1%} of searches have a seed, {per_search:.1f} seeds a search")
    return fitted


def retrieve_all(channels: dict, requests: Requests, depth: int) -> dict[str, Candidates]:
    """Every channel's results."""
    return {name: channel.retrieve(requests, depth) for name, channel in channels.items()}


def _exact_channels(system: System, fitted: dict, out: Path) -> dict[str, Channel]:
    """As they stood at the start of the validation day."""
    similarity = item_similarity.ItemSimilarity.load(out / f"as_of_{system.store.cuts.validation_ms}")
    channels: dict[str, Channel] = {"bm25": system.bm25}
    channels["qrcf"] = QrcfChannel(system.seed_filter(fitted), similarity)
    return channels | system.dense_channels(out, exact=True)


def _merge_weights(
    system: System, config: Config, channels: dict[str, Channel], *, withhold: bool
) -> dict[str, dict[str, float]]:
    day = day_of(system, system.store.cuts.validation_ms, system.store.cuts.test_ms, withhold=withhold)
    found = retrieve_all(channels, day.requests, config.retrieval.depth)
    weights, scorers = {}, system.scorers(day.requests)
    for label in (*PIPELINES, *LADDER):
        mine = {name: found[name] for name in system.channels_of(label)}
        weights[label] = merge.choose_weights(mine, day.clicked, scorers=scorers)
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in weights[label].items())
        console.log(f"merge weights {label} (validation day): {shares}")
    return weights
