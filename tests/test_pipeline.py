"""All stages in order: what is skipped, what is made again, what a kill costs, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from pr2_jax import pipeline, workdir
from pr2_jax.cli import entry
from pr2_jax.config import loader
from pr2_jax.data.store.log_store import SCHEMA as STORE_SCHEMA
from pr2_jax.errors import BadConfig, StaleArtifact
from pr2_jax.models.model_functions import load_model
from pr2_jax.search.system import System

STAGES = ("content", "preference", "pdr", "index", "qin", "eval")
RESULTS = ("store", *STAGES)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, micro_config) -> Path:
    """A work directory with a store and nothing else."""
    directory = tmp_path_factory.mktemp("ingested")
    pipeline.ingest(directory, micro_config, None)
    return directory


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Bodies that only write a file; lists the stages in the order in which they were made."""
    order = []

    def body(name):
        def write(directory, config, out):
            order.append(name)
            (out / "made.txt").write_text(f"{name} {len(order)}")

        return write

    monkeypatch.setattr(pipeline, "BODIES", {name: body(name) for name in STAGES})
    monkeypatch.setattr(pipeline.evaluation, "print_table", lambda directory: None)
    return order


@pytest.fixture
def directory(ingested, tmp_path) -> Path:
    return shutil.copytree(ingested, tmp_path / "w")


def _files(directory: Path, parts=RESULTS) -> dict[str, tuple[int, int]]:
    """Every file of the results with its inode and time of change."""
    paths = [path for part in parts for path in (directory / part).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def _bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != "manifest.json"}


def test_a_finished_run_is_skipped_whole(finished, micro_config, capsys):
    before = _files(finished)
    pipeline.run(finished, micro_config, None)
    out, err = capsys.readouterr()
    assert [line.split(maxsplit=1) for line in err.splitlines()[:-2]] == [
        [name, "fresh, skipped"] for name in ("ingest", *STAGES)
    ]  # and then how long it took, and where the slices are
    assert out == (finished / "eval" / "table.txt").read_text()
    assert _files(finished) == before
    assert not list(finished.glob("*.partial"))


@pytest.mark.parametrize(
    ("change", "made_again"),
    [
        ("evaluation.bootstrap=60", ("eval",)),
        ("search.candidates=70", ("qin", "eval")),
        ("qin.optim.epochs=2", ("qin", "eval")),
        ("base.width=32", ("qin", "eval")),
        ("retrieval.qrcf.gamma=3", ("index", "qin", "eval")),
        ("preference.width=8", ("preference", "pdr", "index", "qin", "eval")),
        ("pdr.width=32", ("pdr", "index", "qin", "eval")),
        ("content.temperature=0.1", STAGES),
        ("world.seed=1", STAGES),
        ("name=other", ()),
    ],
)
def test_one_changed_knob_makes_only_what_depends_on_it(made, directory, micro_config, change, made_again, capsys):
    pipeline.run(directory, micro_config, None)
    assert tuple(made) == STAGES
    untouched = [name for name in STAGES if name not in made_again]
    before = _files(directory, untouched)
    made.clear()
    capsys.readouterr()
    pipeline.run(directory, loader.override(micro_config, [f"--config.{change}"]), None)
    assert tuple(made) == made_again
    assert _files(directory, untouched) == before
    said = capsys.readouterr().err
    assert said.count("fresh, skipped") == len(untouched) + (change != "world.seed=1")
    field = change.partition("=")[0].split(".")[-1]
    assert not made_again or f"{field} was " in said


def test_a_stage_that_raises_leaves_nothing_that_looks_whole(made, directory, micro_config, monkeypatch):
    def broken(directory, config, out):
        (out / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    whole = dict(pipeline.BODIES)
    for name in STAGES:
        monkeypatch.setitem(pipeline.BODIES, name, broken)
        with pytest.raises(RuntimeError, match="power cut"):
            pipeline.run(directory, micro_config, None)
        assert not (directory / name).exists()
        # What was trained so far is worth keeping; half an index or half an evaluation is not.
        assert (directory / f"{name}.partial").exists() == (name in pipeline.TRAINED)
        monkeypatch.setitem(pipeline.BODIES, name, whole[name])
    pipeline.run(directory, micro_config, None)
    assert tuple(made) == STAGES
    assert not list(directory.glob("*.partial"))


@pytest.mark.slow
def test_killed_and_carried_on_is_the_unbroken_run(finished, micro_arguments, micro_config, tmp_path, capsys):
    """SIGKILL in the middle of PDR's training; the same command again ends in the same bytes.

    It is told that all before and after is fresh, but for the evaluation, which another process thus repeats. That the
    store and all other training repeat is shown in data/test_world_ingest.py and stages/test_training_days.py.
    """
    directory = shutil.copytree(finished, tmp_path / "w")
    for name in ("pdr", "eval"):
        shutil.rmtree(directory / name)
    _kill_when(directory / "pdr.partial" / "checkpoints", ["run", *micro_arguments, "--workdir", str(directory)])
    assert sorted(path.name for path in directory.glob("*.partial")) == ["pdr.partial"]
    assert not (directory / "pdr").exists()
    capsys.readouterr()
    pipeline.run(directory, micro_config, None)
    said = capsys.readouterr().err
    assert {name for name in STAGES if f"{name:9} running" in said} == {"pdr", "eval"}
    ours, theirs = (_parameters(System.open(place, micro_config)) for place in (directory, finished))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert _bytes(directory / "eval") == _bytes(finished / "eval")


def _kill_when(there: Path, arguments: list[str]) -> None:
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),  # so that this process's compiled functions fit
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    repository = Path(pipeline.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "pr2_jax", *arguments],
        cwd=repository,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    # Orbax names a checkpoint by its step once it is whole.
    while not (there.exists() and any(path.name.isdigit() for path in there.iterdir())):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint after 4 minutes"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _parameters(system: System) -> list:
    return load_model(system.models.task("pdr"), system.workdir / "pdr")


@pytest.mark.parametrize(
    "command", [lambda *known: pipeline.run(*known, None), lambda *known: pipeline.train(*known, "pdr")]
)
def test_processes_agree_before_anything_is_made(made, directory, micro_config, monkeypatch, command):
    """On config and versions; what two of them are told that differ is in training/test_distributed.py."""
    before = sorted(path.name for path in directory.iterdir())

    def differs(facts):
        assert facts()["config"]["pdr"]["width"] == micro_config.pdr.width
        assert facts()["versions"]
        raise BadConfig("differs")

    monkeypatch.setattr(pipeline.distributed, "agree", differs)
    with pytest.raises(BadConfig, match="differs"):
        command(directory, micro_config)
    assert made == []
    assert sorted(path.name for path in directory.iterdir()) == before


def test_another_seed_gives_other_parameters(finished, micro_config):
    """Or the comparison above would prove nothing."""
    task = System.open(finished, micro_config).models.task("content")
    other = loader.override(micro_config, ["--config.content.optim.seed=1"])
    from pr2_jax.training.loop import init_state

    states = [init_state(task, config.content.optim, 4) for config in (micro_config, other)]
    leaves = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.tables)]) for state in states]
    assert not np.array_equal(*leaves)


def _refused(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    assert entry.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("pr2: error: ")
    return lines[-1]


def test_evaluate_and_train_name_what_is_missing(directory, capsys):
    at = ["--workdir", str(directory)]
    for arguments, missing, command in (
        (["evaluate"], "content", "pr2 train content"),
        (["train", "pdr"], "content", "pr2 train content"),
        (["index"], "content", "pr2 train content"),
        (["train", "qin"], "content", "pr2 train content"),
    ):
        said = _refused([*arguments, *at], capsys)
        assert f"{directory / missing} does not exist" in said
        assert f"`{command}`" in said
    shutil.rmtree(directory / "store")
    assert "`pr2 ingest`" in _refused(["train", "content", *at], capsys)
    assert not list(directory.glob("*.partial"))


def test_a_later_stage_missing_is_named(made, directory, micro_config, capsys):
    pipeline.run(directory, micro_config, None)
    shutil.rmtree(directory / "index")
    assert "`pr2 index`" in _refused(["evaluate", "--workdir", str(directory)], capsys)


@pytest.mark.parametrize("part", STAGES[:-1])
def test_another_schema_is_refused_naming_both(made, directory, micro_config, part, capsys):
    pipeline.run(directory, micro_config, None)
    manifest = json.loads((directory / part / "manifest.json").read_text())
    (directory / part / "manifest.json").write_text(json.dumps(manifest | {"schema": "0"}))
    said = _refused(["evaluate", "--workdir", str(directory)], capsys)
    assert f"{directory / part} was made with schema '0', this version reads '{workdir.SCHEMA}'" in said
    made.clear()
    pipeline.run(directory, micro_config, None)  # which makes it anew
    assert made[0] == part


def test_a_store_of_another_schema_is_refused_naming_both(directory, capsys):
    manifest = json.loads((directory / "store" / "manifest.json").read_text())
    (directory / "store" / "manifest.json").write_text(json.dumps(manifest | {"schema": "0"}))
    said = _refused(["train", "content", "--workdir", str(directory)], capsys)
    assert "schema '0'" in said
    assert STORE_SCHEMA in said.split("schema '0'", 1)[1]
    assert not (directory / "content").exists()


def test_a_stage_of_another_config_is_refused_naming_both(made, directory, micro_config):
    pipeline.run(directory, micro_config, None)
    other = loader.override(micro_config, ["--config.pdr.width=32"])
    for verb in (pipeline.index, pipeline.evaluate):
        with pytest.raises(StaleArtifact, match=r"config\.pdr\.width was 16, is now 32.*`pr2 train pdr`"):
            verb(directory, other)


def test_a_stage_made_alone_leaves_its_config_to_later_commands(made, directory, micro_config, capsys):
    pipeline.run(directory, micro_config, None)
    made.clear()
    at = ["--workdir", str(directory)]
    assert entry.main(["train", "qin", *at, "--config.qin.optim.epochs=2"]) == 0
    assert made == ["qin"]
    assert entry.main(["evaluate", *at]) == 0  # and does not say that qin is stale
    assert made == ["qin", "eval"]
    assert json.loads((directory / "config.json").read_text())["qin"]["optim"]["epochs"] == 2


LIKE_OURS = '{"data": "d", "content": "c", "pdr": "p", "qin": "q", "retrieval": "r"}'
THEIRS = ('{"name": "theirs"}', LIKE_OURS, "[1, 2]", "3", "not JSON")


@pytest.mark.parametrize("text", THEIRS)
def test_somebody_elses_config_is_left_alone(micro_arguments, tmp_path, capsys, text):
    (tmp_path / "config.json").write_text(text)
    for verb in ("run", "ingest"):
        said = _refused([verb, "--workdir", str(tmp_path), *micro_arguments], capsys)
        assert f"{tmp_path / 'config.json'} is not a config of pr2: move it, or take another --workdir" in said
    assert (tmp_path / "config.json").read_text() == text
    assert not (tmp_path / "store").exists()


def test_a_refused_stage_changes_no_config(directory, capsys):
    before = (directory / "config.json").read_bytes()
    _refused(["train", "qin", "--workdir", str(directory), "--config.qin.optim.epochs=2"], capsys)
    assert (directory / "config.json").read_bytes() == before
