"""An artifact is whole or not there, and knows what it was made from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from pr2_jax import artifacts
from pr2_jax.errors import BadInput, Pr2Error, StaleArtifact

SCHEMA = "store/1"
MADE_FROM = {"config": {"width": 32, "share": 0.5}, "inputs": {"log": "ab12"}}


def _make(directory, fingerprint=MADE_FROM, schema=SCHEMA, text="rows"):
    with artifacts.writing(directory, fingerprint, schema) as partial:
        (partial / "rows.txt").write_text(text)


def _names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_written_artifact_is_fresh_and_says_what_made_it(tmp_path):
    store = tmp_path / "deep" / "store"
    assert artifacts.reason_stale(store, MADE_FROM, SCHEMA) == "not made yet"
    _make(store)
    assert artifacts.fresh(store, MADE_FROM, SCHEMA)
    assert _names(store.parent) == ["store"]
    assert _names(store) == ["manifest.json", "rows.txt"]
    manifest = artifacts.require(store, SCHEMA, "pr2 ingest", MADE_FROM)
    assert manifest["fingerprint"] == MADE_FROM
    assert manifest["seconds"] >= 0
    assert {"python", "jax", "numpy"} <= manifest["versions"].keys()


def test_facts_join_the_manifest_and_change_nothing_else(tmp_path):
    facts = {}
    with artifacts.writing(tmp_path / "a", MADE_FROM, SCHEMA, facts=facts):
        facts["counts"] = {"users": 3}
    assert artifacts.require(tmp_path / "a", SCHEMA, "pr2 ingest", MADE_FROM)["counts"] == {"users": 3}
    _make(tmp_path / "b")
    assert artifacts.identity(tmp_path / "a") == artifacts.identity(tmp_path / "b")


def test_tuples_are_equal_to_the_lists_that_json_makes_of_them(tmp_path):
    _make(tmp_path / "a", {"shape": (1, 2)})
    assert artifacts.fresh(tmp_path / "a", {"shape": (1, 2)}, SCHEMA)


def test_reason_names_both_sides(tmp_path):
    _make(tmp_path / "a")
    now = {"config": {"width": 64, "share": 0.5}, "inputs": {"log": "cd34"}}
    assert (
        artifacts.reason_stale(tmp_path / "a", now, SCHEMA)
        == 'config.width was 32, is now 64; inputs.log was "ab12", is now "cd34"'
    )
    assert artifacts.reason_stale(tmp_path / "a", MADE_FROM, "store/2") == "schema was store/1, is now store/2"
    added = MADE_FROM | {"seed": 0}
    assert artifacts.reason_stale(tmp_path / "a", added, SCHEMA) == "seed was null, is now 0"
    many = {"config": dict.fromkeys("abcde", 1)}
    assert artifacts.reason_stale(tmp_path / "a", many, SCHEMA).endswith("; …")


def test_identity_follows_schema_and_fingerprint_only(tmp_path):
    for name, fingerprint, schema in (("a", MADE_FROM, "s/1"), ("b", MADE_FROM, "s/1"), ("c", MADE_FROM, "s/2")):
        _make(tmp_path / name, fingerprint, schema)
    _make(tmp_path / "d", MADE_FROM | {"seed": 1}, "s/1")
    same, again, other_schema, other_seed = (artifacts.identity(tmp_path / name) for name in "abcd")
    assert same == again
    assert len({same, other_schema, other_seed}) == 3
    with pytest.raises(StaleArtifact, match="does not exist or was left half-written"):
        artifacts.identity(tmp_path / "nothing")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_leaves_the_old_artifact_and_no_partial(tmp_path, error):
    store = tmp_path / "store"
    _make(store, text="old")

    def fail_halfway():
        with artifacts.writing(store, {"config": 2}, SCHEMA) as partial:
            (partial / "rows.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert _names(tmp_path) == ["store"]
    assert (store / "rows.txt").read_text() == "old"
    assert artifacts.fresh(store, MADE_FROM, SCHEMA)


def test_making_it_again_replaces_all_of_it(tmp_path):
    store = tmp_path / "store"
    _make(store)
    with artifacts.writing(store, {"config": 2}, SCHEMA) as partial:
        (partial / "other.txt").write_text("new")
    assert _names(tmp_path) == ["store"]
    assert _names(store) == ["manifest.json", "other.txt"]


def test_directory_without_a_manifest_is_no_artifact_and_is_not_replaced(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    _make(store)  # an empty one may be taken
    (store / "manifest.json").unlink()
    assert not artifacts.fresh(store, MADE_FROM, SCHEMA)
    with pytest.raises(BadInput, match="store exists and was not made by pr2: name another place or remove it"):
        _make(store)
    assert (store / "rows.txt").read_text() == "rows"
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file is a file, expected a directory to write"):
        _make(tmp_path / "file")


def test_kept_partial_is_handed_out_again_to_the_same_attempt_only(tmp_path):
    model = tmp_path / "pdr"

    def attempt(fingerprint, schema=SCHEMA):
        with artifacts.writing(model, fingerprint, schema, keep_partial=True) as partial:
            found = (partial / "step.txt").exists()
            (partial / "step.txt").write_text("100")
            raise RuntimeError(found)

    with pytest.raises(RuntimeError, match="False"):
        attempt(MADE_FROM)
    assert artifacts.reason_stale(model, MADE_FROM, SCHEMA) == "not made yet"
    with pytest.raises(RuntimeError, match="True"):
        attempt(MADE_FROM)
    with pytest.raises(RuntimeError, match="False"):
        attempt(MADE_FROM | {"seed": 1})
    with pytest.raises(RuntimeError, match="False"):
        attempt(MADE_FROM | {"seed": 1}, "other/1")
    with artifacts.writing(model, MADE_FROM | {"seed": 1}, "other/1", keep_partial=True) as partial:
        assert (partial / "step.txt").exists()
    assert _names(tmp_path) == ["pdr"]
    assert _names(model) == ["manifest.json", "step.txt"]


def test_leftovers_of_a_kill_between_manifest_and_rename(tmp_path):
    model = tmp_path / "pdr"
    _make(model)
    model.rename(tmp_path / "pdr.partial")  # whole, but not yet in its place
    (tmp_path / "pdr.old").mkdir()
    assert artifacts.reason_stale(model, MADE_FROM, SCHEMA) == "not made yet"
    with artifacts.writing(model, MADE_FROM, SCHEMA, keep_partial=True) as partial:
        assert (partial / "rows.txt").exists()
        assert not (partial / "manifest.json").exists(), "nothing looks whole while it is written"
    assert _names(tmp_path) == ["pdr"]
    model.rename(tmp_path / "pdr.partial")
    with artifacts.writing(model, MADE_FROM, SCHEMA) as partial:
        assert not (partial / "rows.txt").exists()


KILLED = """
import os, pathlib, signal, sys
from pr2_jax import artifacts
with artifacts.writing(pathlib.Path(sys.argv[1]), {"a": 1}, "s/1", keep_partial=sys.argv[2] == "keep") as partial:
    (partial / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_kill_leaves_nothing_that_looks_whole(tmp_path, keep):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a"), keep], check=False)
    assert done.returncode == -signal.SIGKILL
    assert artifacts.reason_stale(tmp_path / "a", {"a": 1}, "s/1") == "not made yet"
    with artifacts.writing(tmp_path / "a", {"a": 1}, "s/1", keep_partial=keep == "keep") as partial:
        assert (partial / "half").exists() == (keep == "keep")
    assert artifacts.fresh(tmp_path / "a", {"a": 1}, "s/1")


def test_half_written_claim_of_a_partial_is_wiped(tmp_path):
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "manifest.partial.json").write_text('{"schema": ')
    with artifacts.writing(tmp_path / "a", MADE_FROM, SCHEMA, keep_partial=True) as partial:
        assert _names(partial) == ["manifest.partial.json"]
    assert artifacts.fresh(tmp_path / "a", MADE_FROM, SCHEMA)


def test_require_names_what_is_missing_and_what_makes_it(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(StaleArtifact, match=r"store does not exist .* make it with `pr2 ingest`"):
        artifacts.require(store, SCHEMA, "pr2 ingest")
    _make(store)
    with pytest.raises(StaleArtifact, match=r"schema 'store/1', this version reads 'store/2': .* `pr2 ingest`"):
        artifacts.require(store, "store/2", "pr2 ingest")
    with pytest.raises(StaleArtifact, match=r"something else \(config\.width was 32, is now 8\): .* `pr2 ingest`"):
        artifacts.require(store, SCHEMA, "pr2 ingest", {**MADE_FROM, "config": {"width": 8, "share": 0.5}})


@pytest.mark.parametrize(("text", "message"), [("{", "not readable as JSON"), ("[]", "has no"), ("{}", "has no")])
def test_broken_manifest_is_named(tmp_path, text, message):
    _make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(text)
    assert message in artifacts.reason_stale(tmp_path / "a", MADE_FROM, SCHEMA)
    with pytest.raises(StaleArtifact, match=message):
        artifacts.require(tmp_path / "a", SCHEMA, "pr2 ingest")


def test_digests(tmp_path):
    assert artifacts.digest({"a": 1, "b": [2]}) == artifacts.digest({"b": (2,), "a": 1}) == "0855bfc20eb6cfaa"
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.digest(float("nan"))
    (tmp_path / "f").write_bytes(b"abc")
    assert artifacts.digest_file(tmp_path / "f") == "ba7816bf8f01cfea"


def test_json_is_readable_and_leaves_no_temporary_file(tmp_path):
    artifacts.write_json(tmp_path / "x.json", {"b": 1, "a": "ü"})
    assert _names(tmp_path) == ["x.json"]
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": "ü", "b": 1}


HOLDER = """
import pathlib, sys
from pr2_jax import artifacts
with artifacts.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_names_its_holder_and_ends_with_it(tmp_path):
    workdir = tmp_path / "new" / "work"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workdir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        message = f"{workdir} is in use by process {holder.pid}: wait until it ends or take another --workdir"
        with pytest.raises(Pr2Error, match=re.escape(message)), artifacts.locked(workdir):
            pass
        holder.kill()
        holder.wait()
    with artifacts.locked(workdir):
        assert (workdir / ".lock").read_text() == str(os.getpid())
    assert workdir.is_dir()


def test_a_new_directory_in_which_nothing_was_written_goes_again(tmp_path):
    with pytest.raises(BadInput, match="no log"), artifacts.locked(tmp_path / "new"):
        raise BadInput("no log")
    assert not (tmp_path / "new").exists()
    with artifacts.locked(tmp_path / "new"):
        (tmp_path / "new" / "a").touch()
    assert (tmp_path / "new" / "a").exists()


def test_work_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match=r"file cannot be used as the work directory \(.*\): expected a directory"),
        artifacts.locked(tmp_path / "file"),
    ):
        pass


def test_time_spent_is_told(tmp_path, monkeypatch):
    clock = iter([100.0, 102.5])
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(clock))
    with artifacts.writing(tmp_path / "a", MADE_FROM, SCHEMA):
        pass
    assert artifacts.require(tmp_path / "a", SCHEMA, "pr2 ingest")["seconds"] == 2.5
