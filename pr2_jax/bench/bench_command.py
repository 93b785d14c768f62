"""The command `pr2 bench`."""

from __future__ import annotations

import json

import jax

from pr2_jax.bench import feed_workload, kill_and_resume, qrcf_workload, step_workloads, table_workload

WORKLOADS = {
    "tables": table_workload.run,
    "pdr": step_workloads.pdr,
    "qin": step_workloads.qin,
    "qrcf": qrcf_workload.run,
    "feed": feed_workload.run,
}


def print_workload(name: str, repeats: int, as_json: bool) -> None:
    """Prints each result once measured, as a line or as JSON. Compile time is part of it, so no cache is used."""
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        for measured in WORKLOADS[name](repeats):
            print(json.dumps(measured.to_dict()) if as_json else measured.line(), flush=True)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)


def print_kills(kills: int, seed: int, as_json: bool) -> bool:
    """Kills runs at random moments and prints each; whether all resumed runs ended as the unbroken one."""
    identical = 0
    for kill in kill_and_resume.run(kills, seed):
        identical += kill.identical
        print(json.dumps(kill.to_dict()) if as_json else kill.line(), flush=True)
    summary = {"workload": "resume", "kills": kills, "identical": identical}
    print(json.dumps(summary) if as_json else f"{identical} of {kills} bit-identical", flush=True)
    return identical == kills
