"""Serving artifacts: `pr2 export` makes one from a work directory, `pr2 index --artifact` makes its indices anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from pr2_jax import artifacts, console
from pr2_jax.data.history.video_attributes import described
from pr2_jax.data.store.log_store import TEXT_FILE
from pr2_jax.encoders import preference_regression
from pr2_jax.encoders.batching import all_videos
from pr2_jax.errors import BadInput, Pr2Error
from pr2_jax.export.artifact_writer import Writer, total_bytes
from pr2_jax.export.serving_artifact import FUNCTIONS, SCHEMA, ServingArtifact, contents_digest
from pr2_jax.search.searcher import Searcher
from pr2_jax.search.system import PIPELINES, System, open_system
from pr2_jax.stages.build_index import build_indices
from pr2_jax.types import Functions, ModelFunction
from pr2_jax.workdir import CONFIG_FILE, STAGES

SAMPLE = 4
"""Searches on which every exported function is compared with the model."""
SLATE = 8
TOLERANCE = 1e-5
"""Of the comparison. The same program is compiled by the same compiler, and on CPUs the results are the same bits; but
XLA may fuse otherwise around an open dimension, and then sums come out in another order."""


class _Recorded(System):
    """Remembers every function with the last batch that it was given and what it made of it."""

    def __init__(self, system: System) -> None:
        super().__init__(system.workdir, system.config, system.store)
        self.calls: dict[str, tuple[ModelFunction, dict, Any]] = {}

    def functions(self, model: str, directory: Path) -> Functions:
        found = super().functions(model, directory)
        return {name: ModelFunction(self._noted(name, function), {}) for name, function in found.items()}

    def _noted(self, name: str, function: ModelFunction):
        def call(_, batch):
            out = function(batch)
            self.calls[name] = (function, batch, out)
            return out

        return call


def export(workdir: Path, out: Path) -> None:
    """Writes the artifact; every function is compared with the model's before the directory takes its place."""
    _refuse_other(out)
    if open_system(workdir).exported is not None:  # not under the lock, which makes a directory where there is none
        raise BadInput(f"{workdir} is a serving artifact itself, expected a work directory")
    with artifacts.locked(workdir), console.stage("export"):
        system = open_system(workdir)
        facts: dict[str, Any] = {}
        made_from = {name: artifacts.identity(workdir / name) for name in ("store", *STAGES) if name != "eval"}
        with artifacts.writing(out, {"inputs": made_from}, SCHEMA, facts=facts) as place:
            writer = Writer(place)
            _take_what_search_reads(system, writer)
            calls = few_real_calls(system)
            facts[FUNCTIONS] = {name: writer.function(name, *call[:2]) for name, call in sorted(calls.items())}
            facts["files"] = writer.files()
            facts["digest"] = contents_digest(facts)
            _compare(ServingArtifact(place, facts | {"versions": artifacts.versions()}), calls)
        _report_size(out, facts)


def rebuild(place: Path, out: Path) -> None:
    """The artifact with both indices made anew, from its own video towers; `out` may be `place` itself."""
    _refuse_other(out)
    with console.stage("index"):
        system = open_system(place)
        artifact = system.exported
        facts = {FUNCTIONS: artifact.manifest[FUNCTIONS]}
        with artifacts.writing(out, artifact.manifest["fingerprint"], SCHEMA, facts=facts) as made:
            writer = Writer(made)
            rebuilt = ("index/dr/", "index/pdr/")
            for name in artifact.manifest["files"]:
                if not name.startswith(rebuilt):
                    writer.take(place / name, name)
            dr_VxD = all_videos(artifact["content_video"], system.store.counts.videos)
            vectors = {"dr": np.where(described(system.catalogue)[:, None], dr_VxD, 0)}
            vectors["pdr"] = system.pdr.videos()
            _report_change(place, vectors)
            build_indices(system, vectors, made / "index")
            facts["files"] = writer.files()
            facts["digest"] = contents_digest(facts)


def _refuse_other(out: Path) -> None:
    """BadInput where `out` would replace anything but an artifact."""
    artifacts.refuse_foreign(out)
    if (schema := artifacts.schema_of(out)) not in (None, SCHEMA) and not schema.startswith("serving/"):
        raise BadInput(f"{out} holds something else (schema {schema!r}), expected a new directory or an artifact")


def _take_what_search_reads(system: System, writer: Writer) -> None:
    w, now_ms = system.workdir, system.store.cuts.end_ms
    for path in sorted((w / "store").iterdir()):
        if path.suffix == ".npy" or path.name in (TEXT_FILE, artifacts.MANIFEST):
            writer.take(path, f"store/{path.name}")
    vectors = ("content/video_vectors.npy", "preference/video_vectors.npy")
    fitted = tuple(f"preference/{name}" for name in preference_regression.FILES)
    scores = ("qin/scaler.npz", *(f"qin/{name}.json" for name in PIPELINES))
    index = ("index/dr", "index/pdr", f"index/as_of_{now_ms}", "index/fitted.json")
    for name in (CONFIG_FILE, *vectors, *fitted, *index, *scores):
        writer.take(w / name, name)
    for name in vectors:
        writer.known(name)


def few_real_calls(system: System) -> dict[str, tuple[ModelFunction, dict, Any]]:
    """Every function of the models with a batch that some searches of the log hand to it, and the result."""
    recorded = _Recorded(system)
    store = system.store
    sessions_N = np.linspace(0, store.counts.sessions - 1, SAMPLE).astype(np.int64)
    requests = recorded.requests(sessions_N)
    query_N = np.asarray(store.sessions.query)[sessions_N]
    video_N = np.linspace(1, store.counts.videos - 1, SAMPLE * SLATE).astype(np.int32)
    snapshot = recorded.snapshot(store.cuts.end_ms)
    for name in PIPELINES:
        Searcher(recorded, snapshot, name).score(requests, query_N, video_N.reshape(SAMPLE, SLATE))
    recorded.pdr(requests)
    for model, tower in (("content", "content_video"), ("preference", "preference_video"), ("pdr", "pdr_video")):
        recorded.functions(model, system.workdir / model)[tower]({"video_N": video_N})
    return recorded.calls


def _compare(artifact: ServingArtifact, calls: dict[str, tuple[ModelFunction, dict, Any]]) -> None:
    """Pr2Error where what was written does not answer as the model does."""
    artifact.verify()
    for name, (_, batch, want) in calls.items():
        worst = _difference(want, artifact[name](batch))
        if not worst <= TOLERANCE:
            raise Pr2Error(
                f"exported function {name} differs from the model by {worst:.2g} on real rows, expected at most "
                f"{TOLERANCE:g}: nothing was written"
            )
        size = artifact.manifest["files"][artifact.manifest[FUNCTIONS][name]["file"]]["bytes"]
        agreed = "the model's bits" if worst == 0 else f"within {worst:.1g} of the model"
        console.log(f"{name}: {size / 1e3:.0f} kB, {agreed} on {SAMPLE} searches")


def _difference(want: Any, got: Any) -> float:
    """The largest, as a share of the largest value where that is above 1; NaN where anything is not finite."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True)]
    return float(np.max([np.abs(a - b).max() / max(1.0, np.abs(a).max()) for a, b in pairs]))


def _report_size(out: Path, facts: dict[str, Any]) -> None:
    files = facts["files"]
    read = {file for said in facts[FUNCTIONS].values() for file in said["weights"].values()}
    weights, everything = total_bytes({name: files[name] for name in read}), total_bytes(files)
    console.log(f"{len(facts[FUNCTIONS])} functions, {weights / 1e6:,.1f} MB of weights for them")
    console.log(f"{everything / 1e6:,.1f} MB with the log and the indices in {out}")


def _report_change(place: Path, vectors: dict[str, np.ndarray]) -> None:
    for name, vectors_VxD in vectors.items():
        before = np.load(place / "index" / name / "vectors.npy", mmap_mode="r")
        console.log(f"{name}: vectors differ from the former by at most {np.abs(vectors_VxD - before).max():.1g}")
