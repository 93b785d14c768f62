"""The `pr2` command. It knows every room and holds no logic: each verb reads its options and makes one call."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pr2_jax import __version__, artifacts, config_loader, console
from pr2_jax.config import Config
from pr2_jax.errors import BadConfig, BadInput, Pr2Error, Stopped, disk_full
from pr2_jax.workdir import CONFIG_FILE

EXAMPLES = """\
examples:
  pr2 run --config configs/kuaisar.py --workdir work/kuaisar --input KuaiSAR_v2.zip
  pr2 run --config configs/quickstart.py:tiny --workdir work/tiny --config.pdr.width=32
  pr2 search --workdir work/kuaisar --user 12 --query "space comedy"
  pr2 export --workdir work/kuaisar --out serve/kuaisar
  pr2 score --artifact serve/kuaisar --requests requests.csv --out ranked.parquet
  pr2 COMMAND --help
"""
INPUT_EXAMPLE = "--config configs/kuaisar.py --workdir work/a --input KuaiSAR_v2.zip"

_Verbs = argparse._SubParsersAction


class _Parser(argparse.ArgumentParser):
    """Errors are one line, as all of ours."""

    def error(self, message: str) -> NoReturn:
        raise Pr2Error(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 where a benchmark found something wrong, 2 for anything the caller can mend, 130 when
    interrupted, 141 when the reader has gone, 143 when stopped by SIGTERM while training."""
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        console.silence_libraries()
        status = options.verb(options)
        sys.stdout.flush()
    except Stopped as stopped:
        print(f"pr2: {stopped}; the same command carries on", file=sys.stderr)
        return 143
    except Pr2Error as error:
        print(f"pr2: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails once more
        return 141
    except OSError as error:
        if not disk_full(error):
            raise
        print(f"pr2: error: no room left on the disk ({error}): make some and run the same command", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pr2: interrupted; the same command carries on where it stopped", file=sys.stderr)
        return 130
    return status or 0


def _run(options: argparse.Namespace) -> None:
    with _workdir(options) as config:
        from pr2_jax import pipeline

        pipeline.run(options.workdir, config, options.input)


def _ingest(options: argparse.Namespace) -> None:
    with _workdir(options) as config:
        from pr2_jax import pipeline

        pipeline.ingest(options.workdir, config, options.input)


def _train(options: argparse.Namespace) -> None:
    with _workdir(options) as config:
        from pr2_jax import pipeline

        pipeline.train(options.workdir, config, options.model)


def _index(options: argparse.Namespace) -> None:
    if options.artifact:
        if options.config or options.overrides:
            raise BadConfig("--config: an artifact keeps the config that it was exported with; leave it out")

        from pr2_jax.stages import export

        export.rebuild(options.artifact, options.out or options.artifact)
        return
    if options.out:
        raise BadInput("--out goes with --artifact: a work directory keeps its index inside")
    with _workdir(options) as config:
        from pr2_jax import pipeline

        pipeline.index(options.workdir, config)


def _evaluate(options: argparse.Namespace) -> None:
    with _workdir(options) as config:
        from pr2_jax import pipeline

        if options.seeds is not None and not options.ablations:
            raise BadConfig("--seeds belongs to --ablations FILE")
        if options.ablations:
            pipeline.ablate(options.workdir, config, options.ablations, options.seeds or 1)
        elif options.sweep:
            pipeline.sweep(options.workdir, config, options.sweep)
        elif options.diagnose:
            pipeline.diagnose(options.workdir, config)
        else:
            pipeline.evaluate(options.workdir, config)


def _export(options: argparse.Namespace) -> None:
    from pr2_jax.stages import export

    export.export(options.workdir, options.out)


def _report(options: argparse.Namespace) -> None:
    from pr2_jax.report import build

    build.write(options.workdir)


def _config(options: argparse.Namespace) -> None:
    print(artifacts.canonical_text(config_loader.to_dict(_resolved(options))), end="")


def _search(options: argparse.Namespace) -> None:
    from pr2_jax.search import commands

    commands.print_search(options.workdir or options.artifact, options.user, options.query, options.k, options.json)


def _score(options: argparse.Namespace) -> None:
    from pr2_jax.search import scoring

    scoring.score_file(options.workdir or options.artifact, options.requests, options.out, options.k)


def _bench(options: argparse.Namespace) -> int:
    from pr2_jax.bench import commands

    if options.workload == "resume":
        if options.repeats is not None:
            raise BadConfig("--repeats does not belong to `pr2 bench resume`: say --kills")
        return 0 if commands.print_kills(options.kills or 20, options.seed or 0, options.json) else 1
    if options.kills is not None or options.seed is not None:
        raise BadConfig(f"--kills and --seed belong to `pr2 bench resume`, not to {options.workload}")
    commands.print_workload(options.workload, options.repeats or 20, options.json)
    return 0


def _simulate(options: argparse.Namespace) -> None:
    config = config_loader.load(options.config) if options.config else Config()
    world_config = config_loader.override(config, options.overrides).world

    from pr2_jax.simulation import world

    world.write_world(options.out, world_config)


def _resolved(options: argparse.Namespace) -> Config:
    """The config that --config names, else the one that the work directory was made with."""
    if (options.workdir / artifacts.MANIFEST).is_file():
        raise BadInput(f"{options.workdir} is a finished artifact, expected a work directory (see pr2 export --help)")
    kept = options.workdir / CONFIG_FILE
    if options.config is None and not kept.is_file():
        raise BadConfig(f"{kept} does not exist yet: say --config configs/FILE.py[:variant]")
    return config_loader.load(options.config or str(kept), options.overrides)


@contextlib.contextmanager
def _workdir(options: argparse.Namespace) -> Iterator[Config]:
    """Joins the other processes, if any, and holds the work directory."""
    config = _resolved(options)
    with contextlib.ExitStack() as held:
        if "distributed" in options:
            from pr2_jax.training import distributed

            flags = (options.coordinator, options.processes, options.process, options.distributed)
            distributed.start(distributed.group(*flags, os.environ), options.distributed, options.wait)
            held.enter_context(distributed.company())
            distributed.first(lambda: held.enter_context(artifacts.locked(options.workdir)))
        else:
            held.enter_context(artifacts.locked(options.workdir))
        yield config


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Overrides are taken out first: their names are the config's business, not the parser's."""
    overrides = [text for text in argv if text.startswith(config_loader.PREFIX)]
    options = _parser().parse_args([text for text in argv if text not in overrides])
    if overrides and "config" not in options:
        source = "its config from the work directory" if "workdir" in options else "no config"
        raise BadConfig(f"{overrides[0]}: this command takes {source}")
    options.overrides = overrides
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pr2",
        description="Personalised retrieval and ranking for short-video search.",
        epilog=EXAMPLES,
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
    run = _add(verbs, "run", _run, "all stages in order; finished ones are skipped", INPUT_EXAMPLE)
    ingest = _add(verbs, "ingest", _ingest, "read and check a log (or simulate one), build the store", INPUT_EXAMPLE)
    train = _add(verbs, "train", _train, "train one model; a kill loses nothing but minutes", "pdr --workdir work/a")
    index = _add(
        verbs,
        "index",
        _index,
        "build the retrieval channels and the nearest-neighbour index",
        "--workdir work/a",
        "--artifact serve/a --out serve/b",
    )
    evaluate = _add(
        verbs,
        "evaluate",
        _evaluate,
        "write run files and metrics of the test day, print the table; or a study in place of that",
        "--workdir work/a",
        "--workdir work/a --ablations configs/ablations.py --seeds 3",
        "--workdir work/a --sweep qrcf",
        "--workdir work/a --diagnose",
    )
    instead = evaluate.add_mutually_exclusive_group()
    instead.add_argument(
        "--sweep", choices=("qrcf",), help="in place of that: what QRCF's threshold and K do, on the validation day"
    )
    instead.add_argument(
        "--ablations",
        type=_existing,
        metavar="FILE.py",
        help="in place of that: the whole system trained and judged without each part",
    )
    instead.add_argument(
        "--diagnose",
        action="store_true",
        help="in place of that: known ways to fail, each measured and held against what is normal (a minute)",
    )
    evaluate.add_argument("--seeds", type=_count, metavar="N", help="with --ablations: repetitions (default: 1)")
    config = _add(verbs, "config", _config, "print the config that a run would take, every field", "--workdir work/a")
    train.add_argument("model", choices=("content", "taste", "pdr", "qin"))
    for verb in (run, ingest, train, evaluate, config):
        _add_workdir(verb)
    _add_place(index)
    index.add_argument("--out", type=Path, metavar="DIR", help="with --artifact: leave that one and write another")
    for verb in (run, ingest, train, index, evaluate, config):
        _add_config(verb)
    for verb in (run, train):
        _add_processes(verb)
    for verb in (run, ingest):
        verb.add_argument("--input", type=_existing, metavar="DIR|ZIP", help="a log in KuaiSAR's format")


def _add_services(verbs: _Verbs) -> None:
    """What a finished work directory is for, and the simulator."""
    export = _add(
        verbs,
        "export",
        _export,
        "write a directory that serves without the work directory and the model code",
        "--workdir work/a --out serve/a",
    )
    _add_workdir(export)
    export.add_argument("--out", required=True, type=Path, metavar="DIR", help="the artifact; an older one is replaced")
    _add_workdir(_add(verbs, "report", _report, "write one page of everything that was found", "--workdir work/a"))
    asked = '--user 12 --query "space comedy"'
    search = _add(
        verbs, "search", _search, "search as a user", f"--workdir work/a {asked}", f"--artifact serve/a {asked}"
    )
    search.add_argument("--user", required=True, metavar="ID", help="raw user id; an unknown one gets no history")
    search.add_argument("--query", required=True, metavar="WORDS", help="words, or word ids, between spaces")
    search.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    score = _add(
        verbs,
        "score",
        _score,
        "rank for a file of requests",
        "--workdir work/a --requests requests.csv --out ranked.parquet",
        "--artifact serve/a --requests requests.csv --out ranked.run",
    )
    score.add_argument("--requests", required=True, type=_existing, metavar="FILE.{csv,parquet}")
    score.add_argument("--out", required=True, type=Path, metavar="FILE.{parquet,run}", help=".run is the TREC format")
    for verb in (search, score):
        _add_place(verb)
        verb.add_argument("--k", type=_count, default=10, metavar="N", help="results a request (default: %(default)s)")
    bench = _add(verbs, "bench", _bench, "time a workload on this machine's devices", "tables --json")
    bench.add_argument("workload", choices=("tables", "pdr", "qin", "qrcf", "feed", "resume"))
    bench.add_argument("--repeats", type=_count, metavar="N", help="timed steps (default: 20)")
    bench.add_argument("--kills", type=_count, metavar="N", help="resume: runs killed at random (default: 20)")
    bench.add_argument("--seed", type=_number, metavar="N", help="resume: of the random moments (default: 0)")
    bench.add_argument("--json", action="store_true", help="one JSON object a line")
    simulate = _add(verbs, "simulate", _simulate, "write the five tables of a simulated platform", "--out work/world")
    simulate.add_argument("--out", required=True, type=Path, metavar="DIR")
    _add_config(simulate, "every field's own")


def _add(
    verbs: _Verbs, name: str, verb: Callable[[argparse.Namespace], int | None], summary: str, *examples: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="\n".join(["examples:" if examples[1:] else "example:", *(f"  pr2 {name} {one}" for one in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(verb=verb)
    return parser


def _add_workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="where every stage's result lives")


def _add_place(parser: argparse.ArgumentParser) -> None:
    """A work directory or a serving artifact."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--workdir", type=Path, metavar="DIR", help="where every stage's result lives")
    place.add_argument("--artifact", type=_artifact, metavar="DIR", help="what pr2 export wrote")


def _add_config(parser: argparse.ArgumentParser, default: str = "the one the work directory was made with") -> None:
    parser.add_argument("--config", metavar="FILE.py[:variant]", help=f"default: {default}")
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
