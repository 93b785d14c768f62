"""Failure signatures of retrieval, as numbers over arrays: QRCF's threshold, PDR's vectors and lists.

Whoever calls hands in what was measured on a bounded sample of searches and videos
(studies/diagnose/measure_retrieval.py).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata, skew

from pr2_jax.metrics.bootstrap import Interval, interval
from pr2_jax.studies.diagnose.diagnosis import Judge, Sign

TOP = 10
"""Results of a list that are looked at."""
HUBS = 0.01
"""Share of the catalogue that counts as its most retrieved videos."""
SAME = 0.999
"""Vectors with this cosine or more are the same."""


def seed_signs(
    user_S: np.ndarray,
    seeds_S: np.ndarray,
    past_S: np.ndarray,
    passing_S: np.ndarray,
    quantile: float | None,
    fallback_S: np.ndarray,
    judge: Judge,
) -> dict[str, Sign]:
    """Of S searches whose query has a known word: whose they are, the seeds kept, the past views looked at and how many
    of these pass the threshold (NaN: not known), `[S]` all; the configured quantile of one epsilon (None: adaptive);
    for each search the share of QRCF's results that came from content neighbours (NaN: no result)."""
    rows = np.flatnonzero(past_S > 0)
    user_N, seeds_N, past_N = user_S[rows], seeds_S[rows], past_S[rows]
    kept = interval(passing_S[rows] / past_N, user_N, past_N, judge.draws, judge.seed)  # a share of all views
    moved = Sign(np.nan)
    if quantile is not None:
        moved = Sign(_away(kept, 1 - quantile), f"fitted to keep {1 - quantile:.3f}")
    return {
        "qrcf.coverage": Sign(judge.mean(seeds_N > 0, user_N), f"{len(rows):,} searches"),
        "qrcf.seeds": Sign(judge.mean(seeds_N, user_N), f"of {_mean(past_N):.1f} past views"),
        "qrcf.kept": Sign(kept, f"{past_S.sum():,.0f} views"),
        "qrcf.moved": moved,
        "qrcf.fallback": Sign(judge.mean(fallback_S, user_S)),
    }


def _away(found: Interval, wanted: float) -> Interval:
    """How far a value is from another, never below 0."""
    low, high = found.low - wanted, found.high - wanted
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Interval(abs(found.mean - wanted), nearest, max(abs(low), abs(high)), found.count)


def vector_signs(
    vectors_NxD: np.ndarray, nearest_N: np.ndarray, content_N: np.ndarray, judge: Judge
) -> dict[str, Sign]:
    """Of N sampled videos: unit vectors, the cosine of each with its nearest other video of the catalogue, and the
    cosine of the same two by content."""
    rank = effective_rank(vectors_NxD)
    same_N = (nearest_N >= SAME) & (content_N < SAME)
    return {
        "pdr.cosine": Sign(mean_cosine(vectors_NxD), f"{len(same_N):,} videos"),
        "pdr.rank": Sign(
            rank / vectors_NxD.shape[1], f"{rank:.1f} of {vectors_NxD.shape[1]} axes; {len(same_N):,} videos"
        ),
        "pdr.duplicates": Sign(judge.mean(same_N, np.arange(len(same_N))), f"{len(same_N):,} videos"),
    }


def mean_cosine(vectors_NxD: np.ndarray) -> float:
    """Mean cosine of two different unit vectors: 1 where all are one."""
    n = len(vectors_NxD)
    if n < 2:
        return np.nan
    x_NxD = vectors_NxD.astype(np.float64)
    return float((np.square(x_NxD.sum(0)).sum() - np.square(x_NxD).sum()) / (n * (n - 1)))


def effective_rank(vectors_NxD: np.ndarray) -> float:
    """Axes that the vectors make use of: exp of the entropy of the spectrum of their second moments, not centred, so
    that it is 1 where all are one [lit: Roy and Vetterli 2007]."""
    x_NxD = vectors_NxD.astype(np.float64)
    spectrum_D = np.maximum(np.linalg.eigvalsh(x_NxD.T @ x_NxD), 0)
    if not spectrum_D.sum():
        return np.nan
    share_D = spectrum_D / spectrum_D.sum()
    return float(np.exp(-(share_D * np.log(np.maximum(share_D, 1e-300))).sum()))


def list_signs(
    pdr_SxK: np.ndarray, dr_SxK: np.ndarray, popularity_V: np.ndarray, clicked_N: np.ndarray
) -> dict[str, Sign]:
    """Of the lists of two channels for the same searches (video rows, padding below 1): the second knows nothing of the
    person and is the measure of what a log's queries make inevitable. `popularity_V`: clicks before the day, row 0
    unknown; `clicked_N`: the videos that these searches clicked."""
    count_V, by_dr_V = (retrieved(ids, len(popularity_V)) for ids in (pdr_SxK, dr_SxK))
    if not by_dr_V.any():  # no video has a content vector, say: there is nothing to measure by
        keys = ("pdr.distinct", "pdr.skewness", "pdr.hubs", "pdr.popularity", "pdr.percentile")
        return {key: Sign(np.nan, "dr finds nothing") for key in keys}
    hubs, by_dr = hub_share(count_V), hub_share(by_dr_V)
    distinct, distinct_by_dr = (np.count_nonzero(c[1:]) / max(c[1:].sum(), 1) for c in (count_V, by_dr_V))
    skewness, skewness_by_dr = (float(skew(c[1:])) if np.ptp(c[1:]) else 0.0 for c in (count_V, by_dr_V))
    correlation, correlation_by_dr = (rank_correlation(c[1:], popularity_V[1:]) for c in (count_V, by_dr_V))
    place_V = np.r_[0.0, rankdata(popularity_V[1:]) / max(len(popularity_V) - 1, 1)]
    lists, clicks = (_mean(place_V[rows[rows > 0]]) for rows in (pdr_SxK, np.asarray(clicked_N)))
    return {
        "pdr.distinct": Sign(_ratio(distinct, distinct_by_dr), f"pdr {distinct:.3f}, dr {distinct_by_dr:.3f}"),
        "pdr.skewness": Sign(_ratio(skewness, skewness_by_dr), f"pdr {skewness:.1f}, dr {skewness_by_dr:.1f}"),
        "pdr.hubs": Sign(hubs - by_dr, f"pdr {hubs:.3f}, dr {by_dr:.3f}"),
        "pdr.popularity": Sign(correlation - correlation_by_dr, f"pdr {correlation:.3f}, dr {correlation_by_dr:.3f}"),
        "pdr.percentile": Sign((lists - clicks) / max(1 - clicks, 1e-9), f"results {lists:.3f}, clicks {clicks:.3f}"),
    }


def retrieved(ids_SxK: np.ndarray, videos: int) -> np.ndarray:
    """int64 [V]: how many lists each video is in."""
    return np.bincount(ids_SxK[ids_SxK > 0], minlength=videos)


def hub_share(count_V: np.ndarray) -> float:
    """Share of all slots that the most retrieved hundredth of the videos fill."""
    hubs = max(1, round(HUBS * (len(count_V) - 1)))
    best = np.sort(count_V[1:])[::-1][:hubs]
    return float(best.sum() / max(count_V[1:].sum(), 1))


def rank_correlation(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Spearman's, equals sharing their ranks; NaN where either never varies."""
    one_N, other_N = rankdata(one_N), rankdata(other_N)
    if len(one_N) < 2 or not np.ptp(one_N) or not np.ptp(other_N):
        return np.nan
    return float(np.corrcoef(one_N, other_N)[0, 1])


def person_signs(
    user_S: np.ndarray,
    own_SxD: np.ndarray,
    nobody_SxD: np.ndarray,
    asked_SxD: np.ndarray,
    own_SxK: np.ndarray,
    nobody_SxK: np.ndarray,
    asked_SxK: np.ndarray,
    judge: Judge,
) -> dict[str, Sign]:
    """Query-user vectors and lists of S searches of people with a past, whose they are: as they are, with the person
    taken away, and with the query of another search put in."""
    ways = [np.linalg.norm((own_SxD - other).astype(np.float64), axis=1) for other in (nobody_SxD, asked_SxD)]
    norms = [_mean(way) for way in ways]
    values = {
        "pdr.person_moves": shifts(own_SxD, nobody_SxD),
        "pdr.query_moves": shifts(own_SxD, asked_SxD),
        "pdr.without_person": overlaps(own_SxK, nobody_SxK),
        "pdr.other_query": overlaps(own_SxK, asked_SxK),
    }
    found = {key: Sign(judge.mean(value_S, user_S)) for key, value_S in values.items()}
    note = f"person {norms[0]:.3f}, query {norms[1]:.3f}, means"
    return found | {"pdr.person_to_query": Sign(_ratio(*norms), note)}


def shifts(one_SxD: np.ndarray, other_SxD: np.ndarray) -> np.ndarray:
    """1 - cos of unit vectors, `[S]`."""
    return 1 - (one_SxD.astype(np.float64) * other_SxD).sum(1)


def overlaps(one_SxK: np.ndarray, other_SxK: np.ndarray) -> np.ndarray:
    """`[S]`: share of the results of one list that the other has too, NaN where there are none."""
    real_SxK = one_SxK > 0
    both_S = ((one_SxK[:, :, None] == other_SxK[:, None, :]) & real_SxK[:, :, None]).any(2).sum(1)
    length_S = real_SxK.sum(1)
    return np.divide(both_S, length_S, out=np.full(len(length_S), np.nan), where=length_S > 0)


def _ratio(one: float, other: float) -> float:
    """Without end where only the second is 0; NaN where both are."""
    return float(one / other) if other > 0 else np.inf if one > 0 else np.nan


def _mean(values_N: np.ndarray) -> float:
    return float(np.mean(values_N)) if len(values_N) else np.nan
