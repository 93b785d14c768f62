"""Failure signatures of retrieval, as numbers over arrays: QRCF's threshold, PDR's vectors and lists.

Whoever calls hands in what was measured on a bounded sample of searches and videos
(studies/diagnose/measure_retrieval.py).
"""

from __future__ import annotations

import numpy as np

from pr2_jax.studies.diagnose.diagnosis import Judge, Sign

TOP = 10
"""Results of a list that are looked at."""
HUBS = 0.01
"""Share of the catalogue that counts as its most retrieved videos."""


def seed_signs(user_S: np.ndarray, seeds_S: np.ndarray, past_S: np.ndarray, judge: Judge) -> dict[str, Sign]:
    """Of S searches whose query has a known word: whose they are, the seeds kept and the past views looked at."""
    rows = np.flatnonzero(past_S > 0)
    covered = judge.mean(seeds_S[rows] > 0, user_S[rows])
    return {"qrcf.coverage": Sign(covered, f"{len(rows):,} searches")}


def vector_signs(vectors_NxD: np.ndarray) -> dict[str, Sign]:
    """Of N sampled videos the unit vectors."""
    rank, (videos, width) = effective_rank(vectors_NxD), vectors_NxD.shape
    return {"pdr.rank": Sign(rank / width, f"{rank:.1f} of {width} axes; {videos:,} videos")}


def effective_rank(vectors_NxD: np.ndarray) -> float:
    """Axes that the vectors make use of: exp of the entropy of the spectrum of their second moments, not centred, so
    that it is 1 where all are one [lit: Roy and Vetterli 2007]."""
    x_NxD = vectors_NxD.astype(np.float64)
    spectrum_D = np.maximum(np.linalg.eigvalsh(x_NxD.T @ x_NxD), 0)
    if not spectrum_D.sum():
        return np.nan
    share_D = spectrum_D / spectrum_D.sum()
    return float(np.exp(-(share_D * np.log(np.maximum(share_D, 1e-300))).sum()))


def list_signs(pdr_SxK: np.ndarray, dr_SxK: np.ndarray, videos: int) -> dict[str, Sign]:
    """Of the lists of two channels for the same searches (rows of `videos`, padding below 1): the second knows nothing
    of the person and is the measure of what a log's queries make inevitable."""
    if not (dr_SxK > 0).any():  # no video has a content vector, say: there is nothing to measure by
        return {"pdr.hubs": Sign(np.nan, "dr finds nothing")}
    hubs, by_dr = (hub_share(ids_SxK, videos) for ids_SxK in (pdr_SxK, dr_SxK))
    return {"pdr.hubs": Sign(hubs - by_dr, f"pdr {hubs:.3f}, dr {by_dr:.3f}")}


def hub_share(ids_SxK: np.ndarray, videos: int) -> float:
    """Share of all slots that the most retrieved hundredth of the videos fill."""
    count_V = np.bincount(ids_SxK[ids_SxK > 0], minlength=videos)[1:]
    best = np.sort(count_V)[::-1][: max(1, round(HUBS * len(count_V)))]
    return float(best.sum() / max(count_V.sum(), 1))


def person_signs(user_S: np.ndarray, own_SxK: np.ndarray, nobody_SxK: np.ndarray, judge: Judge) -> dict[str, Sign]:
    """Lists of S searches of people with a past, whose they are: as they are, and with the person taken away."""
    return {"pdr.without_person": Sign(judge.mean(overlaps(own_SxK, nobody_SxK), user_S))}


def overlaps(one_SxK: np.ndarray, other_SxK: np.ndarray) -> np.ndarray:
    """`[S]`: share of the results of one list that the other has too, NaN where there are none."""
    real_SxK = one_SxK > 0
    both_S = ((one_SxK[:, :, None] == other_SxK[:, None, :]) & real_SxK[:, :, None]).any(2).sum(1)
    length_S = real_SxK.sum(1)
    return np.divide(both_S, length_S, out=np.full(len(length_S), np.nan), where=length_S > 0)
