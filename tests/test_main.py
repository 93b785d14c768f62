"""What the command settles before it begins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pr2_jax import __main__ as command
from pr2_jax.cli import entry


def test_the_process_starts_again_with_huge_pages_once(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv(command.NO_REEXEC, "1")
    command.settle_environment()
    assert started == []
    monkeypatch.setenv(command.NO_REEXEC, "0")
    command.settle_environment()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment.items() >= command.HUGE_PAGES.items()
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    command.settle_environment()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("GLIBC_TUNABLES")
    command.settle_environment()
    assert len(started) == 1


def test_a_compilation_cache_unless_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "execve", lambda *call: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    command.settle_environment()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "pr2_jax" / "xla")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    command.settle_environment()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    monkeypatch.undo()


def test_the_help_explains_the_second_start(capsys):
    with pytest.raises(SystemExit):
        entry.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert command.NO_REEXEC in said
    assert all(f"{name}={value}" in said for name, value in command.HUGE_PAGES.items())


def test_arguments_and_flags_of_python_survive_the_second_start(repository):
    settings = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pr2_jax", "train", "nothing"],
        capture_output=True, text=True, cwd=repository, env=settings, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr
