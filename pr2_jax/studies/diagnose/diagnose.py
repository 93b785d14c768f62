"""`pr2 evaluate --diagnose`: known ways to fail, each measured on a finished work directory and held against what is
normal.

Measured is the validation day, on bounded samples of searches and videos. Of the test day one figure is read, predicted
over observed clicks, and nothing is chosen by it. Both files lie in `eval/`: an evaluation made anew, which is
one of another system, takes them away.
"""

from __future__ import annotations

from pathlib import Path

from pr2_jax import artifacts
from pr2_jax import workdir as stages
from pr2_jax.config import Config
from pr2_jax.errors import BadInput
from pr2_jax.search.system import System
from pr2_jax.studies.diagnose import diagnosis
from pr2_jax.studies.diagnose.diagnostic_checks import checks
from pr2_jax.studies.diagnose.measure_ranking import RankingSigns
from pr2_jax.studies.diagnose.measure_retrieval import RetrievalSigns

JSON, TEXT = "diagnosis.json", "diagnosis.txt"


def run(workdir: Path, config: Config) -> None:
    """Writes `eval/diagnosis.txt` and `eval/diagnosis.json`, the latter last: where it is there, so are both.
    StaleArtifact where a stage is missing, damaged or made from something else."""
    stages.require("eval", workdir, config)
    system = System.open(workdir, config)
    judge = diagnosis.Judge(config.evaluation.bootstrap, config.evaluation.seed)
    retrieval = RetrievalSigns(system, config, judge)
    searches = len(retrieval.day.sessions)
    if not searches:
        raise BadInput("no search of the validation day has a click: there is nothing to judge by")
    signs = retrieval.all() | RankingSigns(system, config, judge).all()
    heads = [head.name for head in config.qin.prediction_heads]
    findings = diagnosis.judge(checks(config.retrieval.qrcf.threshold, heads), signs)
    title = (
        f"Diagnosis by {searches:,} searches of the validation day that have a click, ± half of the 95 % interval over "
        f"people. A check that looks at another sample names it. {retrieval.day.found_before.note}"
    )
    artifacts.write_text(workdir / "eval" / TEXT, diagnosis.text(findings, title))
    artifacts.write_json(workdir / "eval" / JSON, {"searches": searches, "findings": [one.plain() for one in findings]})


def print_text(workdir: Path) -> None:
    """What `run` found, to stdout."""
    print((workdir / "eval" / TEXT).read_text(encoding="utf-8"), end="")
