"""Trains QIN and the base ranker on slates whose features are as old as they would have been when serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax import workdir as stages
from pr2_jax.config import Config, QinConfig
from pr2_jax.config.loader import to_dict
from pr2_jax.data.batches.sessions import day_start_ms, part_of, training_parts, training_sessions
from pr2_jax.data.batches.slates import Slates, feed_slates, search_slates
from pr2_jax.data.batches.training_batches import QinBatches, SlateReader
from pr2_jax.data.history.video_attributes import query_words
from pr2_jax.models.build_tasks import qin_task
from pr2_jax.ranking.features import FEATURES, RankingFeatures, Scaler
from pr2_jax.retrieval import item_similarity
from pr2_jax.search.system import System
from pr2_jax.stages.fit_scores import fit_scores
from pr2_jax.stages.mine_negatives import joined, sampled
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.types import Requests

FEATURE_BLOCK = 512
"""Slates whose features are computed at a time."""


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `qin/`, `base/`, `scaler.npz` and what was fitted on the validation day into `out`."""
    system = System(workdir, config)
    cuts, size = system.store.cuts, config.qin.slate
    search = search_slates(
        system.store, training_sessions(system.store), size, system.reader.long_play, cuts.validation_ms
    )
    common = _common(workdir, config, out)
    paths = [common / f"{name}.npy" for name in ("negatives", "search_features", "feed_features")]
    count, seed = config.qin.sampled_negatives, config.qin.optim.seed
    search = joined(search, *_cached(paths[:1], lambda: [sampled(system, search, count, seed)]))
    feed = feed_slates(system.reader, 0, cuts.validation_ms, search.video_NxS.shape[1])
    search_features, feed_features = _cached(paths[1:], lambda: features_by_day(system, [search, feed]))
    real = search.video_NxS > 0
    scaler = Scaler.fit(search_features[real])
    distributed.first(lambda: scaler.save(out / "scaler.npz"))
    scaled = (search, scaler(search_features)), (feed, scaler(feed_features))
    lent = _lent_base(workdir, config)
    if lent and lent.exists() and not (out / "base").exists():
        (out / "base").mkdir()
        artifacts.link_tree(lent, out / "base" / "params")
    for name, part in (("qin", config.qin), ("base", config.base)):
        if not distributed.first((out / name / "params").exists):
            _train_one(system, config, part, scaled, out / name)
    if lent and not lent.exists():
        artifacts.link_tree(out / "base" / "params", lent)
    distributed.first(lambda: fit_scores(system, config, out, out))
    if common == out:
        for path in paths:
            distributed.first(path.unlink)


def _common(workdir: Path, config: Config, out: Path) -> Path:
    """Where slates' features lie: in the making, to be dropped with the checkpoints; or kept, where rankers share."""
    shared = workdir / stages.SHARED
    if not shared.is_dir():
        return out
    features = {name: getattr(config.qin, name) for name in ("slate", "sampled_negatives")}
    directory = shared / f"slates_{_digest(workdir, config, features | {'seed': config.qin.optim.seed})}"
    directory.mkdir(exist_ok=True)
    return directory


def _lent_base(workdir: Path, config: Config) -> Path | None:
    """Where rankers that share find the base ranker, which does not depend on the other's config."""
    shared = workdir / stages.SHARED
    if not shared.is_dir():
        return None
    return shared / f"base_{_digest(workdir, config, {'base': to_dict(config.base), 'seed': config.qin.optim.seed})}"


def _digest(workdir: Path, config: Config, facts: dict) -> str:
    """Of the facts, and of everything that the stage reads but the rankers' own config."""
    claim = stages.fingerprint("qin", workdir, config)
    kept = {name: value for name, value in claim["config"].items() if name not in ("qin", "base")}
    return artifacts.digest([claim["inputs"], kept, facts])


def _train_one(system: System, config: Config, ranker: QinConfig, scaled: tuple, out: Path) -> None:
    distributed.first(lambda: out.mkdir(exist_ok=True))
    use = system.columns(ranker)
    (search, search_features), (feed, feed_features) = scaled
    requests = SlateReader(system.reader, system.query_vectors_NqxD, ranker, config.data)
    batches = QinBatches(requests, search, search_features[..., use], feed, feed_features[..., use], ranker)
    task = qin_task(system.store, ranker, system.catalogue, np.asarray(system.space.videos_VxD), len(use))
    state = fit(task, batches, ranker.optim, steps=batches.steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))


def _cached(paths: list[Path], compute: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    """What process 0 computes, kept beside the checkpoints until the stage is done: the others read it, and so does a
    resumed run."""

    def make() -> None:
        if not all(path.exists() for path in paths):
            for path, array in zip(paths, compute(), strict=True):
                artifacts.save_array(path, array)

    distributed.first(make)
    return [np.load(path, mmap_mode="r") for path in paths]


def features_by_day(system: System, parts: list[Slates]) -> list[np.ndarray]:
    """Raw features `[N, S, F]`.

    Item-to-item scores of a day come from a snapshot that ends before that day, content cosines and preference logits
    from spaces that have not learnt from that day (stages/train_content.py, stages/train_preference.py).
    """
    store = system.store
    compute = {int(part): system.features(int(part)) for part in training_parts(store)}
    days = [day_start_ms(store, slates.time_ms_N) for slates in parts]
    held_out = [part_of(store, slates.time_ms_N) for slates in parts]
    out = [np.zeros((*slates.video_NxS.shape, len(FEATURES)), np.float32) for slates in parts]
    for day_ms in console.progress(np.unique(np.concatenate(days)), "features by day", unit=" days"):
        similarity = system.similarity_as_of(int(day_ms))
        for slates, day_N, part_N, features in zip(parts, days, held_out, out, strict=True):
            for part in np.unique(part_N[day_N == day_ms]):
                rows = np.flatnonzero((day_N == day_ms) & (part_N == part))
                for start in range(0, len(rows), FEATURE_BLOCK):
                    block = rows[start : start + FEATURE_BLOCK]
                    features[block] = slate_features(system, compute[int(part)], slates, block, similarity)
    return out


def slate_features(
    system: System,
    compute: RankingFeatures,
    slates: Slates,
    rows: np.ndarray,
    similarity: item_similarity.ItemSimilarity,
) -> np.ndarray:
    """Raw features of some slates against one snapshot."""
    words = query_words(system.store, slates.query_N[rows], system.config.data)
    requests = Requests(slates.user_N[rows], slates.time_ms_N[rows], words)
    return compute(requests, slates.query_N[rows], slates.video_NxS[rows], similarity)
