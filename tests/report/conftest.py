"""A finished work directory with a report, whose captions and queries try to be markup."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from pr2_jax.config.loader import read
from pr2_jax.report import build_report
from pr2_jax.report.workdir_reader import Work

EVIL = "<img/src=x/onerror=alert({0})>&quot;{0}</script>"
"""A word of the log, without white space: at any place in the page it must stay text."""


@pytest.fixture(scope="session")
def reported(finished) -> Path:
    """Shared by the workers: copy it before changing anything in it."""
    place = finished.parent / "reported"
    with (finished.parent / "reported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            made = finished.parent / "reported.partial"
            shutil.rmtree(made, ignore_errors=True)
            shutil.copytree(finished, made)
            text = made / "store" / "words.text.json"
            words = json.loads(text.read_text(encoding="utf-8"))
            text.write_text(json.dumps([word and EVIL.format(row) for row, word in enumerate(words)]))
            build_report.write(made)
            made.rename(place)
    return place


@pytest.fixture(scope="session")
def page(reported) -> str:
    """The HTML text."""
    return (reported / build_report.DIRECTORY / build_report.PAGE).read_text(encoding="utf-8")


@pytest.fixture
def work(reported) -> Work:
    return Work(reported, read(reported / "config.json"))
