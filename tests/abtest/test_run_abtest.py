"""`pr2 abtest` on a finished work directory: what it leaves, how it carries on, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pr2_jax import pipeline
from pr2_jax.abtest import abtest_report, run_abtest, run_validation
from pr2_jax.abtest.experiment import Plan
from pr2_jax.abtest.experiment_metrics import METRICS
from pr2_jax.abtest.population import Population, Replay
from pr2_jax.cli import entry
from pr2_jax.errors import BadInput, StaleArtifact
from pr2_jax.simulation.world import World

PLAN = Plan(arms=("base", "pr2", "oracle"), days=3, aa_days=2, warm_up=1)
COMMAND = ["--arms", "base,pr2,oracle", "--days", "3", "--aa-days", "2", "--warm-up", "1"]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Both populations in this process: another would compile everything again."""
    monkeypatch.setattr(run_abtest.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def served(finished, tmp_path_factory):
    """A copy with an experiment in it."""
    workdir = tmp_path_factory.mktemp("abtest") / "w"
    shutil.copytree(finished, workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_abtest.os, "cpu_count", lambda: 1)
        pipeline.abtest(workdir, PLAN, force=True)
    return workdir


@pytest.fixture
def found(served):
    return json.loads((served / "abtest" / PLAN.name / "abtest.json").read_text())


def test_what_it_leaves(served, found):
    place = served / "abtest" / PLAN.name
    assert sorted(path.name for path in place.iterdir()) == [
        "abtest.json", "manifest.json", "over_days.png", "table.txt",
    ]  # fmt: skip
    assert sum(found["people_by_arm"].values()) == 100
    assert set(found["lifts"]) == {"pr2", "oracle"}
    assert list(found["metrics"]) == sorted(METRICS)
    assert all(len(days) == 3 for days in found["by_day"]["pr2"].values())
    assert found["by_day"]["oracle"]["ctr"][-1] == found["lifts"]["oracle"]["ctr"]
    assert all(len(found["daily"][arm]["ctr"]) == 6 for arm in PLAN.arms)
    assert found["lifts"]["oracle"]["ctr"]["low"] > 0
    assert found["lifts"]["pr2"]["day_28"]["lift"] is None
    assert found["aa"]["splits"] == 200
    text = (place / "table.txt").read_text()
    assert f"{found['lifts']['oracle']['ctr']['lift']:+.1%}" in text
    assert "A/A days split 200 other ways" in text


def test_fresh_is_skipped_and_another_plan_is_not(served, capsys, monkeypatch):
    monkeypatch.setattr(Population, "step", None)
    assert entry.main(["abtest", "--workdir", str(served), *COMMAND, "--force"]) == 0
    assert "fresh, skipped" in capsys.readouterr().err
    with pytest.raises(TypeError):
        entry.main(["abtest", "--workdir", str(served), *COMMAND, "--force", "--salt", "other"])


def test_killed_and_carried_on(served, found, tmp_path, monkeypatch):
    """Killed in the middle of either population, it ends with the same numbers."""
    workdir, step, lived = tmp_path / "w", Population.step, []
    shutil.copytree(served, workdir, ignore=shutil.ignore_patterns("abtest"))

    def mortal(population, arm_U=None):
        lived.append(population.directory.name)
        if len(lived) in (4, 9):
            raise KeyboardInterrupt
        step(population, arm_U)

    monkeypatch.setattr(Population, "step", mortal)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.abtest(workdir, PLAN, force=True)
    pipeline.abtest(workdir, PLAN, force=True)
    assert lived.count("split") == 6 + 1
    assert lived.count("crn_control") == 4 + 1  # the A/A days are linked
    again = json.loads((workdir / "abtest" / PLAN.name / "abtest.json").read_text())
    assert again == found


def test_the_crn_control_of_a_worker_process_is_the_same(served, tmp_path):
    """The worker's function, run here: it resumes from the split population's A/A days."""
    system = run_abtest.open_world(served, PLAN)
    ground = Replay.of(World.build(system.config.world), system.log.reader.long_play.label)
    split, crn_control = run_abtest._populations(PLAN, system, ground, tmp_path, None)
    split.resume()
    for _ in range(2):
        split.step()
    crn_control.link_days(split, 2)
    run_abtest._run_crn_control(PLAN, served, crn_control.directory)
    assert crn_control.resume() == PLAN.all_days
    assert len(split.days) == 2
    for _ in range(4):
        split.step()
    for one, other in zip(split.days, crn_control.days, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--arms", "base,bert"], "arm 'bert', expected one of base, +qrcf, "),
        (["--arms", "base"], "expected two or more different ones"),
        (["--decided-by", "smiles"], "metric 'smiles', expected one of ctr, watch"),
        (["--days", "28"], "100 people cannot show a change of 5 % in CTR@10 (--decided-by ctr) in 28 days "),
        (["--decided-by", "day_28"], "'day_28' is seen 28 days later: expected aa_days of 29 or more, not 7"),
        (["--decided-by", "day_7", "--aa-days", "8"], "metric 'day_7' cannot be counted in 4 days"),
        (["--arms", "oracle,random", "--refresh", "1"], "none of the arms oracle, random has a model to train"),
        (["--days", "99999999999"], "days = 99999999999, expected 1 to 365"),
        (["--salt", "a\tb"], "expected characters that can be printed"),
        (["--trial", "1"], "--validate 1, expected 2 or more"),
        (["--foreseen", "0"], "foreseen = 0, expected a relative change of 0.001 or more"),
        (["--foreseen", "nan"], "foreseen = nan, expected"),
    ],
)
def test_refused_in_one_line(served, more, said, capsys):
    before = sorted((served / "abtest").iterdir())
    assert entry.main(["abtest", "--workdir", str(served), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") <= 2
    assert sorted((served / "abtest").iterdir()) == before


def test_a_directory_without_models_names_the_command(served, tmp_path, capsys):
    workdir = tmp_path / "w"
    shutil.copytree(served, workdir, ignore=shutil.ignore_patterns("abtest", "qin"))
    with pytest.raises(StaleArtifact, match="pr2 train qin"):
        run_abtest.open_world(workdir, PLAN)
    assert entry.main(["abtest", "--workdir", str(tmp_path / "none")]) == 2
    assert "pr2 run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_log_of_real_people_has_nobody_to_answer(served, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(served, workdir, ignore=shutil.ignore_patterns("abtest"))
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["source"] = "kuaisar"
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises((BadInput, StaleArtifact)):
        run_abtest.open_world(workdir, PLAN)


def test_guardrail():
    from pr2_jax.abtest.estimators import Lift

    def lift(log_lift: float, error: float) -> Lift:
        return Lift(1.0, 1.0, log_lift, error, 10)

    assert abtest_report.guardrail(lift(0.0, 0.004)) == "kept"
    assert abtest_report.guardrail(lift(-0.05, 0.01)) == "broken"
    assert abtest_report.guardrail(lift(-0.005, 0.01)) == "open"
    assert abtest_report.guardrail(lift(0.0, 0.0)) == "kept"


def test_a_validation_resumes_with_the_runs_it_has(served, monkeypatch):
    """Finished runs are neither simulated again nor dropped; the result is that of all runs."""
    plan, lived = dataclasses.replace(PLAN, days=2), []
    system = run_abtest.open_world(served, plan)
    ground = Replay.of(World.build(system.config.world), system.log.reader.long_play.label)

    def here(system, plan, left, directory):
        lived.extend(left)
        for number in left:
            run_validation._write(directory, number, run_validation.run(ground, plan, number))

    monkeypatch.setattr(run_validation, "_simulate", here)
    for runs in (2, 3, 3, 2):
        out = run_validation.validate(system, plan, runs)
    assert lived == [0, 1, 2]
    arms = dataclasses.replace(plan, arms=("oracle", "random"), common_random_numbers=False)
    assert run_validation.validate(system, arms, 2) == out, "it has its own arms and draws"
    assert lived == [0, 1, 2]
    found = json.loads((out / "trial.json").read_text())
    assert (found["runs"], found["aa"]["runs"]) == (3, 12)
    assert set(found["planted"]) == {"shared", "own"}
    assert "Planted: in 10% of searches" in (out / "table.txt").read_text()
    with pytest.raises(BadInput, match="expected 2 or more"):
        run_validation.validate(system, plan, 1)
    (out / "trial.json").unlink()
    run_validation.validate(system, plan, 2)
    assert json.loads((out / "trial.json").read_text()) == found
    assert lived == [0, 1, 2]
    other = run_validation.validate(system, dataclasses.replace(plan, days=3), 2)
    assert (other.name, out.name) == ("trial,days=3,aa_days=2,warm_up=1", "trial,days=2,aa_days=2,warm_up=1")
    assert out.exists()


def test_a_validation_process_writes_a_file_a_run(served, tmp_path):
    """The worker's function, run here; a killed one may leave a file that was not put in place."""
    plan = dataclasses.replace(PLAN, days=2)
    system = run_abtest.open_world(served, plan)
    told = (system.config.world, system.log.reader.long_play.label, plan)
    run_validation._work(*told, [4, 7], tmp_path)
    (tmp_path / "0009.json.new").write_text('{"run": 9, "truth"')
    assert sorted(run_validation._read(tmp_path)) == [4, 7]
