"""Every check of `pr2 evaluate --diagnose`: what is measured, its normal range, and the knob that moves it.

Kept are the checks that have fired on a finished system, and those that would stop a release. The ranges, once [ours]:
they leave room around what the two reference systems of the README have.
"""

from __future__ import annotations

from collections.abc import Sequence

from pr2_jax.studies.diagnose.diagnosis import Check, Side

FITTED = {"quantile": "retrieval.qrcf.epsilon_quantile", "adaptive": "retrieval.qrcf.adaptive_quantile"}
"""By `retrieval.qrcf.threshold`, what the threshold is fitted by."""


def checks(threshold: str, heads: Sequence[str] = ("click", "long_play", "like")) -> tuple[Check, ...]:
    """All of them; `threshold` is that of `retrieval.qrcf`, `heads` are the names of the ranker's."""
    return *_retrieval(FITTED[threshold]), *_ranking(heads), *_towers(), *_scores()


def _retrieval(knob: str) -> tuple[Check, ...]:
    return (
        Check(
            "qrcf", "coverage", "share of searches with at least one seed, of people with a past view and a known word",
            low=0.9,
            below=Side("the threshold is too high: QRCF has nothing, or little, to start from", knob, "lower it"),
        ),
        Check(
            "pdr", "rank", "effective rank of the video vectors, share of pdr.width",
            low=0.15,
            below=Side(
                "the video vectors have collapsed into one direction: whatever is asked gets about the same videos",
                "pdr.uniform_negatives", "raise it, or lower pdr.temperature",
            ),
        ),
        Check(
            "pdr", "hubs", "share of the slots that the 1 % most retrieved videos fill, less the same of dr",
            high=0.15,
            above=Side("a few videos come up whatever is asked (hubs)", "pdr.hard_negatives", "raise it"),
        ),
        Check(
            "pdr", "without_person", "share of the top 10 that stays when the person is taken away, mean",
            low=0.1, high=0.9,
            below=Side(
                "the query is ignored: the person alone decides", "pdr.feed_share",
                "lower it: rows with a query teach the query",
            ),
            above=Side(
                "the person is ignored: the query alone decides", "pdr.feed_share",
                "raise it: rows without a query teach the person",
            ),
        ),
    )  # fmt: skip


def _ranking(heads: Sequence[str]) -> tuple[Check, ...]:
    # Beyond .85 what is left would not make up a second expert's share [lit: HoME, on experts that take it all].
    experts = tuple(
        Check(
            "qin", f"expert_{head}", f"weight of the most used expert in the gate of {head}, mean",
            high=0.85,
            above=Side(f"{head} leans on one expert: a mixture in name only", "qin.gate_dropout", "raise it"),
        )
        for head in heads
    )  # fmt: skip
    return (
        *experts,
        Check(
            "qin", "position_lean", "rank correlation of scores with the order shown, less that of clicks, mean",
            high=0.2,
            above=Side(
                "where a result stood says more than what it is: what the log's engine did comes back",
                "qin.position_dropout", "lower it",
            ),
        ),
        # Two neighbours that change places in a slate of ten make .012.
        Check(
            "qin", "history_moves", "1 - rank correlation of a slate's scores, own history against another person's",
            low=0.02, high=0.5,
            below=Side(
                "histories are read but hardly change an order: what is known of the person comes from the numbers",
                "qin.history", "lower it and save its cost, or leave groups out of qin.inputs",
            ),
            above=Side("orders hang on single histories", "qin.dropout", "raise it"),
        ),
        Check(
            "qin", "person_worth", "session AUC lost when another person asks, mean",
            low=0.01, below=Side("the ranker ignores the person", "qin.inputs", "name links, habits and preference"),
        ),
    )  # fmt: skip


def _towers() -> tuple[Check, ...]:
    return tuple(
        Check(
            "fit", f"{model}_recall", f"recall@100 of {named} on a training day less the validation day's",
            high=0.25,
            above=Side(
                "training clicks are remembered, not understood; a fault where the validation day's recall does not "
                "suffer from fewer passes",
                f"{model}.optim.epochs", f"lower it, or raise {model}.dropout",
            ),
        )
        for model, named in (("pdr", "pdr"), ("content", "dr"))
    )  # fmt: skip


def _scores() -> tuple[Check, ...]:
    return (
        Check(
            "scores", "last_day", "PCOC of the test day, binomial interval",
            low=0.9, high=1.1,
            below=Side("clicks are more likely than said", "scores.calibration", "platt has the least to drift"),
            above=Side("clicks are less likely than said", "scores.calibration", "platt has the least to drift"),
        ),
    )  # fmt: skip
