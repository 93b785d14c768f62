"""What is served from an artifact is what the work directory answers, without it and without the model's code."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pr2_jax.artifacts import sha256
from pr2_jax.cli import entry
from pr2_jax.demo.answers import Answers
from pr2_jax.demo.demo_request import DemoRequest
from pr2_jax.export.serving_artifact import ServingArtifact, contents_digest
from pr2_jax.retrieval import postings
from pr2_jax.search import batch_scoring
from pr2_jax.search.engine import SearchEngine
from pr2_jax.search.side_by_side import SideBySide
from pr2_jax.search.system import System
from pr2_jax.stages.export_artifact import functions_of, real_batches

NAMES = ["base", "content_query", "content_video", "pdr_query_user", "pdr_video"]
NAMES += ["preference_logits", "preference_says", "preference_video", "qin"]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(artifact) -> ServingArtifact:
    return ServingArtifact.open(artifact)


@pytest.fixture(scope="module")
def calls(finished, micro_config) -> dict:
    """The model's own functions, each with a batch of real rows."""
    system = System.open(finished, micro_config)
    functions = functions_of(system)
    batches = real_batches(system, functions)
    return {name: (function, batches[name]) for name, function in functions.items()}


def _sized(batch: dict, rows: int, results: int) -> dict:
    """The batch with other numbers of requests (or videos) and of results, its rows turned round and repeated."""
    out = {}
    for name, array in batch.items():
        letters = name.rpartition("_")[2].split("x")
        for axis, size in enumerate({"B": rows, "N": rows, "S": results}.get(letter) for letter in letters):
            if size:
                array = np.take(array, -1 - np.arange(size) % array.shape[axis], axis=axis)
        out[name] = array
    return out


@pytest.mark.parametrize("name", NAMES)
def test_one_program_answers_any_batch_with_the_models_bits(exported, calls, name):
    model, batch = calls[name]
    for rows, results in ((1, 2), (64, 5)):
        part = _sized(batch, rows, results)
        pairs = list(zip(jax.tree.leaves(exported[name](part)), jax.tree.leaves(model(part)), strict=True))
        assert pairs
        for ours, theirs in pairs:
            assert np.array_equal(ours, theirs)
            assert len(ours) == rows
            assert np.isfinite(ours).all()


def test_programs_are_for_all_platforms_and_open_in_their_batch(exported):
    assert sorted(exported) == NAMES
    assert len(list((exported.directory / "functions").iterdir())) == len(NAMES)
    for name in NAMES:
        program = exported.exported(name)
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert list(program.platforms) == exported.manifest["functions"][name]["platforms"]
        assert not jax.export.is_symbolic_dim(program.in_avals[0].shape[0]), "weights are as they are"
    said = exported.manifest["functions"]
    assert said["qin"]["outputs"] == ["float32[B,S,3]"]
    assert said["qin"]["inputs"]["video_BxS"] == "int32[B,S]"
    assert said["pdr_query_user"]["inputs"]["history_BxH"] == "int32[B,16]"
    assert said["pdr_video"] | {"weights": 0, "file": 0, "platforms": 0} == {
        "file": 0, "weights": 0, "platforms": 0, "inputs": {"video_N": "int32[N]"}, "outputs": ["float32[N,16]"],
    }  # fmt: skip


def test_what_several_read_is_stored_and_loaded_once(exported):
    readers = [name for name in NAMES if "frozen/content" in exported.manifest["functions"][name]["weights"]]
    assert readers == ["base", "pdr_query_user", "pdr_video", "preference_video", "qin"]
    files = {exported.manifest["functions"][name]["weights"]["frozen/content"] for name in readers}
    assert files == {"content/video_vectors.npy"}
    assert len({id(exported[name].weights["frozen"]["content"]) for name in readers}) == 1
    place = exported.directory
    assert (place / "index/dr/vectors.npy").samefile(place / "content/video_vectors.npy")
    assert exported["pdr_query_user"].weights["frozen"].keys() == {"content", "author", "brought"}


def test_postings_come_along(exported, finished):
    for name in postings.FILES:
        file = f"index/bm25/{name}.npy"
        assert exported.manifest["files"][file]["sha256"] == sha256(finished / file)


@pytest.fixture(scope="module")
def requests(finished, micro_config, tmp_path_factory) -> Path:
    """Known people with known words, a stranger, nobody, no words, no known word."""
    store = System.open(finished, micro_config).store
    first, words = np.asarray(store.queries.first_word), np.asarray(store.queries.words)
    path = tmp_path_factory.mktemp("requests") / "in.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "query"))
        for row in range(1, 20):
            text = " ".join(store.words.text[word] for word in words[first[row] : first[row + 1]])
            writer.writerow((int(store.users.raw_id[row]), text))
        writer.writerows([(987_654_321, text), ("", text), ("", ""), (int(store.users.raw_id[3]), "zzqqxx")])
    return path


@pytest.fixture(scope="module")
def engines(artifact, finished) -> tuple[SearchEngine, SearchEngine]:
    """Opened from the artifact, and from the work directory."""
    return SearchEngine.load(artifact), SearchEngine.load(str(finished))


@pytest.mark.parametrize("suffix", ["run", "parquet"])
def test_scores_are_the_same_bytes(engines, requests, tmp_path, monkeypatch, suffix):
    for name, engine in zip("aw", engines, strict=True):
        monkeypatch.setattr(batch_scoring.SearchEngine, "load", lambda place, engine=engine: engine)
        batch_scoring.score_file(tmp_path, requests, tmp_path / f"{name}.{suffix}", 7)
    ours = (tmp_path / f"a.{suffix}").read_bytes()
    assert len(ours) > 1_000
    assert ours == (tmp_path / f"w.{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["pr2", "base"])
def test_searches_are_the_same(engines, name):
    ours, theirs = (SearchEngine(engine.system, name) for engine in engines)
    store = theirs.system.store
    query = [int(store.words.raw_id[word]) for word in store.queries.words[: store.queries.first_word[2]]]
    for user in (None, 1, *np.asarray(store.users.raw_id)[1:6].tolist()):
        found = ours.search(user, query, 8)
        assert len(found.results) == 8
        assert found == theirs.search(user, query, 8)


def test_the_demo_says_the_same(engines):
    ours, theirs = (
        Answers(SideBySide({"base": SearchEngine(engine.system, "base"), "pr2": engine})) for engine in engines
    )
    assert (ours.people, ours.queries, ours.log) == (theirs.people, theirs.queries, theirs.log)
    for user in (ours.people[0].user, ours.people[-1].user, None):
        asked = DemoRequest(user, ours.queries[0], 6)
        assert ours.search(asked) | {"took_ms": 0} == theirs.search(asked) | {"took_ms": 0}


PROBE = """
import sys
from pr2_jax.cli import entry as cli
split = sys.argv.index("index")
status = [cli.main(sys.argv[1:split]), cli.main(sys.argv[split:])]
names = {name for name in sys.modules if name.startswith(("pr2_jax.models.", "pr2_jax.training."))}
names -= {"pr2_jax.models.qrcf_arithmetic", "pr2_jax.training.embedding_tables", "pr2_jax.training.mesh"}
print(status, sorted({"flax", "optax", "orbax", "tensorflow_datasets"} & sys.modules.keys() | names))
"""


def _alone(*arguments: object) -> subprocess.CompletedProcess:
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    settings = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "8", **cache}
    return subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY, env=os.environ | settings,
    )  # fmt: skip


def test_no_model_code_is_imported(artifact, engines, requests, tmp_path, monkeypatch):
    """In a process that scores, and then makes the indices anew; what it writes is right all the same."""
    scores = ("score", "--artifact", artifact, "--requests", requests, "--out", tmp_path / "a.run")
    done = _alone(*scores, "index", "--artifact", artifact, "--out", tmp_path / "b")
    assert done.stdout == "[0, 0] []\n", done.stderr
    batch_scoring.score_file(tmp_path / "b", requests, tmp_path / "b.run", 10)
    monkeypatch.setattr(batch_scoring.SearchEngine, "load", lambda place: engines[1])
    batch_scoring.score_file(tmp_path, requests, tmp_path / "w.run", 10)
    assert ServingArtifact.open(artifact), "the one that gave its files is as it was"
    assert (tmp_path / "a.run").read_bytes() == (tmp_path / "w.run").read_bytes()
    assert (tmp_path / "b.run").read_bytes() == (tmp_path / "w.run").read_bytes()


def test_index_encodes_the_catalogue_anew_in_place(copied, finished):
    """From the towers: the vectors that lie in the index are not what is read."""
    manifest = json.loads((copied / "manifest.json").read_text())
    indices = ("index/dr", "index/pdr")
    for file in (f"{index}/{name}.npy" for index in indices for name in ("vectors", "rows")):
        np.save(copied / file, np.zeros_like(np.load(copied / file)))
        manifest["files"][file] |= {"sha256": sha256(copied / file)}
    manifest["digest"] = contents_digest(manifest)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert entry.main(["index", "--artifact", str(copied)]) == 0
    again = ServingArtifact.open(copied)
    for part in ("fingerprint", "functions"):
        assert again.manifest[part] == manifest[part]
    for file in (f"{index}/{name}.npy" for index in indices for name in ("vectors", "rows")):
        assert np.array_equal(np.load(copied / file), np.load(finished / file))
    assert again.manifest["files"].keys() == manifest["files"].keys()
    assert [path.name for path in copied.parent.iterdir()] == ["a"]
