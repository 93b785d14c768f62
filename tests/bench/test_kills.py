"""`pr2 bench resume`: what it compares, what it prints, its exit status. Real kills: training/test_resume.py."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from pr2_jax.bench import kill_and_resume
from pr2_jax.cli import entry
from pr2_jax.errors import Pr2Error
from pr2_jax.training.loop import TrainState


@pytest.fixture
def endings(monkeypatch):
    """Stands in for the processes: what each of them ends with, in turn."""
    found = []
    monkeypatch.setattr(kill_and_resume, "_finish", lambda directory, root: found.pop(0))
    monkeypatch.setattr(kill_and_resume, "_killed", lambda root, number, duration_s, rng: (root / str(number), 1.5))
    return found


def test_every_kill_is_compared_with_the_unbroken_run(endings, capsys):
    same, other = {"['params']": "1a", "curve": "2b"}, {"['params']": "1a", "curve": "2c"}
    endings[:] = [(same, 0), (same, 0), (same, 9), (same, 0)]
    assert entry.main(["bench", "resume", "--kills", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "kill   1  after  1.50 s                resumed from step   9 of 120  bit-identical"
    assert lines[2] == "2 of 2 bit-identical"
    endings[:] = [(same, 0), (same, 0), (same, 9), (other, 0)]
    assert entry.main(["bench", "resume", "--kills", "2", "--json"]) == 1
    first, second, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["identical"]
    assert first["resumed_from"] == 9
    assert not second["identical"]
    assert summary == {"workload": "resume", "kills": 2, "identical": 1}


def test_the_process_trains_and_goes_on(monkeypatch, tmp_path, capsys):
    """Cut short at step 3 of 4, it goes on from there and tells what it ended with, curve included."""
    monkeypatch.setattr(kill_and_resume, "STEPS", 4)
    batch = kill_and_resume._batch

    def dying(step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(step)

    monkeypatch.setattr(kill_and_resume, "_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        kill_and_resume.train(tmp_path / "run")
    monkeypatch.setattr(kill_and_resume, "_batch", batch)
    kill_and_resume.train(tmp_path / "run")
    told = json.loads(capsys.readouterr().out)
    assert told["resumed_from"] == 3
    assert {name.split(".")[0] for name in told["hashes"]} == {
        "curve",
        *(field.name for field in dataclasses.fields(TrainState)),
    }
    assert told["hashes"]["curve"] == hashlib.sha256((tmp_path / "run" / "curve.jsonl").read_bytes()).hexdigest()


def test_a_process_that_is_always_done_too_soon_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(kill_and_resume, "_run", lambda directory, root, kill_after_s: None)
    with pytest.raises(Pr2Error, match="100 runs ended before they could be killed"):
        kill_and_resume._killed(tmp_path, 1, 1.0, np.random.default_rng(0))


def test_options_of_one_workload_are_refused_for_another(capsys):
    assert entry.main(["bench", "tables", "--kills", "3"]) == 2
    assert "--kills and --seed belong to `pr2 bench resume`, not to tables" in capsys.readouterr().err
