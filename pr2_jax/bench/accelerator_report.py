"""What accelerator.py has found so far, as one JSON file and a Markdown table, both replaced as a whole each time."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from pr2_jax import __version__, artifacts

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
SCHEMA = 1


class Report:
    """States and findings of the parts. Any thread may call it."""

    def __init__(self, directory: Path, names: Sequence[str], budget_s: float):
        self._directory, self._started, self._lock = directory, time.monotonic(), threading.RLock()
        self._parts = {name: {"name": name, "state": "waiting", "seconds": 0.0, "found": []} for name in names}
        self._said = {
            "schema": SCHEMA,
            "device": _device(),
            "versions": _versions(),
            "budget_s": budget_s,
            "finished": False,
        }
        self._began = 0.0
        self._write()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def status(self) -> int:
        """1 where a check does not hold or a part failed, else 0."""
        return int(not self.to_dict()["ok"])

    def begin(self, name: str) -> None:
        with self._lock:
            self._began = time.monotonic()
            self._set(name, "running")

    def add(self, name: str, found: dict[str, Any]) -> None:
        with self._lock:
            self._parts[name]["found"].append(found)
            self._set(name, "running")

    def end(self, name: str) -> None:
        self._set(name, "done")

    def fail(self, name: str, why: str) -> None:
        self._set(name, "failed", why)

    def skip(self, name: str, why: str) -> None:
        self._set(name, "skipped", why)

    def cut_off(self, why: str) -> None:
        """Ends the report while a part runs. The caller ends the process."""
        self._lock.acquire()  # for good: the running part has no more to say
        for name, part in self._parts.items():
            if part["state"] in ("running", "waiting"):
                self._set(name, "cut off" if part["state"] == "running" else "skipped", why)
        self.finish()

    def finish(self) -> None:
        with self._lock:
            self._said["finished"] = True
            self._write()
            print(f"{self._directory / 'accelerator.md'}: {self.elapsed_s():.0f} s", flush=True)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        with self._lock:
            parts = list(self._parts.values())
            checks = [found for part in parts for found in part["found"] if "holds" in found]
            ok = all(check["holds"] for check in checks) and all(part["state"] != "failed" for part in parts)
            return {**self._said, "ok": ok, "elapsed_s": self.elapsed_s(), "parts": parts}

    def _set(self, name: str, state: str, why: str = "") -> None:
        with self._lock:
            part = self._parts[name]
            part["seconds"] = time.monotonic() - self._began if part["state"] == "running" else 0.0
            part["state"] = state
            if why:
                part["why"] = why
            self._write()
            if state != "running":
                print(f"{self.elapsed_s():6.1f} s  {name}: {state}{why and f': {why}'}", flush=True)

    def _write(self) -> None:
        document = self.to_dict()
        artifacts.write_text(self._directory / "accelerator.json", json.dumps(document, indent=1) + "\n")
        artifacts.write_text(self._directory / "accelerator.md", "\n".join(_markdown(document)) + "\n")


def _device() -> dict[str, Any]:
    device = jax.local_devices()[0]
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "devices": jax.local_device_count(),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "host_cpus": os.cpu_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "pr2_jax": __version__} | {
        name: metadata.version(name) for name in LIBRARIES
    }


def _markdown(document: dict[str, Any]) -> Iterator[str]:
    device, found = document["device"], [(part, one) for part in document["parts"] for one in part["found"]]
    yield f"# {device['kind']}"
    yield ""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    yield f"{versions}; {document['elapsed_s']:.0f} s; {'all checks hold' if document['ok'] else 'NOT OK'}."
    yield ""
    yield "| check against float64 | precision | greatest error | tolerance | |"
    yield "|---|---|--:|--:|---|"
    for _, one in found:
        if "holds" in one:
            holds = "holds" if one["holds"] else "**does not hold**"
            yield f"| {one['name']} | {one['precision']} | {one['error']:.1e} | {one['tolerance']:.0e} | {holds} |"
    yield ""
    yield "Bytes and FLOPs are what a step must cost; shares are of the copy's and of the matrix product's rate."
    yield ""
    yield (
        "| workload | variant | compute | size | ms a step | rows/s | MB | GFLOP | GB/s | of copy | GFLOP/s | "
        "of product | compile s | note |"
    )
    yield "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
    best = {one["variant"]: one for _, one in found if one.get("workload") == "ceiling"}
    for _, one in found:
        if "step_s" in one:
            yield _row(one, best)
    yield ""
    yield "| part | state | seconds | |"
    yield "|---|---|--:|---|"
    for part in document["parts"]:
        yield f"| {part['name']} | {part['state']} | {part['seconds']:.1f} | {part.get('why', '')} |"


def _row(one: dict[str, Any], best: dict[str, dict[str, Any]]) -> str:
    def share(key: str, of: str) -> str:
        return f"{one[key] / best[of][key]:.1%}" if of in best else ""

    size = " ".join(f"{name}={value:,}" for name, value in one["size"].items())
    cells = [one["workload"], one["variant"], one["compute"], size, f"{one['step_s'] * 1e3:.2f}"]
    cells += [f"{one['rows_per_s']:,.0f}", f"{one['must_bytes'] / 1e6:,.1f}", f"{one['must_flops'] / 1e9:,.2f}"]
    cells += [f"{one['must_bytes_per_s'] / 1e9:,.1f}", share("must_bytes_per_s", "copy")]
    cells += [f"{one['must_flops_per_s'] / 1e9:,.1f}", share("must_flops_per_s", one["compute"])]
    cells += [f"{one['compile_s']:.1f}", one["note"]]
    return f"| {' | '.join(cells)} |"
