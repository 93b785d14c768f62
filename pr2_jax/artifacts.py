"""What a stage leaves on disk: whole or not there, and knowing what it was made from.

A stage writes into `DIR.partial`; its `manifest.json` (schema, fingerprint, library versions, wall time) comes last,
then the directory takes its place by a rename. So a directory without a manifest is not an artifact, whatever killed
the process. A *fingerprint* is a JSON dictionary of everything that the result depends on: the slice of the config,
and the `identity` of each artifact read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pr2_jax import __version__
from pr2_jax.errors import BadInput, Pr2Error, StaleArtifact

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
IN_PROGRESS = "manifest.partial.json"
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "scann", "numpy", "polars")

Fingerprint = Mapping[str, Any]


def digest(value: Any) -> str:
    """16 hex digits of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(_compact(value).encode()).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """16 hex digits of a file's bytes."""
    return sha256(path)[:16]


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_text(value: Any) -> str:
    """JSON for people, the same text for the same value."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """`canonical_text`, put in place by a rename."""
    write_text(path, canonical_text(value))


def write_text(path: Path, text: str) -> None:
    """Put in place by a rename."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def identity(directory: Path) -> str:
    """Stands for an artifact in the fingerprints of those made from it. StaleArtifact where there is none."""
    manifest = _manifest(directory)
    if manifest is None:
        raise StaleArtifact(f"{directory} does not exist or was left half-written")
    return digest([manifest["schema"], manifest["fingerprint"]])


def schema_of(directory: Path) -> str | None:
    """The schema of an artifact; None where there is none."""
    manifest = _manifest(directory)
    return None if manifest is None else manifest["schema"]


def reason_stale(directory: Path, fingerprint: Fingerprint, schema: str) -> str | None:
    """Why the artifact has to be made (again), in words for a log line; None where it is fresh."""
    try:
        manifest = _manifest(directory)
    except StaleArtifact as error:
        return str(error)
    if manifest is None:
        return "not made yet"
    if manifest["schema"] != schema:
        return f"schema was {manifest['schema']}, is now {schema}"
    return in_short(differences(manifest["fingerprint"], json.loads(_compact(fingerprint)))) or None


def in_short(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """The first three of `differences(then, now)` in words: `config.width was 32, is now 64`."""
    phrases = [f"{path} was {json.dumps(then)}, is now {json.dumps(now)}" for path, then, now in changes[:3]]
    return "; ".join(phrases) + ("; …" if len(changes) > 3 else "")


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """`(path, value, other value)` of each leaf in which two JSON values differ: `("config.width", 32, 64)`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            found
            for key in sorted(one.keys() | other.keys())
            for found in differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if one == other else [(path, one, other)]


def fresh(directory: Path, fingerprint: Fingerprint, schema: str) -> bool:
    """Whether the artifact is whole and made from just this."""
    return reason_stale(directory, fingerprint, schema) is None


def require(directory: Path, schema: str, made_by: str, fingerprint: Fingerprint | None = None) -> dict[str, Any]:
    """The manifest of an artifact that must be there.

    Raises StaleArtifact naming what is missing, or both sides of what differs, and the command `made_by` that mends it.
    """
    manifest = _manifest(directory)
    if manifest is None:
        raise StaleArtifact(f"{directory} does not exist or was left half-written: make it with `{made_by}`")
    if manifest["schema"] != schema:
        raise StaleArtifact(
            f"{directory} was made with schema {manifest['schema']!r}, this version reads {schema!r}: "
            f"make it anew with `{made_by}`"
        )
    if fingerprint is not None and (why := reason_stale(directory, fingerprint, schema)):
        raise StaleArtifact(f"{directory} was made from something else ({why}): make it anew with `{made_by}`")
    return manifest


def save_array(path: Path, array: np.ndarray) -> None:
    """A `.npy` file put in place by a rename: one that is there is whole."""
    import numpy as np  # not above: `pr2 --help` needs no arrays

    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        np.save(file, array)
    beside.replace(path)


def link_tree(source: Path, target: Path) -> None:
    """The same files at another place, as hard links where the file system has them; put in place by a rename.

    Finished files are only ever replaced, never written into, so both places stay as they are.
    """
    beside = _beside(target, "partial")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, copy_function=link_or_copy)
    beside.rename(target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """One file."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def writing(
    directory: Path,
    fingerprint: Fingerprint,
    schema: str,
    keep_partial: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Gives `DIR.partial` to write into; when the body ends well, that becomes `DIR` with a manifest.

    `facts`, which the body may still fill, join the manifest: counts, columns, whatever a reader needs to know.
    An exception removes it, unless `keep_partial`: then what a kill or an exception left is handed out again to the
    next attempt with the same fingerprint and schema (checkpoints live on in it), and wiped for any other.
    Raises BadInput where `DIR` holds files that no stage of ours made.
    """
    refuse_foreign(directory)
    partial = _beside(directory, "partial")
    claim = json.loads(_compact({"schema": schema, "fingerprint": fingerprint}))
    started = time.monotonic()
    if not (keep_partial and _left_by(partial) == claim):
        remove(partial)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        write_json(partial / IN_PROGRESS, claim)
        (partial / MANIFEST).unlink(missing_ok=True)  # of an attempt killed just before its rename
        yield partial
        spent = {"seconds": round(time.monotonic() - started, 3), "versions": versions()}
        write_json(partial / MANIFEST, dict(facts or {}) | spent | claim)
    except BaseException:
        if not keep_partial:
            remove(partial)
        raise
    (partial / IN_PROGRESS).unlink()
    swap_in(partial, directory)


def refuse_foreign(directory: Path) -> None:
    """BadInput where `directory` is a file or holds files that no stage of ours made: it would be replaced."""
    if directory.is_file():
        raise BadInput(f"{directory} is a file, expected a directory to write")
    if directory.exists() and not (directory / MANIFEST).exists() and any(directory.iterdir()):
        raise BadInput(f"{directory} exists and was not made by pr2: name another place or remove it")


def refuse_unknown(directory: Path, ours: Iterable[str]) -> None:
    """BadInput where a directory that will be replaced holds anything but what we write there."""
    strange = sorted({path.name for path in directory.iterdir()} - set(ours)) if directory.is_dir() else []
    if strange:
        raise BadInput(f"{directory} would be replaced, but holds {strange[0]}, which pr2 has not made: move it away")


@contextlib.contextmanager
def reading(directory: Path, command: str = "pr2 run") -> Iterator[None]:
    """StaleArtifact, naming the artifact to remove, where files in `directory`, or a part of one, cannot be read."""
    try:
        yield
    except Pr2Error:
        raise
    except Exception as error:  # each format has its own
        # A part removed alone would leave a manifest that still says "fresh".
        whole = next((place for place in (directory, *directory.parents) if (place / MANIFEST).exists()), directory)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StaleArtifact(
            f"{directory} is damaged ({first[:200]}): remove {whole} and make it anew with `{command}`"
        ) from error


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes `workdir` where needed and keeps every other process from writing into it. Pr2Error if one does.

    A directory made here in which nothing was written goes again."""
    new = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise BadInput(
            f"{workdir} cannot be used as the work directory ({error.strerror}): expected a directory, new or of pr2"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Pr2Error(
                f"{workdir} is in use by process {holder}: wait until it ends or take another --workdir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            if new and [path.name for path in workdir.iterdir()] == [".lock"]:  # nothing came of it
                remove(workdir)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape an artifact; those not installed are left out."""
    found = {"python": platform.python_version(), "pr2_jax": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f"{directory.name}.{suffix}")


def remove(directory: Path) -> None:
    """The manifest goes first, so that a removal cut short leaves nothing that looks whole."""
    (directory / MANIFEST).unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)


def _left_by(partial: Path) -> dict[str, Any] | None:
    """Schema and fingerprint of an attempt that was cut short, also between its manifest and its rename."""
    for name in (IN_PROGRESS, MANIFEST):
        try:
            left = json.loads((partial / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        return {"schema": left["schema"], "fingerprint": left["fingerprint"]}
    return None


def swap_in(partial: Path, directory: Path) -> None:
    """A full directory cannot be renamed over: the old one steps aside first and is removed last."""
    old = _beside(directory, "old")
    remove(old)
    if directory.exists():
        directory.rename(old)
    partial.rename(directory)
    remove(old)


def _manifest(directory: Path) -> dict[str, Any] | None:
    """None where there is no artifact; StaleArtifact where the manifest is not one of ours."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise StaleArtifact(f"{directory / MANIFEST} is not readable as JSON: remove {directory}") from None
    if not isinstance(manifest, dict) or not {"schema", "fingerprint"} <= manifest.keys():
        raise StaleArtifact(f"{directory / MANIFEST} has no schema and fingerprint: remove {directory}")
    return manifest
