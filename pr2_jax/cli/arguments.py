"""The arguments of the command line, verb by verb."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pr2_jax import __version__, artifacts, console
from pr2_jax.config import preset_files
from pr2_jax.errors import Pr2Error, did_you_mean

EPILOG = """\
examples:
  pr2 run --config kuaisar --workdir work/kuaisar --input KuaiSAR_v2.zip
  pr2 run --config quickstart:tiny --workdir work/tiny --config.pdr.width=32
  pr2 search --workdir work/kuaisar --user 12 --query "space comedy"
  pr2 export --workdir work/kuaisar --out serve/kuaisar
  pr2 score --artifact serve/kuaisar --requests requests.csv --out ranked.parquet
  pr2 COMMAND --help

environment:
  PR2_NO_REEXEC=1            On Linux pr2 starts itself a second time, with GLIBC_TUNABLES=glibc.malloc.hugetlb=1: the C
                             library asks for huge pages only if told before it starts, and training on CPUs is faster
                             with them. This keeps the first process. So does any GLIBC_TUNABLES of your own.
  JAX_COMPILATION_CACHE_DIR  where compiled programs are kept (default: ~/.cache/pr2_jax/xla)
"""
INPUT_EXAMPLE = "--config kuaisar --workdir work/a --input KuaiSAR_v2.zip"


class Verb(NamedTuple):
    """The help of a verb; `examples` are the arguments after its name."""

    summary: str
    reads: str
    writes: str
    examples: tuple[str, ...]


# fmt: off
VERBS = {
    "run": Verb("run all stages in order; skip those that are fresh",
        "a log, or none where the config simulates one", "every stage into the work directory; prints the results",
        (INPUT_EXAMPLE,)),
    "ingest": Verb("read and check a log (or simulate one), build the store",
        "a log, or none where the config simulates one", "the store in the work directory",
        (INPUT_EXAMPLE, "--check --input KuaiSAR_v2.zip")),
    "train": Verb("train one model; after a kill the same command resumes",
        "the store and the models before this one", "content/, preference/, pdr/ or qin/ in the work directory",
        ("pdr --workdir work/a",)),
    "index": Verb("build the retrieval channels and the nearest-neighbour index",
        "the store and the models up to pdr", "index/ in the work directory, or the artifact's",
        ("--workdir work/a", "--artifact serve/a --out serve/b")),
    "evaluate": Verb("evaluate the system on the test day, or run a study of it",
        "a work directory with all models", "eval/ in it, or the study's directory; prints a table",
        ("--workdir work/a", "--workdir work/a --ablations --seeds 3", "--workdir work/a --sweep qrcf",
        "--workdir work/a --diagnose", "--workdir work/a --raw-probe downloads/KuaiSAR_v2.zip")),
    "config": Verb("print every field of the config that a run would take",
        "a preset, a config file or the work directory's config.json", "nothing; prints JSON",
        ("--list", "--config quickstart:tiny")),
    "export": Verb("write an artifact, which serves without the work directory",
        "a work directory with all models", "the artifact", ("--workdir work/a --out serve/a",)),
    "report": Verb("write one HTML page of all results",
        "a work directory with eval/, and the studies that it holds", "report/ in it", ("--workdir work/a",)),
    "results": Verb("write the metrics of finished work directories into a document",
        "work directories with eval/", "the part of a document between two markers, or nothing; prints it",
        ("--out results.md work/a",)),
    "search": Verb("search as one person",
        "a work directory with all models, or an artifact", "nothing; prints the results",
        ('--workdir work/a --user 12 --query "space comedy"', '--artifact serve/a --user 12 --query "space comedy"')),
    "score": Verb("rank videos for a file of requests",
        "a work directory with all models, or an artifact; a file of requests", "the file of results",
        ("--workdir work/a --requests requests.csv --out ranked.parquet",
        "--artifact serve/a --requests requests.csv --out ranked.run")),
    "abtest": Verb("run a simulated A/B test of several systems, for weeks",
        "a work directory of the simulated world, with all models", "abtest/ in it; prints the estimates",
        ("--workdir work/quickstart", "--workdir work/quickstart --arms base,+qrcf,+pdr,+qrcf+pdr,+qin,pr2 --force",
        "--workdir work/quickstart --validate 50")),
    "demo": Verb("serve a local web page: results of base and pr2 side by side",
        "a work directory with all models, or an artifact", "nothing; serves http://127.0.0.1 until interrupted",
        ("--workdir work/a --port 0",)),
    "bench": Verb("time a workload on this machine's devices", "nothing; draws its data", "nothing; prints times",
        ("tables --json",)),
    "simulate": Verb("write the five tables of a simulated platform", "a config's world", "the tables of a log",
        ("--out work/world",)),
    "docs": Verb("list the documents that come with the package, or print one",
        "the documents that come with the package", "nothing; prints Markdown", ("method",)),
}
# fmt: on

MODELS = ("content", "preference", "pdr", "qin")
MODEL_ALIASES = {"taste": "preference"}
FLAG_ALIASES = {"--own-luck": "--independent-draws", "--trial": "--validate"}
"""Old names of models to the present ones."""

_Verbs = argparse._SubParsersAction


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name of what it does not know."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        flags = [text.partition("=")[0] for text in args or () if text.startswith("--")]
        for flag in flags if self.prog != "pr2" else ():  # which sees those of its verbs too
            if flag not in self._option_string_actions and flag != "--":
                self.error(f"unrecognized arguments: {flag}{did_you_mean(flag, self._option_string_actions)}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            meant = did_you_mean(str(value), map(str, action.choices))
            listed = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant} (choose from {listed})")

    def error(self, message: str) -> NoReturn:
        raise Pr2Error(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `verb` of its result names the verb."""
    parser = _Parser(
        prog="pr2",
        description="Personalised retrieval and ranking for short-video search.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pr2_jax {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_stages(verbs)
    _add_services(verbs)
    return parser


def _add_stages(verbs: _Verbs) -> None:
    """The stages of a work directory."""
    run = _add(verbs, "run")
    ingest = _add(verbs, "ingest")
    ingest.add_argument(
        "--check",
        action="store_true",
        help="read the whole log, write nothing, print every problem (status 2 if there is one)",
    )
    train = _add(verbs, "train")
    index = _add(verbs, "index")
    evaluate = _add(verbs, "evaluate")
    _add_studies(evaluate)
    config = _add(verbs, "config")
    train.add_argument("model", type=_model, choices=MODELS)
    config.add_argument("--list", action="store_true", help="list the presets instead")
    for verb in (run, train, evaluate):
        _add_workdir(verb)
    for verb in (ingest, config):
        _add_workdir(verb, required=False)
    _add_place(index)
    index.add_argument(
        "--out", type=Path, metavar="DIR", help="with --artifact: write another artifact and leave that one as it is"
    )
    for verb in (run, ingest, train, index, evaluate, config):
        _add_config(verb)
    for verb in (run, train):
        _add_processes(verb)
    for verb in (run, ingest):
        verb.add_argument("--input", type=_existing, metavar="DIR|ZIP", help="a log in KuaiSAR's format")


def _add_studies(evaluate: argparse.ArgumentParser) -> None:
    instead = evaluate.add_mutually_exclusive_group()
    instead.add_argument("--sweep", choices=("qrcf",), help="study: QRCF by threshold and K, on the validation day")
    instead.add_argument(
        "--ablations",
        type=_ablations,
        nargs="?",
        const="ablations",
        metavar="FILE.py",
        help="study: train and evaluate without each part (default: the preset file ablations)",
    )
    instead.add_argument(
        "--diagnose",
        action="store_true",
        help="study: compare diagnostics with their normal ranges (a minute)",
    )
    instead.add_argument(
        "--raw-probe",
        type=_existing,
        metavar="DIR|ZIP",
        help="study: leak probe from the raw log: inputs of searches must not change without their future",
    )
    evaluate.add_argument("--seeds", type=_count, metavar="N", help="with --ablations: repetitions (default: 1)")


def _add_services(verbs: _Verbs) -> None:
    """Verbs that use a finished work directory, and the simulator."""
    export = _add(verbs, "export")
    _add_workdir(export)
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="the artifact; an older one is replaced")
    _add_workdir(_add(verbs, "report"))
    results = _add(verbs, "results")
    results.add_argument("places", nargs="+", type=_existing, metavar="WORKDIR", help="evaluated by pr2 run")
    results.add_argument("--out", type=Path, metavar="FILE.md", help="a document with the two markers; default: print")
    search = _add(verbs, "search")
    search.add_argument("--user", required=True, metavar="ID", help="raw user id; an unknown one gets no history")
    search.add_argument("--query", required=True, metavar="WORDS", help="words, or word ids, between spaces")
    search.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    score = _add(verbs, "score")
    score.add_argument("--requests", required=True, type=_existing, metavar="FILE.{csv,parquet}")
    score.add_argument("--out", required=True, type=Path, metavar="FILE.{parquet,run}", help=".run is the TREC format")
    for verb in (search, score):
        _add_place(verb)
        verb.add_argument("--k", type=_count, default=10, metavar="N", help="results a request (default: %(default)s)")
    _add_abtest(verbs)
    demo = _add(verbs, "demo")
    _add_place(demo)
    demo.add_argument("--port", type=_number, default=8765, metavar="N", help="0 = any free one (default: %(default)s)")
    bench = _add(verbs, "bench")
    bench.add_argument("workload", choices=("tables", "pdr", "qin", "qrcf", "feed", "resume"))
    bench.add_argument("--repeats", type=_count, metavar="N", help="timed steps (default: 20)")
    bench.add_argument("--kills", type=_count, metavar="N", help="resume: runs killed at random (default: 20)")
    bench.add_argument("--seed", type=_number, metavar="N", help="resume: of the random moments (default: 0)")
    bench.add_argument("--json", action="store_true", help="one JSON object a line")
    simulate = _add(verbs, "simulate")
    simulate.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_config(simulate, "every field's own")
    docs = _add(verbs, "docs")
    docs.add_argument("name", nargs="?", metavar="NAME", help="a document of the list")


def _add_abtest(verbs: _Verbs) -> None:
    abtest = _add(verbs, "abtest")
    _add_workdir(abtest)
    abtest.add_argument("--arms", default="base,pr2", metavar="A,B,...", help="control first (default: %(default)s)")
    abtest.add_argument("--days", type=_count, metavar="N", help="days counted (default: 28)")
    abtest.add_argument(
        "--aa-days", type=_count, metavar="N", help="days before, with everybody on control (default: 7)"
    )
    abtest.add_argument("--warm-up", type=_number, metavar="N", help="days with arms, not counted (default: 2)")
    abtest.add_argument("--salt", metavar="TEXT", help="salt of the hash that assigns people to arms (default: pr2)")
    abtest.add_argument(
        "--refresh",
        type=_count,
        metavar="N",
        help="retrain each arm's models on its own log every N days; each takes as long as pr2 run",
    )
    abtest.add_argument(
        "--decided-by", metavar="METRIC", help="metric of the power analysis: ctr, watch, active, ... (default: ctr)"
    )
    abtest.add_argument(
        "--foreseen", type=float, metavar="X", help="relative change that it must be able to detect (default: 0.05)"
    )
    abtest.add_argument(
        "--independent-draws",
        "--own-luck",
        action="store_true",
        help="without common random numbers: intervals as on a real platform",
    )
    abtest.add_argument(
        "--validate", "--trial", type=_count, metavar="N", help="instead: N (2 or more) A/A and planted-effect runs"
    )
    abtest.add_argument("--force", action="store_true", help="run even if the power analysis asks for more people")


def _add(verbs: _Verbs, name: str) -> argparse.ArgumentParser:
    summary, reads, writes, examples = VERBS[name]
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\nreads:  {reads}\nwrites: {writes}",
        epilog="\n".join(["examples:" if examples[1:] else "example:", *(f"  pr2 {name} {one}" for one in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(verb=name)
    return parser


def _add_workdir(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    help_ = "where every stage's result lives"
    parser.add_argument("--workdir", required=required, type=Path, metavar="DIR", help=help_)


def _add_place(parser: argparse.ArgumentParser) -> None:
    """A work directory or a serving artifact."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--workdir", type=Path, metavar="DIR", help="where every stage's result lives")
    place.add_argument("--artifact", type=_artifact, metavar="DIR", help="what pr2 export wrote")


def _add_config(parser: argparse.ArgumentParser, default: str = "the one the work directory was made with") -> None:
    help_ = f"a preset (pr2 config --list) or a file of your own; default: {default}"
    parser.add_argument("--config", metavar="NAME|FILE.py[:VARIANT]", help=help_)
    parser.add_argument("--config.a.b=value", dest="_", metavar="", help="sets one field, e.g. --config.pdr.width=32")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    several = parser.add_argument_group(
        "several processes", "each runs this command, on one work directory; launch/train.sh starts them on one host"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is; any free port of its host")
    several.add_argument("--processes", type=_count, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    several.add_argument(
        "--distributed",
        choices=("slurm", "jobset", "tpu"),
        help="in place of the three: a task of srun, a pod of launch/jobset.yaml, a worker of a Cloud TPU slice",
    )
    several.add_argument(
        "--wait", type=_count, default=300, metavar="S", help="seconds to wait for all to start (default: %(default)s)"
    )


def _existing(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return path


def _ablations(text: str) -> Path:
    return _existing(str(preset_files.path_of(text)))


def _model(text: str) -> str:
    if text in MODEL_ALIASES:
        console.log_renamed(f"the model {text}", MODEL_ALIASES[text])
    return MODEL_ALIASES.get(text, text)


def _artifact(text: str) -> Path:
    path = Path(text)
    if not (path / artifacts.MANIFEST).is_file():
        raise argparse.ArgumentTypeError(f"{path} has no {artifacts.MANIFEST}: make an artifact with pr2 export")
    return path


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of 0 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number above 0")
    return int(text)
