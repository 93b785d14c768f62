"""What `pr2 bench` prints."""

from __future__ import annotations

import json

from pr2_jax.bench import tables

WORKLOADS = {"tables": tables.run}


def print_workload(name: str, repeats: int, as_json: bool) -> None:
    """Each result as soon as it is there: a line for people, or a JSON object."""
    for measured in WORKLOADS[name](repeats):
        print(json.dumps(measured.to_dict()) if as_json else measured.line(), flush=True)
