"""One of two processes that train the toy together; test_distributed.py starts them. Says what it found as JSON.

python process_of_two.py HOST:PORT INDEX DIRECTORY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import conftest
import jax
import numpy as np

from pr2_jax.errors import Pr2Error
from pr2_jax.training import distributed
from pr2_jax.training import mesh as meshes
from pr2_jax.training.checkpoint import load_params, save_params
from pr2_jax.training.loop import fit, init_state, make_step

SHAPES = [(4, 1), (1, 4)]
"""Two parts of the batch a process; and all of it on both, since the model axis spans them."""
STEPS = 6
SAVED_AT = 3


def share(step: int, rows=slice(None)) -> dict[str, np.ndarray]:
    """The toy's batch, or some rows of it."""
    return {name: array[rows] for name, array in conftest.toy_batch(step).items()}


def losses(toy, optim, mesh) -> list[float]:
    """Of each step, without the loop around it."""
    state, step = init_state(toy, optim, STEPS, mesh), make_step(toy, optim, STEPS, mesh)
    rows, frozen, found = meshes.local_rows(mesh, optim.batch), meshes.everywhere(mesh, toy.frozen), []
    for number in range(STEPS):
        state, metrics = step(state, frozen, meshes.place(mesh, toy.schema, share(number, rows)))
        found.append(float(metrics["loss"]))
    return found


def refusals(index: int) -> list[str]:
    """What each process is told when they differ, and when one of them cannot go on."""

    def broken():
        raise Pr2Error("the log is gone")

    def other_fact():
        return {"config": {"pdr": {"width": 16 * (1 + index)}}}

    said = []
    for attempt in (
        lambda: distributed.agree(other_fact),
        lambda: distributed.agree(broken if index == 1 else dict),
        lambda: distributed.first(broken),
    ):
        try:
            attempt()
        except Pr2Error as error:
            said.append(str(error))
    return said


def main(coordinator: str, index: int, directory: Path) -> None:
    distributed.start(distributed.Group(coordinator, 2, index))
    toy, optim = conftest.make_toy(), conftest.OPTIM
    found = {
        "devices": [jax.device_count(), jax.local_device_count()],
        "rows": [meshes.local_rows(meshes.make_mesh(*shape), 4).tolist() for shape in SHAPES],
        "losses": [losses(toy, optim, meshes.make_mesh(*shape)) for shape in SHAPES],
    }
    mesh = meshes.make_mesh(2, 2)
    distributed.first(directory.mkdir)
    state = fit(toy, share, optim, steps=STEPS, until=SAVED_AT, directory=directory, mesh=mesh)
    found["item"] = state.tables["item"].tolist()
    found["one_device"] = all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(state))
    save_params(directory, (state.params, state.tables))
    if index == 1:  # alone, as a stage that process 0 runs by itself would read a model
        read = load_params(directory, (state.params, state.tables))
        found["read"] = jax.tree.all(
            jax.tree.map(lambda a, b: bool((a == b).all()), read, (state.params, state.tables))
        )
    found["first"] = distributed.first(lambda: {"told": 7})
    found["refusals"] = refusals(index)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
