"""Trains PDR: first with easy negatives, then with hard ones mined by the model so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.config import Config
from pr2_jax.data.batches.training_batches import PdrBatches
from pr2_jax.data.history.video_attributes import log_unigram
from pr2_jax.encoders.pdr_encoder import PdrEncoder
from pr2_jax.models.build_tasks import pdr_task
from pr2_jax.models.model_functions import pdr_functions
from pr2_jax.retrieval.exact import ExactSearch
from pr2_jax.search.system import System
from pr2_jax.training import distributed
from pr2_jax.training.checkpoint import save_params
from pr2_jax.training.loop import fit
from pr2_jax.training.mesh import configured

HARD_FILE = "hard.npy"
MINE_BLOCK = 512
"""Sessions searched at a time."""


def train(workdir: Path, config: Config, out: Path) -> None:
    """Writes `params/` into `out`; `hard.npy` lets a resumed run go on with the same negatives."""
    system, optim = System(workdir, config), config.pdr.optim
    mesh = configured(config.mesh)

    batches = PdrBatches(system.reader, system.query_vectors_NqxD, system.preference.vectors, config.pdr, config.data)
    unigram_V = log_unigram(batches.positives_N, system.store.counts.videos)
    task = pdr_task(system.store, config, system.catalogue, system.frozen_spaces, unigram_V)
    steps, hard_path = batches.steps, out / HARD_FILE
    turn = round(config.pdr.hard_start * steps)
    if 0 < turn < steps and config.pdr.hard_negatives:
        # Also where the negatives are there already: a damaged checkpoint may have taken the run back before the turn.
        state = fit(task, batches, optim, steps=steps, until=turn, directory=out, mesh=mesh)
        if not distributed.first(hard_path.exists):
            encoder = system.pdr_encoder(pdr_functions(task, state.params, state.tables))
            distributed.first(lambda: artifacts.save_array(hard_path, mine(system, config, encoder, batches)))
        batches = batches.with_hard(np.load(hard_path))
    state = fit(task, batches, optim, steps=steps, directory=out, mesh=mesh)
    save_params(out, (state.params, state.tables))


def mine(system: System, config: Config, encoder: PdrEncoder, batches: PdrBatches) -> np.ndarray:
    """Ranks `hard_rank_from..hard_rank_to` of each search positive's request, `[P, K]` video rows.

    Searched exactly, not by ScaNN, whose builds differ from run to run. What the person clicks in that session, what
    they had clicked before and what was uploaded later are no negatives.
    """
    sessions_P, video_P = batches.search_positives
    sessions_S, index_P = np.unique(sessions_P, return_inverse=True)
    clicked_S = np.split(video_P[np.argsort(index_P, kind="stable")], np.cumsum(np.bincount(index_P))[:-1])
    exact = ExactSearch(encoder.videos())
    first, last = config.pdr.hard_rank_from, min(config.pdr.hard_rank_to, system.store.counts.videos - 1)
    first = min(first, last // 2)
    upload_V, found = np.asarray(system.store.videos.upload_ms), []
    for start in console.progress(range(0, len(sessions_S), MINE_BLOCK), "mine hard negatives"):
        requests = system.requests(sessions_S[start : start + MINE_BLOCK], withhold=True)
        clicked = clicked_S[start : start + MINE_BLOCK]
        no_negatives = tuple(np.union1d(seen, now) for seen, now in zip(requests.seen, clicked, strict=True))
        ids_BxK = np.maximum(exact.search(encoder(requests), last, no_negatives).ids_BxK[:, first:], 0)
        found.append(np.where(upload_V[ids_BxK] <= requests.time_ms_B[:, None], ids_BxK, 0))
    return np.concatenate(found)[index_P].astype(np.int32)
