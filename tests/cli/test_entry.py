"""The `pr2` command: what each verb calls, and what people see when something is wrong."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import pr2_jax
from pr2_jax.cli import arguments, entry
from pr2_jax.config import Config, loader
from pr2_jax.errors import BadInput, Stopped

CALLS = {
    "pipeline": ("run", "ingest", "train", "index", "evaluate", "sweep", "diagnose", "abtest"),
    "search.search_command": ("print_search",),
    "search.batch_scoring": ("score_file",),
    "demo.server": ("serve",),
    "stages.export_artifact": ("export", "rebuild"),
    "report.build_report": ("write",),
    "simulation.world_tables": ("write_world",),
}
VERBS = (
    "run",
    "ingest",
    "train",
    "index",
    "evaluate",
    "config",
    "export",
    "report",
    "search",
    "score",
    "abtest",
    "demo",
)
VERBS += ("simulate", "docs", "results")
RUN = ["run", "--workdir", "w", "--config", "configs/kuaisar.py"]


@pytest.fixture
def calls(monkeypatch, repository):
    """Stands in for every room that the command calls, and lists (function, arguments)."""
    made = []

    def recorder(name):
        return lambda *args: made.append((name, args))

    for module, names in CALLS.items():
        stand_in = types.SimpleNamespace(**{name: recorder(f"{module}.{name}") for name in names})
        package, _, leaf = module.rpartition(".")
        parent = __import__(f"pr2_jax.{package}", fromlist=["_"]) if package else pr2_jax
        monkeypatch.setattr(parent, leaf, stand_in, raising=False)
    monkeypatch.chdir(repository)
    return made


def test_run_passes_the_config_and_the_input(calls, tmp_path):
    arguments = ["run", "--config", "configs/quickstart.py:tiny", "--config.pdr.width=8", "--workdir", f"{tmp_path}/w"]
    assert entry.main([*arguments, "--input", str(tmp_path)]) == 0
    assert entry.main(arguments) == 0
    config = loader.load("configs/quickstart.py:tiny", ["--config.pdr.width=8"])
    assert calls == [
        ("pipeline.run", (tmp_path / "w", config, tmp_path)),
        ("pipeline.run", (tmp_path / "w", config, None)),
    ]


def test_stages_take_the_config_that_the_work_directory_was_made_with(calls, tmp_path):
    kept = loader.override(Config(), ["--config.name=kept"])
    loader.save(kept, tmp_path / "config.json")
    workdir = ["--workdir", str(tmp_path)]
    for verb in (["ingest"], ["train", "content"], ["train", "pdr"], ["train", "qin"], ["index"], ["evaluate"]):
        assert entry.main([*verb, *workdir]) == 0
    assert entry.main(["index", *workdir, "--config.seed=1"]) == 2
    assert entry.main(["index", *workdir, "--config.world.seed=1"]) == 0
    assert calls == [
        ("pipeline.ingest", (tmp_path, kept, None)),
        ("pipeline.train", (tmp_path, kept, "content")),
        ("pipeline.train", (tmp_path, kept, "pdr")),
        ("pipeline.train", (tmp_path, kept, "qin")),
        ("pipeline.index", (tmp_path, kept)),
        ("pipeline.evaluate", (tmp_path, kept)),
        ("pipeline.index", (tmp_path, loader.override(kept, ["--config.world.seed=1"]))),
    ]
    assert loader.read(tmp_path / "config.json") == kept, "only a run rewrites it"


def test_a_study_takes_the_place_of_the_evaluation(calls, tmp_path):
    loader.save(Config(), tmp_path / "config.json")
    assert entry.main(["evaluate", "--workdir", str(tmp_path), "--sweep", "qrcf"]) == 0
    assert entry.main(["evaluate", "--workdir", str(tmp_path), "--diagnose"]) == 0
    assert calls == [("pipeline.sweep", (tmp_path, Config(), "qrcf")), ("pipeline.diagnose", (tmp_path, Config()))]


def test_config_is_what_a_run_would_take(capsys, tmp_path, repository):
    arguments = ["--workdir", str(tmp_path), "--config", str(repository / "configs/quickstart.py:tiny")]
    assert entry.main(["config", *arguments, "--config.pdr.width=24"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert loader.from_dict(shown) == loader.load(arguments[3], ["--config.pdr.width=24"])
    loader.save(loader.from_dict(shown), tmp_path / "config.json")
    for source in (arguments[:2], ["--config", f"{tmp_path}/config.json"]):
        assert entry.main(["config", *source]) == 0
        assert json.loads(capsys.readouterr().out) == shown


def test_presets_are_listed_with_their_place(capsys, repository):
    assert entry.main(["config", "--list"]) == 0
    *presets, files = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in presets] == ["kuaisar", "quickstart"]
    assert files == f"files, to copy: {repository / 'configs'}"


def test_ablations_without_a_file_are_the_preset(repository):
    for given in ([], ["ablations"], [str(repository / "configs" / "ablations.py")]):
        options = entry._parse(["evaluate", "--workdir", "w", "--ablations", *given])
        assert options.ablations == repository / "configs" / "ablations.py"
    assert entry._parse(["evaluate", "--workdir", "w"]).ablations is None


def test_a_model_may_have_its_old_name(monkeypatch, capsys):
    monkeypatch.setitem(arguments.MODEL_ALIASES, "old_model", "pdr")
    assert entry._parse(["train", "old_model", "--workdir", "w"]).model == "pdr"
    assert capsys.readouterr().err == "pr2       the model old_model is called pdr now\n"
    assert set(arguments.MODEL_ALIASES.values()) <= set(arguments.MODELS)


def test_services_pass_their_options(calls, tmp_path):
    requests = tmp_path / "requests.csv"
    requests.write_text("")
    workdir = ["--workdir", str(tmp_path)]
    assert entry.main(["search", *workdir, "--user", "12", "--query", "space comedy", "--k", "5", "--json"]) == 0
    assert entry.main(["search", *workdir, "--user", "12", "--query", "space"]) == 0
    assert entry.main(["score", *workdir, "--requests", str(requests), "--out", str(tmp_path / "o.run")]) == 0
    assert entry.main(["demo", *workdir]) == 0
    assert entry.main(["export", *workdir, "--out", "a"]) == 0
    assert entry.main(["report", *workdir]) == 0
    assert entry.main(["simulate", "--out", str(tmp_path / "world"), "--config.world.users=70"]) == 0
    assert calls == [
        ("search.search_command.print_search", (tmp_path, "12", "space comedy", 5, True)),
        ("search.search_command.print_search", (tmp_path, "12", "space", 10, False)),
        ("search.batch_scoring.score_file", (tmp_path, requests, tmp_path / "o.run", 10)),
        ("demo.server.serve", (tmp_path, 8765)),
        ("stages.export_artifact.export", (tmp_path, Path("a"))),
        ("report.build_report.write", (tmp_path,)),
        ("simulation.world_tables.write_world", (tmp_path / "world", Config().world.__class__(users=70))),
    ]


def test_an_artifact_stands_in_for_the_work_directory(calls, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "in.csv").write_text("")
    artifact = ["--artifact", str(tmp_path)]
    assert entry.main(["search", *artifact, "--user", "12", "--query", "space"]) == 0
    assert entry.main(["score", *artifact, "--requests", str(tmp_path / "in.csv"), "--out", "o.run"]) == 0
    assert entry.main(["demo", *artifact, "--port", "0"]) == 0
    assert entry.main(["index", *artifact]) == 0
    assert entry.main(["index", *artifact, "--out", "b"]) == 0
    assert calls == [
        ("search.search_command.print_search", (tmp_path, "12", "space", 10, False)),
        ("search.batch_scoring.score_file", (tmp_path, tmp_path / "in.csv", Path("o.run"), 10)),
        ("demo.server.serve", (tmp_path, 0)),
        ("stages.export_artifact.rebuild", (tmp_path, tmp_path)),
        ("stages.export_artifact.rebuild", (tmp_path, Path("b"))),
    ]


def test_an_experiment_is_told_its_plan(calls, tmp_path):
    from pr2_jax.abtest.experiment import Plan

    command = ["abtest", "--workdir", str(tmp_path)]
    assert entry.main(command) == 0
    more = ["--arms", "base,+qrcf,pr2", "--days", "3", "--aa-days", "2", "--warm-up", "0", "--salt", "x"]
    more += ["--refresh", "2", "--decided-by", "watch", "--foreseen", "0.1", "--independent-draws", "--force"]
    assert entry.main([*command, *more]) == 0
    assert entry.main([*command, "--validate", "5"]) == 0
    assert entry.main([*command, "--own-luck", "--trial", "5"]) == 0  # older names
    told = Plan(("base", "+qrcf", "pr2"), 3, 2, 0, "x", False, 2, "watch", 0.1)
    assert calls == [
        ("pipeline.abtest", (tmp_path, Plan(), False, None)),
        ("pipeline.abtest", (tmp_path, told, True, None)),
        ("pipeline.abtest", (tmp_path, Plan(), False, 5)),
        ("pipeline.abtest", (tmp_path, Plan(common_random_numbers=False), False, 5)),
    ]


def test_rooms_take_what_the_command_passes():
    from pr2_jax import pipeline
    from pr2_jax.demo import server
    from pr2_jax.report import build_report
    from pr2_jax.search import batch_scoring, search_command
    from pr2_jax.simulation import world_tables
    from pr2_jax.stages import export_artifact

    path, config = Path("x"), Config()
    passed = {
        pipeline.run: (path, config, None),
        pipeline.ingest: (path, config, None),
        pipeline.train: (path, config, "pdr"),
        pipeline.index: (path, config),
        pipeline.evaluate: (path, config),
        pipeline.sweep: (path, config, "qrcf"),
        pipeline.abtest: (path, None, False, None),
        pipeline.diagnose: (path, config),
        search_command.print_search: (path, "12", "space", 10, False),
        batch_scoring.score_file: (path, path, path, 10),
        server.serve: (path, 8765),
        build_report.write: (path,),
        export_artifact.export: (path, path),
        export_artifact.rebuild: (path, path),
        world_tables.write_world: (path, config.world),
    }
    for function, given in passed.items():
        assert len(inspect.signature(function).bind(*given).args) == len(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (see pr2 --help)"),
        (["serach"], "invalid choice: 'serach', did you mean 'search'? (choose from run, "),
        (["run", "--workdri", "w"], "unrecognized arguments: --workdri, did you mean '--workdir'?"),
        (["run", "--workdir", "w", "--config", "setup.cfg"], "there is no preset and no config file setup.cfg"),
        (["run", "--workdir", "w", "--config", "README.md"], "README.md is no config file, expected FILE.py"),
        (["train", "pdr"], "the following arguments are required: --workdir (see pr2 train --help)"),
        (["train", "bert", "--workdir", "w"], "argument model: invalid choice: 'bert'"),
        (["index", "--workdir", "w", "--confg", "x"], "unrecognized arguments: --confg, did you mean '--config'?"),
        (["index", "--workdir", "w"], "w is not a work directory (no config.json): make it with `pr2 run "),
        (
            ["index", "--workdir", "w", "--config", "configs/no.py"],
            "there is no preset and no config file configs/no.py",
        ),
        (["run", "--workdir", "w", "--config", "quikstart"], "no config file quikstart, did you mean 'quickstart'?"),
        (
            ["run", "--workdir", "w", "--config", "kuaisar", "--config.pdr.width", "3"],
            "expected --config.pdr.width=VALUE",
        ),
        (["run", "--workdir", "w", "--config", "configs/kuaisar.py:big"], "there is no variant 'big'; it has tiny"),
        (["config"], "config needs --config NAME, --workdir DIR or --list"),
        (["docs", "nothing"], "there is no document 'nothing'"),
        (["evaluate", "--workdir", "w", "--ablations", "no.py"], "argument --ablations: no.py does not exist"),
        (["run", "--workdir", "w", "--config", "configs/kuaisar.py", "--config.pdr.widht=3"], "did you mean 'width'?"),
        (["run", "--workdir", "w", "--config", "configs/kuaisar.py", "--input", "/no"], "--input: /no does not exist"),
        (["evaluate", "--workdir", "w", "--sweep", "pdr"], "argument --sweep: invalid choice: 'pdr'"),
        (["evaluate", "--workdir", "w", "--sweep"], "argument --sweep: expected one argument"),
        (
            ["evaluate", "--workdir", "w", "--diagnose", "--sweep", "qrcf"],
            "--sweep: not allowed with argument --diagnose",
        ),
        (["search", "--workdir", "w", "--user", "1", "--query", "a", "--k", "0"], "'0', expected a whole number above"),
        (["search", "--workdir", "w", "--user", "1", "--query", "a", "--config.k=3"], "--config.k=3: this command"),
        (["score", "--workdir", "w", "--requests", "/no.csv", "--out", "o"], "--requests: /no.csv does not exist"),
        ([*RUN, "--process", "1"], "--coordinator and --processes missing: give --coordinator, --processes, --process"),
        (
            [*RUN, "--coordinator", "here", "--processes", "2", "--process", "1"],
            "--coordinator here: expected HOST:PORT",
        ),
        ([*RUN, "--distributed", "cloud"], "invalid choice: 'cloud'"),
        (["index", "--workdir", "w", "--process", "1"], "unrecognized arguments: --process (see"),
        (["run", "--config", "configs/kuaisar.py", "--workdir", "setup.py"], "setup.py cannot be used as the work dir"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(calls, capsys, arguments, message):
    assert entry.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pr2: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert calls == []
    assert not Path("w").exists(), "nothing half-written"


def _failing(error):
    def fail(*_):
        raise error

    return fail


def test_errors_people_can_mend_are_one_line(calls, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(pr2_jax.pipeline, "run", _failing(BadInput("rec_inter.csv, row 3:\n  play_time -5")))
    arguments = ["run", "--config", "configs/kuaisar.py", "--workdir", str(tmp_path)]
    assert entry.main(arguments) == 2
    assert capsys.readouterr().err == "pr2: error: rec_inter.csv, row 3: play_time -5\n"
    monkeypatch.setattr(pr2_jax.pipeline, "run", _failing(KeyboardInterrupt()))
    assert entry.main(arguments) == 130
    assert capsys.readouterr().err == "pr2: interrupted; the same command carries on where it stopped\n"
    monkeypatch.setattr(pr2_jax.pipeline, "run", _failing(Stopped("stopped by SIGTERM after saving step 3 of 9")))
    assert entry.main(arguments) == 143
    said = "pr2: stopped by SIGTERM after saving step 3 of 9; the same command carries on\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(pr2_jax.pipeline, "run", _failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        entry.main(arguments)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_an_example(capsys, verb):
    with pytest.raises(SystemExit) as done:
        entry.main([*verb.split(), "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^  {f'pr2 {verb}'.strip()} \S", shown, re.MULTILINE)
    assert "example" in shown
    assert verb == "" or re.search(r"^reads:  \S.*\nwrites: \S", shown, re.MULTILINE)
    assert verb or all(f"    {name} " in shown for name in VERBS)


def _pr2(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "pr2_jax", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(pr2_jax.__file__).parents[1],
        **options,
    )


def test_help_is_quick_because_it_imports_nothing_heavy():
    probe = (
        "import sys, pr2_jax.cli.entry\n"
        "pr2_jax.cli.entry._parse(['index', '--workdir', 'w'])\n"
        "print({'jax', 'numpy', 'polars', 'rich', 'absl'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    started = time.process_time()
    with _pr2("--version") as process:
        out, error = process.communicate()
    assert (out, error, process.returncode) == (f"pr2_jax {pr2_jax.__version__}\n", "", 0)
    assert time.process_time() - started < 1


def test_reader_that_leaves_early_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    program = (
        "import sys; from pr2_jax.cli import entry as cli; cli._index = lambda options: print('x' * 100_000)\n"
        "sys.exit(cli.main(['index', '--workdir', 'w']))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(("old", "new"), arguments.FLAG_ALIASES.items())
def test_an_old_flag_is_taken_and_its_new_name_said(old, new, capsys, tmp_path):
    value = ["2"] if old == "--trial" else []
    options = entry._parse(["abtest", "--workdir", str(tmp_path), old, *value])
    assert vars(options)[new.removeprefix("--").replace("-", "_")]
    assert f"{old} is called {new} now" in capsys.readouterr().err
