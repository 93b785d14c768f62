"""Trains PDR, first with easy negatives, then with hard negatives mined by the model itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config, PdrConfig
from pr2_jax.data.batches.sessions import drawn_evenly
from pr2_jax.data.batches.training_batches import HardNegatives, PdrBatches, Positives
from pr2_jax.data.history.video_attributes import log_unigram
from pr2_jax.encoders.space_encoders import PreferenceEncoder
from pr2_jax.models.model_functions import pdr_functions, pdr_task
from pr2_jax.retrieval.ann import ExactSearch
from pr2_jax.retrieval.channels import PdrEncoder
from pr2_jax.search.system import System
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured
from pr2_jax.training.training_curve import announce

HARD_FILE = "hard.npy"
MINE_BLOCK = 512
"""Sessions searched at a time."""
PEOPLE_BLOCK = 65_536
"""Positives whose people are computed at a time."""


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/` into `out`; `people.npy` and `hard.npy` let a resumed run go on with the same arrays."""
    system, optim = System.open(workdir, config), config.pdr.optim
    reader, mesh = system.log.reader, configured(config.mesh)

    positives = Positives.of(reader, config.pdr)
    hard_path, people_path = out / HARD_FILE, out / "people.npy"
    if not distributed.first(people_path.exists):
        distributed.first(lambda: write_people(system.preference, positives, people_path))

    def batches_with(hard: HardNegatives | None) -> PdrBatches:
        people_PxD = np.load(people_path, mmap_mode="r")
        vectors = system.fitted.query_vectors_NqxD
        return PdrBatches(reader, positives, vectors, people_PxD, config.pdr, config.data, hard)

    batches = batches_with(None)
    spaces = {name: np.asarray(system.fitted.vectors(name)) for name in ("content", "preference")}
    unigram_V = log_unigram(positives.video_P, system.store.counts.videos)
    task = pdr_task(system.store, config, system.log.catalogue, spaces, unigram_V)
    steps = batches.length.steps
    turn = round(config.pdr.hard_start * steps)
    announce(batches.length, "pdr", out)
    if 0 < turn < steps and config.pdr.hard_negatives:
        # Also where the negatives exist: a damaged checkpoint may have set the run back before the turn.
        state = fit(task, batches, optim, steps=steps, until=turn, directory=out, mesh=mesh)
        if not distributed.first(hard_path.exists):
            encoder = system.pdr_encoder(pdr_functions(task, state.params, state.tables))
            distributed.first(lambda: artifacts.save_array(hard_path, mine(system, config, encoder, positives)))
        batches = batches_with(HardNegatives(np.load(hard_path), chosen_searches(positives, config.pdr)[1]))
    state = fit(task, batches, optim, steps=steps, directory=out, mesh=mesh)
    save_params(out, (state.params, state.tables))
    distributed.first(lambda: people_path.unlink(missing_ok=True))


def write_people(preference: PreferenceEncoder, positives: Positives, path: Path) -> None:
    """Writes the preference vector of the person of each positive, float32 `[P, D]`, a block at a time.

    Every pass needs the same vectors, and each is a sum over a person's whole past: batches read the file instead.
    """
    partial = path.with_suffix(".partial")
    shape = len(positives), preference.videos_VxD.shape[1]
    people_PxD = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    for start in console.progress(range(0, len(positives), PEOPLE_BLOCK), "people behind positives", unit=" blocks"):
        rows = slice(start, start + PEOPLE_BLOCK)
        people_PxD[rows] = preference.people(positives.user_P[rows], positives.time_ms_P[rows]).preference_NxD
    people_PxD.flush()
    partial.replace(path)


def chosen_searches(positives: Positives, config: PdrConfig) -> tuple[np.ndarray, np.ndarray]:
    """The searches that are mined, as session rows `[M]`, an even sample in order of time; and for each clicked result
    the place of its search among them counted from 1, 0 where it is not mined."""
    sessions, index_S = np.unique(positives.session_S, return_inverse=True)
    taken_M = drawn_evenly(len(sessions), config.hard_searches, config.optim.seed)
    row = np.zeros(len(sessions), np.int32)
    row[taken_M] = np.arange(1, len(taken_M) + 1)
    return sessions[taken_M], row[index_S]


def mine(system: System, config: Config, encoder: PdrEncoder, positives: Positives) -> np.ndarray:
    """Hard negatives of the chosen searches, video rows `[1 + M, K]`: ranks `hard_rank_from..hard_rank_to` for each
    request, after a row of zeros for the searches that were not chosen.

    The search is exact, since ScaNN's builds differ from run to run. Videos that the person clicks in that session or
    clicked before are no negatives, nor are videos uploaded later.
    """
    sessions_M, row_S = chosen_searches(positives, config.pdr)
    searches = len(np.unique(positives.session_S))
    console.log(f"hard negatives: {len(sessions_M):,} of {searches:,} training searches with a click are mined")
    order_S = np.argsort(row_S, kind="stable")
    video_S = positives.video_P[: positives.searches][order_S]
    clicked_M = np.split(video_S, np.cumsum(np.bincount(row_S, minlength=len(sessions_M) + 1))[:-1])[1:]
    exact = ExactSearch(encoder.videos())
    last = min(config.pdr.hard_rank_to, system.store.counts.videos - 1)
    first = min(config.pdr.hard_rank_from, last // 2)
    upload_V = np.asarray(system.store.videos.upload_ms)
    found = [np.zeros((1, last - first), np.int32)]
    for start in console.progress(range(0, len(sessions_M), MINE_BLOCK), "mine hard negatives"):
        requests = system.log.requests(sessions_M[start : start + MINE_BLOCK], withhold=True)
        clicked = clicked_M[start : start + MINE_BLOCK]
        no_negatives = tuple(np.union1d(seen, now) for seen, now in zip(requests.seen, clicked, strict=True))
        ids_BxK = np.maximum(exact.search(encoder(system.encode(requests)), last, no_negatives).ids_BxK[:, first:], 0)
        found.append(np.where(upload_V[ids_BxK] <= requests.time_ms_B[:, None], ids_BxK, 0))
    return np.concatenate(found).astype(np.int32)
