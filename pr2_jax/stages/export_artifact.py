"""Serving artifacts: `pr2 export` makes one from a work directory, `pr2 index --artifact` makes its indices anew."""

from __future__ import annotations

from collections.abc import Mapping
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
from pr2_jax.search.pipelines import COMPARED
from pr2_jax.search.system import System, open_system
from pr2_jax.stages.build_index import build_indices
from pr2_jax.types import Batch, Functions, ModelFunction
from pr2_jax.workdir import CONFIG_FILE, STAGES

SAMPLE = 4
"""Searches on which every exported function is compared with the model."""
SLATE = 8
TOLERANCE = 1e-5
"""Of the comparison. On CPUs the results are the same bits; but XLA may fuse differently around an open dimension,
so that sums come out in another order."""


def export(workdir: Path, out: Path) -> None:
    """Writes the artifact; every function is compared with the model's before the directory takes its place."""
    _refuse_other(out)
    if open_system(workdir).fitted.verified:  # not under the lock, which makes a directory where there is none
        raise BadInput(f"{workdir} is a serving artifact itself, expected a work directory")
    with artifacts.locked(workdir), console.stage("export"):
        system = open_system(workdir)
        facts: dict[str, Any] = {}
        made_from = {name: artifacts.identity(workdir / name) for name in ("store", *STAGES) if name != "eval"}
        with artifacts.writing(out, {"inputs": made_from}, SCHEMA, facts=facts) as place:
            writer = Writer(place, {"Q": system.config.data.query_tokens})
            _take_what_search_reads(system, writer)
            functions = functions_of(system)
            facts[FUNCTIONS] = {name: writer.function(name, one) for name, one in sorted(functions.items())}
            facts["files"] = writer.files()
            facts["digest"] = contents_digest(facts)
            made = ServingArtifact(place, facts | {"versions": artifacts.versions()})
            _compare(made, functions, real_batches(system, functions))
        files = facts["files"]
        read = {file for said in facts[FUNCTIONS].values() for file in said["weights"].values()}
        weights = total_bytes({name: files[name] for name in read})
        console.log(f"{len(facts[FUNCTIONS])} functions, {weights / 1e6:,.1f} MB of weights for them")
        console.log(f"{total_bytes(files) / 1e6:,.1f} MB with the log and the indices in {out}")


def rebuild(place: Path, out: Path) -> None:
    """Rebuilds both indices of an artifact from its own video towers; `out` may be `place` itself."""
    _refuse_other(out)
    with console.stage("index"):
        system = open_system(place)
        artifact: ServingArtifact = system.models
        facts = {FUNCTIONS: artifact.manifest[FUNCTIONS]}
        with artifacts.writing(out, artifact.manifest["fingerprint"], SCHEMA, facts=facts) as made:
            writer = Writer(made)
            for name in artifact.manifest["files"]:
                if not name.startswith(("index/dr/", "index/pdr/")):
                    writer.take(place / name, name)
            dr_VxD = all_videos(artifact["content_video"], system.store.counts.videos)
            dr_VxD = np.where(described(system.log.catalogue)[:, None], dr_VxD, 0)
            vectors = {"dr": dr_VxD, "pdr": system.pdr.videos()}
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
    scores = ("qin/scaler.npz", *(f"qin/{name}.json" for name in COMPARED))
    index = ("index/bm25", "index/dr", "index/pdr", f"index/as_of_{now_ms}", "index/fitted.json")
    for name in (CONFIG_FILE, *vectors, *fitted, *index, *scores):
        writer.take(w / name, name)
    for name in vectors:
        writer.known(name)


def functions_of(system: System) -> dict[str, ModelFunction]:
    """Everything that a model computes for search."""
    found: dict[str, ModelFunction] = {}
    for place in ("content", "preference", "pdr", "qin/qin", "qin/base"):
        found |= system.models.functions(Path(place).name, system.workdir / place)
    return found


def real_batches(system: System, functions: Functions) -> dict[str, Batch]:
    """By function, a batch of its schema from some searches of the log, their people's pasts, and videos. Features of
    the ranker are random: they are standardised numbers."""
    store, reader, rng = system.store, system.log.reader, np.random.default_rng(0)
    sessions_N = np.linspace(0, store.counts.sessions - 1, SAMPLE).astype(np.int64)
    requests = system.log.requests(sessions_N, withhold=False)
    who_when = requests.user_B, requests.time_ms_B
    people = system.preference.people(*who_when)
    video_N = np.linspace(1, store.counts.videos - 1, SAMPLE * SLATE).astype(np.int32)
    event_N = np.linspace(0, store.counts.events - 1, SAMPLE * SLATE).astype(np.int64)
    vectors_NxD = np.asarray(system.preference.videos_VxD)[video_N]
    known = {
        "words_BxQ": requests.words_BxQ,
        "query_content_BxD": system.space.queries(requests.words_BxQ),
        "profile_BxP": np.asarray(store.users.profile)[requests.user_B],
        "preference_BxD": people.preference_NxD,
        "is_feed_B": np.zeros(SAMPLE, np.float32),
        "video_N": video_N,
        "video_BxS": video_N.reshape(SAMPLE, SLATE),
        "position_BxS": np.full((SAMPLE, SLATE), -1, np.int32),
        "item_NxD": vectors_NxD,
        "item_NxSxD": vectors_NxD.reshape(SAMPLE, SLATE, -1),
        "signals_NxG": reader.signals(event_N),
        **people._asdict(),
    }

    def batch(inputs: Mapping[str, Any]) -> Batch:
        pool = dict(known)
        if "history_BxH" in inputs:
            pool |= reader.engaged(*who_when, inputs["history_BxH"].dims[1])
        if "recent_BxR" in inputs:
            pool |= reader.recent(*who_when, inputs["recent_BxR"].dims[1])
        if "features_BxSxF" in inputs:
            shape = SAMPLE, SLATE, inputs["features_BxSxF"].dims[2]
            pool["features_BxSxF"] = rng.normal(size=shape).astype(np.float32)
        return {name: pool[name] for name in inputs}

    return {name: batch(function.inputs) for name, function in functions.items()}


def _compare(artifact: ServingArtifact, functions: Functions, batches: Mapping[str, Batch]) -> None:
    """Pr2Error where an exported function differs from its model."""
    artifact.verify()
    for name, function in functions.items():
        worst = _difference(function(batches[name]), artifact[name](batches[name]))
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


def _report_change(place: Path, vectors: dict[str, np.ndarray]) -> None:
    for name, vectors_VxD in vectors.items():
        before = np.load(place / "index" / name / "vectors.npy", mmap_mode="r")
        console.log(f"{name}: vectors differ from the former by at most {np.abs(vectors_VxD - before).max():.1g}")
