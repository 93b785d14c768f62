"""The check finds what ingest would refuse, all of it, and writes nothing."""

from __future__ import annotations

import pytest

from pr2_jax.cli import entry
from pr2_jax.config import Config
from pr2_jax.data.ingest.ingest_report import examine


def test_a_healthy_log(tiny_dir, capsys):
    found = examine(tiny_dir, Config())
    assert found.problems == []
    assert any("rec_inter.csv" in line and "300 rows read, 300 kept" in line for line in found.lines)
    assert entry.main(["ingest", "--check", "--input", str(tiny_dir)]) == 0
    out = capsys.readouterr().out
    assert "sessions  80" in out
    assert out.endswith("fine      nothing has to be mended\n")


def test_a_row_that_would_be_left_out(tiny, tmp_path):
    tiny.put("rec_inter", 5, "user_id", "many")
    found = examine(tiny.write(tmp_path / "log"), Config())
    assert found.problems == []
    assert found.lines[-1] == "fine      nothing has to be mended; bad cells that would leave out a row, see above: 1"


def test_all_that_is_wrong_at_once(tiny, tmp_path, capsys):
    tiny.rename("rec_inter", "timestamp", "ts")
    for name in ("item_features", "user_features"):  # other rows of the same id
        tiny.tables[name] += [[row[0], *reversed(row[1:])] for row in tiny.tables[name][1:8]]
    tiny.put("src_inter", 5, "click_cnt", "many")
    log = tiny.write(tmp_path / "log")
    found = examine(log, Config())
    told = "\n".join(found.problems)
    for phrase in ("rec_inter.csv has no column 'timestamp'", "item_features.csv, row", "user_features.csv, row"):
        assert phrase in told
    assert any("src_inter.csv, row 5, column click_cnt: found 'many'" in line for line in found.lines)
    assert entry.main(["ingest", "--check", "--input", str(log)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "3 to mend" in err
    assert [out.count(problem) + err.count(problem) for problem in found.problems] == [1, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


@pytest.mark.parametrize("arguments", [("--check",), ()])
def test_what_it_needs(arguments, capsys):
    assert entry.main(["ingest", *arguments]) == 2
    assert "pr2: error: " in capsys.readouterr().err
