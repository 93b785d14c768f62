"""Artifacts that are not whole, exports that go wrong, and places that are not ours to replace."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from pr2_jax.artifacts import sha256
from pr2_jax.cli import entry
from pr2_jax.errors import BadInput, Pr2Error, StaleArtifact
from pr2_jax.export.artifact_writer import Writer, open_shapes
from pr2_jax.export.serving_artifact import ServingArtifact, contents_digest, nested
from pr2_jax.search.engine import SearchEngine
from pr2_jax.stages import export_artifact as export_stage
from pr2_jax.stages.export_artifact import export
from pr2_jax.training.mesh import floats, ints


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _schema(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "serving/0"}))


def _leave_out(path):
    manifest = json.loads(path.read_text())
    manifest["files"].popitem()
    path.write_text(json.dumps(manifest))


def _garble(path):
    path.write_text("{")


DAMAGE = {
    "a program is missing": ("functions/qin.jaxexport", lambda path: path.unlink(), r"cannot be read \(No such file"),
    "a weight has one other bit": ("weights/qin.tables.word.npy", _flip, r"does not hold what was exported"),
    "a column is cut short": ("store/users.raw_id.npy", _cut, r"has [\d,]+ bytes, the manifest says [\d,]+"),
    "the config was edited": ("config.json", lambda path: path.write_text(path.read_text() + " "), r"has [\d,]+ bytes"),
    "an index has one other bit": ("index/dr/vectors.npy", _flip, r"does not hold what was exported"),
    "a file is left out": ("manifest.json", _leave_out, r"manifest.json is not as it was written: remove"),
    "another schema": ("manifest.json", _schema, r"schema 'serving/0', this version reads 'serving/3'"),
    "a manifest that is none": ("manifest.json", _garble, r"not readable as JSON: remove"),
    "no manifest": ("manifest.json", lambda path: path.unlink(), r"has no manifest.json"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_with_the_remedy(copied, capsys, case):
    file, damage, said = DAMAGE[case]
    damage(copied / file)
    for command in (["search", "--user", "1", "--query", "a"], ["index"]):
        assert entry.main([command[0], "--artifact", str(copied), *command[1:]]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(said, error)
        assert "pr2 export" in error or "not readable" in error
        assert str(copied) in error
    assert not copied.with_name("a.partial").exists()


def test_a_program_of_a_version_that_cannot_be_read(copied):
    file = "functions/pdr_query_user.jaxexport"
    program = jax.export.deserialize(bytearray((copied / file).read_bytes()))
    later = dataclasses.replace(program, mlir_module_serialized=b"ML\xefR\x7f" + program.mlir_module_serialized[5:])
    (copied / file).write_bytes(later.serialize())
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"][file] = {"bytes": (copied / file).stat().st_size, "sha256": sha256(copied / file)}
    manifest["versions"]["jax"] = "9.9.9"
    manifest["digest"] = contents_digest(manifest)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StaleArtifact, match=rf"exported by jax 9\.9\.9 and cannot be read by jax {jax.__version__}"):
        SearchEngine.load(copied).search(1, "a", 5)


def test_a_config_of_another_version(copied):
    path, manifest = copied / "config.json", json.loads((copied / "manifest.json").read_text())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new_section": {}}))
    manifest["files"]["config.json"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest["digest"] = contents_digest(manifest)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StaleArtifact, match=r"no field 'new_section'.* anew with `pr2 export`"):
        SearchEngine.load(copied)


def test_an_export_that_answers_otherwise_is_not_kept(finished, tmp_path, monkeypatch):
    plain = ServingArtifact._weight
    off = "weights/qin.params.head_like.bias.npy"
    monkeypatch.setattr(ServingArtifact, "_weight", lambda self, file: plain(self, file) + (1e-3 if file == off else 0))
    with pytest.raises(Pr2Error, match=r"function qin differs from the model by 0\.00[01]"):
        export(finished, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_a_difference():
    one, nan = np.ones((2, 2)), np.array([[1.0, np.nan], [1.0, 1.0]])
    assert export_stage._difference((one, one), (one, one)) == 0
    assert export_stage._difference((one, 3 * one), (one, 3.3 * one)) == pytest.approx(0.1)
    for pair in ((one, nan), (nan, one), (nan, nan)):
        assert not export_stage._difference((one, pair[0]), (one, pair[1])) <= 1e9


def test_an_export_that_breaks_off_leaves_the_older_one(finished, copied, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    before = (copied / "manifest.json").read_bytes()
    monkeypatch.setattr(Writer, "known", full_disk)
    monkeypatch.setattr(export_stage, "_report_change", full_disk)
    for make in (lambda: export(finished, copied), lambda: export_stage.rebuild(copied, copied)):
        with pytest.raises(OSError, match="No space left"):
            make()
        assert [path.name for path in copied.parent.iterdir()] == ["a"]
        assert (copied / "manifest.json").read_bytes() == before
    assert len(ServingArtifact.open(copied)) == 9


def test_only_artifacts_are_replaced(finished, artifact, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    shutil.copytree(finished / "index", tmp_path / "index")
    for out, said in (("mine", "was not made by pr2"), ("file", "is a file"), ("index", r"holds something else")):
        with pytest.raises(BadInput, match=said):
            export(finished, tmp_path / out)
        with pytest.raises(BadInput, match=said):
            export_stage.rebuild(artifact, tmp_path / out)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert (tmp_path / "index" / "fitted.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "--workdir", "{a}", "--out", "{tmp}/b"], "is a serving artifact itself"),
        (["export", "--workdir", "{tmp}", "--out", "{tmp}/b"], "not a work directory"),
        (["run", "--workdir", "{a}"], "is a finished artifact, expected a work directory"),
        (["search", "--artifact", "{w}", "--user", "1", "--query", "a"], "has no manifest.json"),
        (["search", "--artifact", "{a}", "--workdir", "{w}", "--user", "1", "--query", "a"], "not allowed with"),
        (["search", "--user", "1", "--query", "a"], "one of the arguments --workdir --artifact is required"),
        (["index", "--artifact", "{a}", "--config.seed=1"], "keeps the config that it was exported with"),
        (["index", "--artifact", "{a}", "--config", "c.py"], "keeps the config that it was exported with"),
        (["index", "--workdir", "{w}", "--out", "{tmp}/b"], "--out goes with --artifact"),
    ],
)
def test_misuse_is_one_line(artifact, finished, tmp_path, capsys, arguments, said):
    places = {"a": artifact, "w": finished, "tmp": tmp_path}
    assert entry.main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_missing_is_named(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "w", ignore=shutil.ignore_patterns("qin"))
    with pytest.raises(StaleArtifact, match=r"/qin does not exist .* `pr2 train qin`"):
        export(tmp_path / "w", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_open_shapes_follow_the_schema():
    inputs = {"gap_seconds_BxH": floats("B", 5), "words_BxQ": ints("B", "Q"), "video_BxS": ints("B", "S")}
    shapes = open_shapes(inputs | {"is_feed_B": floats("B")}, {"Q": 7})
    assert {name: str(spec.shape) for name, spec in shapes.items()} == {
        "gap_seconds_BxH": "(B, 5)", "words_BxQ": "(B, 7)", "video_BxS": "(B, S)", "is_feed_B": "(B,)",
    }  # fmt: skip
    assert shapes["video_BxS"].dtype == np.int32
    with pytest.raises(KeyError):
        open_shapes(inputs, {})  # a dimension that nobody settles must not stay open unnoticed
    assert nested({"a/b": 1, "a/c/d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
