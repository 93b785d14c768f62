"""Trains preference embeddings on the feed views of the training days and freezes a vector for every video.

Like the content towers they are trained three times (cross-fitting), since the ranker also trains on feed views. The
latent factors of people and videos that follow take seconds to fit, so that their folds are finer: the ranker trains on
factors from nearly as many responses as those that it serves with.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import PREFERENCE_LABELS, Config
from pr2_jax.data.batches.preference_batches import TimelineBatches
from pr2_jax.data.batches.sessions import FOLDS, fold_of, training_parts
from pr2_jax.data.batches.slates import feed_slates
from pr2_jax.data.columns import FEED_SURFACE, SIGNALS
from pr2_jax.data.outcomes import told_labels
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders import latent_factors, preference_regression
from pr2_jax.encoders.batching import all_videos, in_blocks
from pr2_jax.encoders.latent_factors import Videos
from pr2_jax.encoders.space_encoders import EVENT_BLOCK, PreferenceEncoder
from pr2_jax.errors import NotFinite
from pr2_jax.metrics.ranking_metrics import auc
from pr2_jax.models.model_functions import load_model, preference_functions, preference_task
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.search.system import System
from pr2_jax.stages.preference_responses import responses
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.training.training_curve import announce
from pr2_jax.types import Functions, People
from pr2_jax.workdir import fold_directory, part_directory

VECTORS = "video_vectors.npy"


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/` and `video_vectors.npy [V, D]` into `out` and each of its folds; zeros without feed views.

    What the preference regressions read, `preference_regression.FILES`, goes into `out` and each of its parts.
    """
    system = System.open(workdir, config)
    task = preference_task(system.store, config, system.log.catalogue, np.asarray(system.fitted.vectors("content")))
    spaces: dict[Path, int | None] = {out: None} | {fold_directory(out, fold): fold for fold in range(FOLDS)}
    for directory, held_out in spaces.items():
        if not distributed.first((directory / VECTORS).exists):
            _train_space(system, config, task, held_out, directory)

    def fit_people() -> None:
        parts = training_parts(system.store).tolist()
        for directory, held_out in console.progress(spaces.items(), "fit people and videos", unit=" spaces"):
            fits: dict[Path, int | None] = {out: None}
            if held_out is not None:
                fits = {part_directory(out, part): part for part in parts if part % FOLDS == held_out}
            missing = {place: part for place, part in fits.items() if not (place / preference_regression.FILE).exists()}
            if missing:
                functions = preference_functions(task, *load_model(task, directory))
                _fit_people(system, functions, held_out, directory, missing)

    distributed.first(fit_people)
    distributed.first(lambda: _report(system, preference_functions(task, *load_model(task, out)), out))


def _train_space(system: System, config: Config, task: PreferenceTask, held_out: int | None, out: Path) -> None:
    """The vectors are written last, by a rename: they mark the directory complete."""
    distributed.first(lambda: out.mkdir(exist_ok=True))
    batches = TimelineBatches(system.log.reader, config.preference, held_out)
    learns = _has_views(system.store, held_out)
    length = batches.length if learns else dataclasses.replace(batches.length, steps=1, cut=False)
    announce(length, "preference", out, held_out)
    state = fit(task, batches, config.preference.optim, steps=length.steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))

    def freeze() -> None:
        functions = preference_functions(task, state.params, state.tables)
        vectors_VxD = all_videos(functions["preference_video"], system.store.counts.videos)
        artifacts.save_array(out / VECTORS, vectors_VxD if learns else np.zeros_like(vectors_VxD))

    distributed.first(freeze)


def _has_views(store: LogStore, held_out: int | None) -> bool:
    """Is there a feed view to train on? Without one the vectors are zeros, not their random initial values."""
    time_ms_E = np.asarray(store.events.time_ms)
    viewed_E = (np.asarray(store.events.surface) == FEED_SURFACE) & (time_ms_E < store.cuts.validation_ms)
    viewed_E &= told_labels(store.events.told, PREFERENCE_LABELS).any(axis=-1)
    return bool((fold_of(store, time_ms_E[viewed_E]) != held_out).any() if held_out is not None else viewed_E.any())


def _fit_people(
    system: System, functions: Functions, fold: int | None, space: Path, parts: dict[Path, int | None]
) -> None:
    """What the preference regressions read, from all responses outside each of these parts of the days.

    The fit starts from preference embeddings, and reads content vectors, that were not trained on the parts' fold
    either. Where there are no feed views it starts from the widest axes of the content vectors.
    """
    videos_VxD = np.load(space / VECTORS, mmap_mode="r")
    appeal_V = _appeal(functions, videos_VxD)
    scale = preference_regression.duration_scale(system.log.reader, system.store.cuts.validation_ms)
    content = system.workdir / "content"
    content_VxD = np.load((content if fold is None else fold_directory(content, fold)) / VECTORS, mmap_mode="r")
    known = [videos_VxD, np.asarray(content_VxD)]
    known += [system.log.catalogue[name] for name in ("brought", "style") if name in system.log.catalogue]
    start_VxD = preference_regression.whitened(videos_VxD if videos_VxD.any() else known[1], videos_VxD.shape[1])
    videos = Videos(appeal_V, start_VxD, np.asarray(system.store.videos.author), tuple(known))
    for out, part in parts.items():
        found = responses(system, scale, appeal_V, part)
        factors = latent_factors.fit(system.config.preference, found, videos, system.store.counts.users)
        if not all(np.isfinite(array).all() for array in factors):
            raise NotFinite(
                "the fit of people and videos is not finite: raise preference.fit_prior or lower preference.fit_sweeps"
            )
        out.mkdir(exist_ok=True)
        artifacts.save_array(out / preference_regression.DURATIONS, scale)
        artifacts.save_array(out / preference_regression.PRECISION, factors.precision_ZxZ)
        artifacts.save_array(out / preference_regression.FILE, factors.video_VxB)  # last: it marks the rest complete


def _appeal(functions: Functions, videos_VxD: np.ndarray) -> np.ndarray:
    """Click logit of each video for a person without a past, `[V]`."""
    no_habit_VxG = np.zeros((len(videos_VxD), len(SIGNALS)), np.float32)
    nobody = People(np.zeros_like(videos_VxD), no_habit_VxG, no_habit_VxG[:, 0])
    batch = {"item_NxSxD": videos_VxD[:, None]} | nobody._asdict()
    return in_blocks(functions["preference_logits"], batch, EVENT_BLOCK)[1][:, 0, 0]


def _report(system: System, functions: Functions, out: Path) -> None:
    """Logs AUC on the feed views of the validation day."""
    cuts = system.store.cuts
    views = feed_slates(system.log.reader, cuts.validation_ms, cuts.test_ms, 1)
    if not len(views):
        return
    space = PreferenceEncoder(functions, system.config.preference, out, system.log.reader)
    personal, appeal = space.logits(space.people(views.user_N, views.time_ms_N), views.video_NxS)
    logits_NxT = (personal + appeal)[:, 0]
    fits = space.fit.people(views.user_N, views.time_ms_N)
    durations = system.log.numbers.durations(views.video_NxS, views.time_ms_N[:, None])
    own_N = (space.fit.logits(fits, views.video_NxS, durations)[..., 0] + space.fit.appeal(views.video_NxS))[:, 0]

    def figure(label: str, logit_N: np.ndarray) -> str:
        rows = views.told(label)[:, 0]
        value = auc(views.label(label)[rows, 0], logit_N[rows])
        return f"{label} {value:.3f}" if np.isfinite(value) else f"{label} -"

    console.log(
        f"AUC on {len(views):,} feed views of the validation day: of the preference embeddings "
        f"{', '.join(figure(label, logits_NxT[:, t]) for t, label in enumerate(PREFERENCE_LABELS))}; of the preference "
        f"regression {figure('click', own_N)}"
    )
