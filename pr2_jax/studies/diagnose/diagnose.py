"""`pr2 evaluate --diagnose`: known faults of a finished work directory, each measured against its normal range.

Diagnostics are of the validation day, on bounded samples of searches and videos. Of the test day one figure is read,
predicted over observed clicks, and nothing is chosen by it. Both files lie in `eval/`: a new evaluation removes them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from pr2_jax import artifacts, workdir
from pr2_jax.config import Config
from pr2_jax.errors import BadInput
from pr2_jax.metrics.bootstrap import interval
from pr2_jax.search.system import System
from pr2_jax.studies.diagnose import findings
from pr2_jax.studies.diagnose.findings import Check, Fault
from pr2_jax.studies.diagnose.ranking_diagnostics import RankingDiagnostics
from pr2_jax.studies.diagnose.retrieval_diagnostics import RetrievalDiagnostics

JSON, TEXT = "diagnosis.json", "diagnosis.txt"
FITTED = {"quantile": "retrieval.qrcf.epsilon_quantile", "adaptive": "retrieval.qrcf.adaptive_quantile"}
"""By `retrieval.qrcf.threshold`, the quantile that sets the threshold."""


def checks(threshold: str, heads: Sequence[str] = ("click", "long_play", "like")) -> tuple[Check, ...]:
    """Every check; `threshold` is that of `retrieval.qrcf`, `heads` are the names of the ranker's.

    Kept are the checks that have fired on a finished system, and those that would stop a release. The ranges, once
    [ours], leave room around what the two reference systems of the README have.
    """
    # Beyond .85 what is left would not make up a second expert's share [lit: HoME, on experts that take it all].
    experts = [
        Check(f"qin.expert_{head}", f"weight of the most used expert in the gate of {head}, mean", high=0.85,
              above=Fault(f"{head} leans on one expert: a mixture in name only", "qin.gate_dropout", "raise it"))
        for head in heads
    ]  # fmt: skip
    towers = [
        Check(f"fit.{model}_recall", f"recall@100 of {name} on a training day less the validation day's", high=0.25,
              above=Fault("training clicks are remembered, not understood; a fault where the validation day's recall "
                          "does not suffer from fewer passes",
                          f"{model}.optim.epochs", f"lower it, or raise {model}.dropout"))
        for model, name in (("pdr", "pdr"), ("content", "dr"))
    ]  # fmt: skip
    return (
        Check("qrcf.coverage", "share of searches with at least one seed, of people with a past view and a known word",
              low=0.9, below=Fault("the threshold is too high: QRCF has nothing, or little, to start from",
                                   FITTED[threshold], "lower it")),
        Check("pdr.rank", "effective rank of the video vectors, share of pdr.width", low=0.15, below=Fault(
            "the video vectors have collapsed into one direction: whatever is asked gets about the same videos",
            "pdr.uniform_negatives", "raise it, or lower pdr.temperature")),
        Check("pdr.hubs", "share of the slots that the 1 % most retrieved videos fill, less the same of dr", high=0.15,
              above=Fault("a few videos come up whatever is asked (hubs)", "pdr.hard_negatives", "raise it")),
        Check("pdr.without_person", "share of the top 10 that stays when the person is taken away, mean",
              low=0.1, below=Fault("the query is ignored: the person alone decides", "pdr.feed_share",
                                   "lower it: rows with a query teach the query"),
              high=0.9, above=Fault("the person is ignored: the query alone decides", "pdr.feed_share",
                                    "raise it: rows without a query teach the person")),
        *experts,
        Check("qin.position_lean", "rank correlation of scores with the order shown, less that of clicks, mean",
              high=0.2, above=Fault(
                  "where a result stood says more than what it is: what the log's engine did comes back",
                  "qin.position_dropout", "lower it")),
        # Two neighbours that change places in a slate of ten make .012.
        Check("qin.history_moves", "1 - rank correlation of a slate's scores, own history against another person's",
              low=0.02, below=Fault(
                  "histories are read but hardly change an order: what is known of the person comes from the numbers",
                  "qin.history", "lower it and save its cost, or leave groups out of qin.inputs"),
              high=0.5, above=Fault("orders hang on single histories", "qin.dropout", "raise it")),
        Check("qin.person_worth", "session AUC lost when another person asks, mean", low=0.01, below=Fault(
            "the ranker ignores the person", "qin.inputs", "name links, habits and preference")),
        *towers,
        Check("scores.last_day", "PCOC of the test day, binomial interval", low=0.9, high=1.1,
              below=Fault("clicks are more likely than said", "scores.calibration", "platt has the least to drift"),
              above=Fault("clicks are less likely than said", "scores.calibration", "platt has the least to drift")),
    )  # fmt: skip


def run(directory: Path, config: Config) -> None:
    """Writes `eval/diagnosis.txt`, then `eval/diagnosis.json`: where the latter is there, so are both.
    StaleArtifact where a stage is missing, damaged or made from something else."""
    workdir.require("eval", directory, config)
    system = System.open(directory, config)
    mean = functools.partial(interval, draws=config.evaluation.bootstrap, seed=config.evaluation.seed)
    retrieval = RetrievalDiagnostics(system, config, mean)
    searches = len(retrieval.day.sessions)
    if not searches:
        raise BadInput("no search of the validation day has a click: there is nothing to judge by")
    diagnostics = retrieval.all() | RankingDiagnostics(system, config, mean).all()
    heads = [head.name for head in config.qin.prediction_heads]
    found = findings.judge(checks(config.retrieval.qrcf.threshold, heads), diagnostics)
    title = (
        f"Diagnosis by {searches:,} searches of the validation day that have a click, ± half of the 95 % interval over "
        f"people. A check that looks at another sample names it. {retrieval.day.refinding.note}"
    )
    artifacts.write_text(directory / "eval" / TEXT, findings.text(found, title))
    artifacts.write_json(directory / "eval" / JSON, {"searches": searches, "findings": [one.plain() for one in found]})


def print_text(directory: Path) -> None:
    """The findings, to stdout."""
    print((directory / "eval" / TEXT).read_text(encoding="utf-8"), end="")
