"""The `pr2` command. Each verb is one call with its options; heavy imports wait until their verb is known."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from pr2_jax import artifacts, console
from pr2_jax.cli import arguments, documents
from pr2_jax.config import Config, loader, preset_files
from pr2_jax.errors import BadConfig, BadInput, Pr2Error, Stopped, disk_full
from pr2_jax.workdir import config_path


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if a benchmark failed, 2 for errors of the caller, 130 when interrupted, 141 on a broken pipe,
    143 when stopped by SIGTERM while training."""
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        console.silence_libraries()
        status = _verbs()[options.verb](options)
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
    with _workdir(options) as (pipeline, config):
        pipeline.run(options.workdir, config, options.input)


def _ingest(options: argparse.Namespace) -> None:
    if options.check:
        _check(options)
        return
    if options.workdir is None:
        raise BadInput("ingest needs --workdir DIR, or --check to write nothing")
    with _workdir(options) as (pipeline, config):
        pipeline.ingest(options.workdir, config, options.input)


def _check(options: argparse.Namespace) -> None:
    if options.input is None:
        raise BadInput("--check needs a log to read: name a directory or a zip with --input")
    config = _resolved(options) if options.workdir else loader.load_or_default(options.config, options.overrides)

    from pr2_jax.data.ingest import ingest_report

    found = ingest_report.examine(options.input, config)
    print("\n".join(found.lines))
    if found.problems:
        raise BadInput(f"{options.input}: {len(found.problems)} to mend, see above")


def _train(options: argparse.Namespace) -> None:
    with _workdir(options) as (pipeline, config):
        pipeline.train(options.workdir, config, options.model)


def _index(options: argparse.Namespace) -> None:
    if options.artifact:
        if options.config or options.overrides:
            raise BadConfig("--config: an artifact keeps the config that it was exported with; leave it out")

        from pr2_jax.stages import export_artifact

        export_artifact.rebuild(options.artifact, options.out or options.artifact)
        return
    if options.out:
        raise BadInput("--out goes with --artifact: a work directory keeps its index inside")
    with _workdir(options) as (pipeline, config):
        pipeline.index(options.workdir, config)


def _evaluate(options: argparse.Namespace) -> None:
    with _workdir(options) as (pipeline, config):
        if options.seeds is not None and not options.ablations:
            raise BadConfig("--seeds belongs to --ablations FILE")
        if options.ablations:
            pipeline.ablate(options.workdir, config, options.ablations, options.seeds or 1)
        elif options.sweep:
            pipeline.sweep(options.workdir, config, options.sweep)
        elif options.diagnose:
            pipeline.diagnose(options.workdir, config)
        elif options.raw_probe:
            pipeline.raw_probe(options.workdir, config, options.raw_probe)
        else:
            pipeline.evaluate(options.workdir, config)


def _export(options: argparse.Namespace) -> None:
    from pr2_jax.stages import export_artifact

    export_artifact.export(options.workdir, options.out)


def _report(options: argparse.Namespace) -> None:
    from pr2_jax.report import build_report

    build_report.write(options.workdir)


def _results(options: argparse.Namespace) -> None:
    from pr2_jax.studies import results_document

    results_document.write(options.places, options.out)


def _config(options: argparse.Namespace) -> None:
    if options.list:
        print("\n".join([*loader.presets(), f"files, to copy: {preset_files.directory()}"]))
        return
    if options.workdir is None and options.config is None:
        raise BadInput("config needs --config NAME, --workdir DIR or --list")
    config = _resolved(options) if options.workdir else loader.load(options.config, options.overrides)
    print(artifacts.canonical_text(loader.to_dict(config)), end="")


def _docs(options: argparse.Namespace) -> None:
    print(documents.text(options.name) if options.name else "\n".join(documents.listing()))


def _search(options: argparse.Namespace) -> None:
    from pr2_jax.search import search_command

    search_command.print_search(
        options.workdir or options.artifact, options.user, options.query, options.k, options.json
    )


def _score(options: argparse.Namespace) -> None:
    from pr2_jax.search import batch_scoring

    batch_scoring.score_file(options.workdir or options.artifact, options.requests, options.out, options.k)


def _abtest(options: argparse.Namespace) -> None:
    from pr2_jax import pipeline
    from pr2_jax.abtest.experiment import Plan

    given = ("days", "aa_days", "warm_up", "salt", "refresh", "decided_by", "foreseen")
    knobs = {name: value for name in given if (value := getattr(options, name)) is not None}
    plan = Plan(
        arms=tuple(arm.strip() for arm in options.arms.split(",")),
        common_random_numbers=not options.independent_draws,
        **knobs,
    )
    pipeline.abtest(options.workdir, plan, options.force, options.validate)


def _demo(options: argparse.Namespace) -> None:
    from pr2_jax.demo import server

    server.serve(options.workdir or options.artifact, options.port)


def _bench(options: argparse.Namespace) -> int:
    from pr2_jax.bench import bench_command

    if options.workload == "resume":
        if options.repeats is not None:
            raise BadConfig("--repeats does not belong to `pr2 bench resume`: say --kills")
        return 0 if bench_command.print_kills(options.kills or 20, options.seed or 0, options.json) else 1
    if options.kills is not None or options.seed is not None:
        raise BadConfig(f"--kills and --seed belong to `pr2 bench resume`, not to {options.workload}")
    bench_command.print_workload(options.workload, options.repeats or 20, options.json)
    return 0


def _simulate(options: argparse.Namespace) -> None:
    world_config = loader.load_or_default(options.config, options.overrides).world

    from pr2_jax.simulation import world_tables

    world_tables.write_world(options.out, world_config)


def _resolved(options: argparse.Namespace) -> Config:
    """The config that --config names, else the one that the work directory was made with."""
    if (options.workdir / artifacts.MANIFEST).is_file():
        raise BadInput(f"{options.workdir} is a finished artifact, expected a work directory (see pr2 export --help)")
    return loader.load(options.config or str(config_path(options.workdir)), options.overrides)


@contextlib.contextmanager
def _workdir(options: argparse.Namespace) -> Iterator[tuple[ModuleType, Config]]:
    """Joins the other processes, if any, and locks the work directory; gives the pipeline and the config."""
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
        from pr2_jax import pipeline  # heavy imports wait until the work directory is locked

        yield pipeline, config


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Overrides are taken out first, since the parser does not know the fields of the config."""
    overrides = [text for text in argv if text.startswith(loader.PREFIX)]
    if bare := [text for text in overrides if "=" not in text]:
        raise BadConfig(f"{bare[0]}: expected {bare[0]}=VALUE, one word")
    options = arguments.parser().parse_args([text for text in argv if text not in overrides])
    if overrides and "config" not in options:
        source = "its config from the work directory" if "workdir" in options else "no config"
        raise BadConfig(f"{overrides[0]}: this command takes {source}")
    options.overrides = overrides
    for old, new in arguments.FLAG_ALIASES.items():
        if any(text.partition("=")[0] == old for text in argv):
            console.log_renamed(old, new)
    return options


def _verbs() -> dict[str, Callable[[argparse.Namespace], int | None]]:
    """By name, as cli/arguments.py has them."""
    return {
        "run": _run,
        "ingest": _ingest,
        "train": _train,
        "index": _index,
        "evaluate": _evaluate,
        "export": _export,
        "report": _report,
        "results": _results,
        "config": _config,
        "search": _search,
        "score": _score,
        "abtest": _abtest,
        "demo": _demo,
        "bench": _bench,
        "simulate": _simulate,
        "docs": _docs,
    }
