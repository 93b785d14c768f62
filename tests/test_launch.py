"""The scripts beside the package: what can be told without installing anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ("launch/environment.sh", "launch/quickstart.sh", "launch/test.sh", ".ci/run")
SEVERAL = ("launch/train.sh", "launch/train.slurm")
ACCELERATOR = "launch/accelerator.sh"
BASH = shutil.which("bash")


@pytest.fixture(autouse=True)
def _environment_of_nobody(monkeypatch):
    """Whoever runs the tests may have told the scripts of another environment or work directory."""
    for name in ("PR2_VENV", "PR2_PYTHON", "PR2_WORKDIR"):
        monkeypatch.delenv(name, raising=False)


def _bash(*arguments, **options):
    return subprocess.run([BASH, *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def checkout(tmp_path, repository) -> Path:
    """The scripts and what they read, without the code."""
    shutil.copytree(repository / "launch", tmp_path / "launch")
    shutil.copytree(repository / ".ci", tmp_path / ".ci")
    shutil.copy(repository / "setup.py", tmp_path)
    return tmp_path


@pytest.fixture
def bare_path(tmp_path) -> str:
    """A PATH with the tools that every machine has, and no Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "rm", "tail"):
        (tools / name).symlink_to(shutil.which(name))
    return str(tools)


def _pretend_environment(checkout: Path, exit_status: int = 0) -> None:
    """A finished virtual environment whose tools only say what they were asked; pip and pytest end as told."""
    bin_ = checkout / ".venv" / "bin"
    bin_.mkdir(parents=True)
    for name in ("ruff", "pr2"):
        (bin_ / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
    (bin_ / "python").write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -c ] && exec "{sys.executable}" "$@"\n'
        '[ "$*" = "-m pip --version" ] && exit 0\n'
        f'echo python "$@"\nexit {exit_status}\n'
    )
    for tool in bin_.iterdir():
        tool.chmod(0o755)
    state = _bash("-c", f'{_sourced(checkout)}; wanted_state "$venv/bin/python"', cwd=checkout).stdout
    (checkout / ".venv" / ".pr2-installed").write_text(state)


def _sourced(checkout: Path) -> str:
    """Only the functions of environment.sh, without running them."""
    functions = (checkout / "launch/environment.sh").read_text().rpartition("prepare_environment ||")[0]
    (checkout / "functions.sh").write_text(functions.replace('cd -- "$(dirname', ': "$(dirname'))
    return "source ./functions.sh"


@pytest.mark.parametrize("script", [*SCRIPTS, *SEVERAL, ACCELERATOR])
def test_script_parses(repository, script):
    done = _bash("-n", str(repository / script))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_missing_python_is_one_clear_line(checkout, bare_path, script):
    done = _bash(str(checkout / script), env={"PATH": bare_path})
    assert done.returncode == 2
    assert done.stderr == (
        "launch: error: no Python 3.11, 3.12 or 3.13 found: install python3.11 or name one with PR2_PYTHON\n"
    )


def test_accelerator_takes_the_python_it_finds_and_installs_nothing(checkout, bare_path):
    for status, want in (("0", "ran -m pr2_jax.bench.accelerator --small out\n"), ("1", "")):
        python = Path(bare_path) / "python3"
        python.write_text(f'#!{BASH}\n[ "$1" = -c ] && exit {status}\necho ran "$@"\n')
        python.chmod(0o755)
        done = _bash(str(checkout / ACCELERATOR), "--small", "out", env={"PATH": bare_path})
        assert (done.returncode, done.stdout) == (2 * int(status), want)
    assert done.stderr.startswith("launch: error: python3 is no Python from 3.11 on with jax")
    assert done.stderr.count("\n") == 1


def test_python_that_is_too_old_is_passed_over(checkout, bare_path):
    for name, version in (("python3.11", "exit 1"), ("python3", "exit 1"), ("python3.12", "exit 0")):
        (Path(bare_path) / name).write_text(f"#!{BASH}\n{version}\n")
        (Path(bare_path) / name).chmod(0o755)
    done = _bash("-c", f"{_sourced(checkout)}; find_python", env={"PATH": bare_path}, cwd=checkout)
    assert (done.stdout, done.stderr) == ("python3.12\n", "")


def test_environment_is_used_again_until_what_it_holds_changes(checkout):
    _pretend_environment(checkout)
    state = f'{_sourced(checkout)}; prepare_environment; echo "$?"'
    assert _bash("-c", state, cwd=checkout).stdout == "0\n"
    with (checkout / "launch/constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    done = _bash("-c", state, cwd=checkout)
    assert "launch: installing" in done.stderr
    assert "pip install --disable-pip-version-check" in (checkout / ".venv/install.log").read_text()
    assert _bash("-c", state, cwd=checkout).stderr == ""


def test_failed_installation_shows_its_end_and_is_tried_again(checkout):
    _pretend_environment(checkout, exit_status=1)
    stamp = checkout / ".venv" / ".pr2-installed"
    stamp.write_text("of other pins")
    for script in ("launch/test.sh", "launch/quickstart.sh"):
        done = _bash(str(checkout / script))
        assert done.returncode == 2
        assert done.stdout == "", "nothing was run"
        said, shown, error = done.stderr.splitlines()
        assert said == "launch: installing, about a minute and 1.2 GB (log: .venv/install.log)"
        assert shown.startswith("python -m pip install ")
        assert shown.endswith(" -c launch/constraints.txt -e .[test]")
        assert error == "launch: error: the installation failed, the whole log is in .venv/install.log"
        assert not stamp.exists()


def test_arguments_reach_pytest_and_its_exit_status_comes_back(checkout):
    _pretend_environment(checkout, exit_status=5)
    for script, more in (("launch/test.sh", ""), (".ci/run", "--durations=20 ")):
        done = _bash(str(checkout / script), "tests/data", "-k", "a b", cwd="/")
        assert done.returncode == 5
        assert done.stdout.splitlines() == [
            "ruff check .",
            "ruff format --check .",
            f"python -m pytest -n 2 --dist loadfile --no-loadscope-reorder {more}tests/data -k a b",
        ]


def test_quickstart_runs_then_searches(checkout):
    _pretend_environment(checkout)
    done = _bash(str(checkout / "launch/quickstart.sh"), "--config.world.users=300", cwd="/")
    run, search = done.stdout.splitlines()
    assert run == "pr2 run --config configs/quickstart.py --workdir work/quickstart --config.world.users=300"
    assert search.startswith("pr2 search --workdir work/quickstart --user ")


def test_constraints_pin_what_setup_asks_for(repository):
    pins = dict(
        line.split("==")
        for line in (repository / "launch/constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    named = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    text = (repository / "setup.py").read_text().partition("install_requires")[2].partition("entry_points")[0]
    asked = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'^ {8}"([\w-]+)', text, re.MULTILINE)}
    asked -= {"cuda", "tpu", "test"}
    assert {"jax", "flax", "optax", "scann", "polars", "tensorflow-datasets"} <= asked
    assert asked <= named
    assert "tensorflow" not in named


def test_scripts_are_executable(repository):
    for script in (*SCRIPTS[1:], *SEVERAL):
        assert os.access(repository / script, os.X_OK)
