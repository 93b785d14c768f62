"""The run writes each finding at once, says what it skips and why, and fails where the arithmetic does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pr2_jax.bench import accelerator, feed_workload, float64_checks, qrcf_workload, synthetic, table_workload
from pr2_jax.bench.accelerator import Part, Scale
from pr2_jax.bench.accelerator_report import Report
from pr2_jax.bench.float64_checks import Check
from pr2_jax.config import OptimConfig, PdrConfig, QinConfig

OPTIM = OptimConfig(batch=16, table_optimizer="row_adagrad")
TINY = Scale(
    repeats=1,
    slates=(2,),
    checked_rows=16,
    ceiling=(1_000, 16),
    search_videos=2_000,
    tables=(600, 2_000),
    sizes=synthetic.Sizes(videos=900, words=80, authors=30, query_tokens=3, caption_tokens=4, slate=2),
    pdr=PdrConfig(
        width=8, hidden=8, heads=2, history=6, uniform_negatives=10, hard_negatives=2, optim=OPTIM, compute="bfloat16"
    ),
    qin=QinConfig(
        width=8,
        heads=2,
        experts=2,
        expert_width=8,
        history=20,
        keep_query=8,
        keep_video=4,
        realtime=5,
        compute="bfloat16",
        optim=OPTIM,
    ),
    qrcf=qrcf_workload.Sizes(requests=8, history=30, seeds=4, neighbours=5, videos=500),
    log=feed_workload.Log(users=20, events_a_user=30, sessions=100),
)


def _read(directory):
    return json.loads((directory / "accelerator.json").read_text())


def _states(directory):
    return {part["name"]: part["state"] for part in _read(directory)["parts"]}


def test_every_part_is_checked_or_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(table_workload, "BATCH", 8)
    # One type, that of the feed's own steps: a second one of each model would be traced for nothing.
    monkeypatch.setattr(accelerator, "COMPUTES", ("bfloat16",))
    assert accelerator.run(TINY, tmp_path) == 0
    said = _read(tmp_path)
    assert said["finished"]
    assert said["ok"]
    assert set(_states(tmp_path).values()) == {"done"}
    checks, *timed = said["parts"]
    assert {check["name"] for check in checks["found"]} >= {"sampled softmax", "listwise", "heads", "QRCF filter"}
    assert all(check["holds"] and check["error"] <= check["tolerance"] for check in checks["found"])
    found = [one for part in timed for one in part["found"]]
    assert {one["workload"] for one in found} == {"ceiling", "search", "tables", "pdr", "qin", "qrcf", "feed"}
    assert {one["workload"] for one in found if one["compute"] == "bfloat16"} == {"pdr", "qin", "feed"}
    assert all(one["must_bytes"] > 0 and one["must_bytes_per_s"] > 0 for one in found)
    assert (tmp_path / "accelerator.md").read_text().count("| holds |") == len(checks["found"])


def _planned(monkeypatch, *parts):
    monkeypatch.setattr(accelerator, "parts", lambda scale: iter(parts))


def test_what_the_budget_or_the_memory_lacks_is_named(tmp_path, monkeypatch):
    _planned(monkeypatch, Part("large", lambda: iter([]), 1 << 60), Part("little", lambda: iter([])))
    assert accelerator.run(TINY, tmp_path) == 0
    assert _states(tmp_path) == {"large": "skipped", "little": "done"}
    assert "needs 1152921504.6 GB of memory" in _read(tmp_path)["parts"][0]["why"]
    assert accelerator.run(TINY, tmp_path, budget_s=0) == 0
    assert [part["why"] for part in _read(tmp_path)["parts"]] == ["0 s were used"] * 2


def test_a_wrong_sum_and_a_failed_part_are_told_by_the_status(tmp_path, monkeypatch):
    _planned(monkeypatch, Part("checks", lambda: iter([Check("sum", "float32", float("nan"), 1.0).to_dict()])))
    assert accelerator.run(TINY, tmp_path) == 1
    assert "**does not hold**" in (tmp_path / "accelerator.md").read_text()

    def broken():
        yield {"first": 1}
        raise ValueError("no such kernel\nand more")

    _planned(monkeypatch, Part("broken", broken), Part("next", lambda: iter([])))
    assert accelerator.run(TINY, tmp_path) == 1
    first, after = _read(tmp_path)["parts"]
    assert (first["state"], first["why"], first["found"]) == ("failed", "ValueError: no such kernel", [{"first": 1}])
    assert after["state"] == "done"


def test_what_is_finished_is_on_disk_while_the_next_part_runs(tmp_path):
    report = Report(tmp_path, ["one", "two", "three"], 420.0)
    report.begin("one")
    report.end("one")
    report.begin("two")
    report.add("two", {"seen": 1})
    assert _states(tmp_path) == {"one": "done", "two": "running", "three": "waiting"}
    assert _read(tmp_path)["parts"][1]["found"] == [{"seen": 1}]
    report.cut_off("time")
    assert _states(tmp_path) == {"one": "done", "two": "cut off", "three": "skipped"}
    assert report.status == 0


def test_checks_see_an_error(monkeypatch):
    twin = float64_checks.twins.pointwise
    monkeypatch.setattr(float64_checks.twins, "pointwise", lambda *x: (twin(*x)[0] + 1e-3, twin(*x)[1]))
    assert float64_checks.heads(np.random.default_rng(0), 16) > float64_checks.TOLERANCE
    assert float64_checks.apart([1.0, -np.inf], np.array([1.0, 2.0])) == np.inf


def test_table_bytes_count_the_optimisers_memory():
    plain, adam = (accelerator.table_bytes(name, 512_000) for name in ("row_adagrad", "lazy_adam"))
    table = 4 * 512_000 * table_workload.WIDTH
    assert plain == pytest.approx(2 * table + 4 * 512_000)
    assert adam == pytest.approx(4 * table + 4 * 512_000)


def test_bad_arguments_are_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (["--no-such"], [str(tmp_path / "file")]):
        with pytest.raises(SystemExit, match="2"):
            accelerator.main(arguments)
        said = capsys.readouterr().err
        assert said.startswith("accelerator: error: ")
        assert said.count("\n") == 1
