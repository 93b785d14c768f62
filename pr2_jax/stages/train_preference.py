"""Trains the preference space on the feed views of the training days and freezes a vector for every video.

Like the content towers it is trained three times, on all training days and without each fold of them, since the ranker
also trains on feed views: what it is told about a view must come from a space that has not learnt from that view. The
fit of people and videos that follows takes seconds, so that there the days are cut finer: what the ranker trains on was
then fitted to nearly as many answers as what it will serve with, and is as good.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import PREFERENCE_LABELS, Config
from pr2_jax.data.batches.preference_batches import TimelineBatches
from pr2_jax.data.batches.sessions import FOLDS, fold_of, impressions_of, part_of, training_parts, training_sessions
from pr2_jax.data.batches.slates import feed_slates
from pr2_jax.data.columns import CLICK, FEED_SURFACE, SIGNALS
from pr2_jax.data.outcomes import told_labels
from pr2_jax.data.store.log_store import LogStore
from pr2_jax.encoders import latent_factors, preference_regression
from pr2_jax.encoders.batching import all_videos, in_blocks
from pr2_jax.encoders.latent_factors import Answers, Videos
from pr2_jax.encoders.preference_encoder import EVENT_BLOCK, PreferenceEncoder
from pr2_jax.encoders.preference_regression import standardised
from pr2_jax.errors import NotFinite
from pr2_jax.metrics.ranking_metrics import auc
from pr2_jax.models.build_tasks import preference_task
from pr2_jax.models.model_functions import load_model, preference_functions
from pr2_jax.models.preference import PreferenceTask
from pr2_jax.search.system import System
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.types import Functions, People
from pr2_jax.workdir import fold_directory, part_directory

VECTORS = "video_vectors.npy"


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/` and `video_vectors.npy [V, D]` into `out` and each of its folds; zeros without feed views.

    What people's own regressions read, `preference_fit.FILES`, goes into `out` and each of its parts.
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

    def report() -> None:
        functions = preference_functions(task, *load_model(task, out))
        _report(system, PreferenceEncoder(functions, config.preference, out, system.log.reader))

    distributed.first(fit_people)
    distributed.first(report)


def _train_space(system: System, config: Config, task: PreferenceTask, held_out: int | None, out: Path) -> None:
    """The vectors come last, by a rename: they say that the rest is whole."""
    distributed.first(lambda: out.mkdir(exist_ok=True))
    batches = TimelineBatches(system.log.reader, config.preference, held_out)
    learns = _has_views(system.store, held_out)
    steps = batches.steps if learns else 1
    state = fit(task, batches, config.preference.optim, steps=steps, directory=out, mesh=configured(config.mesh))
    save_params(out, (state.params, state.tables))

    def freeze() -> None:
        functions = preference_functions(task, state.params, state.tables)
        vectors_VxD = all_videos(functions["preference_video"], system.store.counts.videos)
        artifacts.save_array(out / VECTORS, vectors_VxD if learns else np.zeros_like(vectors_VxD))

    distributed.first(freeze)


def _has_views(store: LogStore, held_out: int | None) -> bool:
    """Is there a feed view to learn the space from? Without one its vectors are zeros, not what chance began with."""
    time_ms_E = np.asarray(store.events.time_ms)
    viewed_E = (np.asarray(store.events.surface) == FEED_SURFACE) & (time_ms_E < store.cuts.validation_ms)
    viewed_E &= told_labels(store.events.told, PREFERENCE_LABELS).any(axis=-1)
    return bool((fold_of(store, time_ms_E[viewed_E]) != held_out).any() if held_out is not None else viewed_E.any())


def _fit_people(
    system: System, functions: Functions, fold: int | None, space: Path, parts: dict[Path, int | None]
) -> None:
    """What people's own regressions read, from all answers outside a part of the days, for each of these parts.

    They start from a preference space, and read content vectors, that have not learnt from the parts' whole fold
    either. On answers to searches alone, where the space is empty, they start from the widest axes of the content
    vectors.
    """
    videos_VxD = np.load(space / VECTORS)
    appeal_V = _appeal(functions, videos_VxD)
    scale = preference_regression.duration_scale(system.log.reader, system.store.cuts.validation_ms)
    content = system.workdir / "content"
    content_VxD = np.load((content if fold is None else fold_directory(content, fold)) / VECTORS, mmap_mode="r")
    known = [videos_VxD, np.asarray(content_VxD)]
    known += [system.log.catalogue[name] for name in ("brought", "style") if name in system.log.catalogue]
    start_VxD = preference_regression.whitened(videos_VxD if videos_VxD.any() else known[1], videos_VxD.shape[1])
    videos = Videos(appeal_V, start_VxD, np.asarray(system.store.videos.author), tuple(known))
    for out, part in parts.items():
        found = answers(system, scale, appeal_V, part)
        factors = latent_factors.fit(system.config.preference, found, videos, system.store.counts.users)
        if not all(np.isfinite(array).all() for array in factors):
            raise NotFinite(
                "the fit of people and videos is not finite: raise preference.fit_prior or lower preference.fit_sweeps"
            )
        out.mkdir(exist_ok=True)
        artifacts.save_array(out / preference_regression.DURATIONS, scale)
        artifacts.save_array(out / preference_regression.PRECISION, factors.precision_ZxZ)
        artifacts.save_array(
            out / preference_regression.FILE, factors.video_VxB
        )  # last: it says that the rest is there


def _appeal(functions: Functions, videos_VxD: np.ndarray) -> np.ndarray:
    """Logit of a click on each video by nobody in particular, `[V]`."""
    no_habit_VxG = np.zeros((len(videos_VxD), len(SIGNALS)), np.float32)
    nobody = People(np.zeros_like(videos_VxD), no_habit_VxG, no_habit_VxG[:, 0])
    batch = {"item_NxSxD": videos_VxD[:, None]} | nobody._asdict()
    return in_blocks(functions["preference_logits"], batch, EVENT_BLOCK)[1][:, 0, 0]


def _report(system: System, space: PreferenceEncoder) -> None:
    """How well the feed views of the validation day are told apart."""
    cuts = system.store.cuts
    views = feed_slates(system.log.reader, cuts.validation_ms, cuts.test_ms, 1)
    if not len(views):
        return
    personal, appeal = space.logits(space.people(views.user_N, views.time_ms_N), views.video_NxS)
    logits = personal + appeal
    fits = space.fit.people(views.user_N, views.time_ms_N)
    durations = system.log.numbers.durations(views.video_NxS, views.time_ms_N[:, None])
    own_N = (space.fit.logits(fits, views.video_NxS, durations)[..., 0] + space.fit.appeal(views.video_NxS))[:, 0]
    told = [(label, views.told(label)[:, 0]) for label in PREFERENCE_LABELS]
    found = {label: auc(views.label(label)[rows, 0], logits[rows, 0, t]) for t, (label, rows) in enumerate(told)}
    clicks_told = told[0][1]
    fitted = auc(views.label("click")[clicks_told, 0], own_N[clicks_told])
    shown = ", ".join(f"{label} {_figure(value)}" for label, value in found.items())
    own = _figure(fitted)
    console.log(f"AUC on {len(views):,} feed views of the validation day: {shown}; by own regression {own}")


def _figure(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def answers(system: System, scale: np.ndarray, appeal_V: np.ndarray, held_out: int | None) -> Answers:
    """Every feed view known before the validation cut that tells whether it was stayed with, every shown result.

    `held_out`: a part of the days that is left out.

    A view is a "yes" where the person stayed, a result where it was clicked. Results are clicked less often than feed
    views are stayed with, whoever is asked: their offset is the log odds of a click, less the mean appeal of what is
    shown. An offset by how well a result fits its query does no better on the validation days.
    """
    parts = [_feed(system, held_out), _searches(system, appeal_V, held_out)]
    user_E, video_E, yes_E, offset_E, duration_ms_E = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(user_E, video_E, yes_E.astype(np.float64), offset_E, standardised(duration_ms_E, scale))


def _kept(system: System, user_N: np.ndarray, time_ms_N: np.ndarray, held_out: int | None) -> np.ndarray:
    known_N = np.asarray(user_N) > 0
    return known_N if held_out is None else known_N & (part_of(system.store, time_ms_N) != held_out)


def _feed(system: System, held_out: int | None) -> tuple[np.ndarray, ...]:
    e = system.store.events
    viewed_E = (np.asarray(e.surface) == FEED_SURFACE) & (np.asarray(e.known_ms) < system.store.cuts.validation_ms)
    viewed_E &= (np.asarray(e.told) & CLICK) > 0
    row_E = np.flatnonzero(viewed_E & _kept(system, e.user, np.asarray(e.time_ms), held_out))
    user_E, video_E, yes_E, duration_ms_E = (np.asarray(x)[row_E] for x in (e.user, e.video, e.click, e.duration_ms))
    return user_E, video_E, yes_E, np.zeros(len(row_E)), duration_ms_E


def _searches(system: System, appeal_V: np.ndarray, held_out: int | None) -> tuple[np.ndarray, ...]:
    store, sessions = system.store, system.store.sessions
    sessions_N = training_sessions(store)
    sessions_N = sessions_N[_kept(system, sessions.user[sessions_N], sessions.time_ms[sessions_N], held_out)]
    row_E, owner_E = impressions_of(store, sessions_N)
    session_E = sessions_N[owner_E]
    user_E, time_ms_E = np.asarray(sessions.user)[session_E], np.asarray(sessions.time_ms)[session_E]
    video_E = np.asarray(store.impressions.video)[row_E]
    yes_E = np.asarray(store.impressions.clicks)[row_E] > 0
    if not len(row_E):
        return user_E, video_E, yes_E, np.zeros(0), np.zeros(0, np.int64)
    odds = (yes_E.sum() + 1) / ((~yes_E).sum() + 1)
    offset_E = np.full(len(row_E), np.log(odds) - appeal_V[video_E].mean())
    return user_E, video_E, yes_E, offset_E, system.log.numbers.durations(video_E, time_ms_E)
