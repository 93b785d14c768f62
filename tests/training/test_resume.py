"""A run that was killed, stopped or moved to other devices ends as if nothing had happened.

As a script, `test_resume.py DIRECTORY WAY...`, it is the process that trains and ends in the last of these ways.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pr2_jax import console
from pr2_jax.config import OptimConfig
from pr2_jax.errors import Pr2Error
from pr2_jax.training.checkpoint import Checkpoints
from pr2_jax.training.loop import abstract_state, fit, run_facts
from pr2_jax.training.mesh import make_mesh

STEPS, EPOCH = 10, 5
OPTIM = OptimConfig(batch=4, learning_rate=0.05, table_learning_rate=0.05, checkpoint_every=4, seed=3)
EPOCH_OPTIM = dataclasses.replace(OPTIM, checkpoint_every=EPOCH)
SMALLEST_FILE = 3_000  # bytes: less than the table takes, more than the curve
KILLED = {
    "between saves": [4],
    "inside a save": [4],
    "inside the last save": [4, 8],
    "at an epoch's end": [EPOCH],
}
"""The whole checkpoints that each kill leaves; the run goes on from the last."""
PROCESSES = (
    ["between saves"],
    ["inside a save"],
    ["inside the last save"],
    ["sigterm", "full disk", "at an epoch's end"],
)


def epoch_batch(step: int) -> dict[str, np.ndarray]:
    """Batches of a data set that is shuffled anew every epoch."""
    epoch, number = divmod(step, EPOCH)
    order = np.random.default_rng([7, epoch]).permutation(EPOCH * 4)
    rows_B = order[number * 4 : number * 4 + 4]
    return {"item_B": (rows_B % 7).astype(np.int32), "label_B": (rows_B / 10).astype(np.float32)}


def train_until_the_end(toy, toy_batch, directory: Path, way: str) -> None:
    """In a process of its own. Batches are built up to three steps ahead, in a thread: it is this thread that acts."""
    directory.mkdir()
    kill_at = {"between saves": 6, "at an epoch's end": EPOCH}.get(way)
    kill_before = {"inside a save": "8", "inside the last save": str(STEPS)}.get(way)
    batches, optim = (epoch_batch, EPOCH_OPTIM) if "epoch" in way else (toy_batch, OPTIM)

    def batch_at(step: int) -> dict[str, np.ndarray]:
        if step in (kill_at, 7):
            wait_for(directory / "checkpoints" / str(KILLED.get(way, [4])[0]))
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 6 and way == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if step == 7 and way == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_FILE, resource.RLIM_INFINITY))
        return batches(step)

    def before_anything(event: str, arguments: tuple) -> None:
        if event == "os.rename" and Path(os.fsdecode(arguments[1])) == directory / "checkpoints" / str(kill_before):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(before_anything)
    fit(toy, batch_at, optim, steps=STEPS, directory=directory)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> tuple[Path, dict[str, list]]:
    """Every way to end: the place of their directories; of each process exit status and what it said."""
    root = tmp_path_factory.mktemp("ended")
    settings = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),  # compiled as in this process, or bits would differ
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(root), *ways],
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ways in PROCESSES
    ]  # all at once: most of it is start-up
    said = [process.communicate(timeout=240) for process in running]
    results = {}
    for ways, process, (out, err) in zip(PROCESSES, running, said, strict=True):
        results |= dict.fromkeys(ways, (process.returncode, out.splitlines(), err))
    return root, results


@pytest.fixture
def unbroken(toy, batch_at, tmp_path):
    """(state, curve) of the run that nothing happened to."""

    def unbroken(batches=batch_at, optim=OPTIM):
        directory = _made(tmp_path / "unbroken")
        return fit(toy, batches, optim, steps=STEPS, directory=directory), (directory / "curve.jsonl").read_bytes()

    return unbroken


def _resumed(toy, batches, optim, directory: Path):
    """(state, curve, the steps whose batches were asked for)."""
    asked: list[int] = []
    state = fit(toy, lambda step: asked.append(step) or batches(step), optim, steps=STEPS, directory=directory)
    return state, (directory / "curve.jsonl").read_bytes(), asked


@pytest.mark.parametrize("way", KILLED)
def test_killed_and_resumed_is_unbroken(way, ended, unbroken, toy, batch_at, same):
    """SIGKILL; the same call then ends in the same parameters, tables, optimisers, step and curve, bit for bit."""
    root, results = ended
    status, _, err = results[way]
    assert status == -signal.SIGKILL, err
    found = {path.name for path in (root / way / "checkpoints").iterdir()}
    assert {int(name) for name in found if name.isdigit()} == set(KILLED[way])
    assert (len(found) > len(KILLED[way])) == way.startswith("inside"), "the half-written step"
    batches, optim = (epoch_batch, EPOCH_OPTIM) if "epoch" in way else (batch_at, OPTIM)
    state, curve, asked = _resumed(toy, batches, optim, root / way)
    expected_state, expected_curve = unbroken(batches, optim)
    assert asked == list(range(KILLED[way][-1], STEPS))
    assert same(expected_state, state)
    assert expected_curve == curve
    assert all(path.name.isdigit() for path in (root / way / "checkpoints").iterdir())


def test_sigterm_saves_and_says_so(ended, unbroken, toy, batch_at, same):
    root, results = ended
    _, out, err = results["sigterm"]
    told = re.fullmatch(rf"Stopped: stopped by SIGTERM after saving step (\d+) of {STEPS}", out[0])
    assert told, err
    assert 4 <= int(told[1]) <= 7, "the running step, while the batch of step 7 is made"
    state, curve, asked = _resumed(toy, batch_at, OPTIM, root / "sigterm")
    expected_state, expected_curve = unbroken()
    assert asked[0] == int(told[1])
    assert same(expected_state, state)
    assert expected_curve == curve


def test_a_full_disk_is_one_line_and_older_checkpoints_are_whole(ended, unbroken, toy, batch_at, same):
    """A real limit, on the size of a file: it works without root, and the kernel's error takes the same way."""
    root, results = ended
    _, out, err = results["full disk"]
    assert re.fullmatch(
        rf"Pr2Error: {root / 'full disk'} cannot be written \(File too large\): a checkpoint takes up to 0\.0 MB, "
        r"[\d,.]+ MB are free; older checkpoints are whole, so make room and run the same command again",
        out[1],
    )
    assert err == "", "no traceback of a library's thread"
    state, curve, asked = _resumed(toy, batch_at, OPTIM, root / "full disk")
    expected_state, expected_curve = unbroken()
    assert asked[0] == 4
    assert same(expected_state, state)
    assert expected_curve == curve


def test_saved_on_eight_devices_and_resumed_on_fewer(toy, batch_at, same, tmp_path):
    """What is loaded has the same bits on any number of devices; training goes on alike."""
    eight = tmp_path / "8"
    saved = fit(toy, batch_at, OPTIM, steps=STEPS, until=5, directory=_made(eight), mesh=make_mesh(4, 2))
    losses, states = [], []
    for data, model in ((1, 1), (2, 1), (2, 2)):
        mesh = make_mesh(data, model, jax.devices()[: data * model])
        directory = tmp_path / f"{data}x{model}"
        shutil.copytree(eight, directory)
        shapes = abstract_state(toy, OPTIM, STEPS, mesh)
        with Checkpoints(directory, run_facts(toy, OPTIM, STEPS, shapes)) as checkpoints:
            loaded = checkpoints.restore(shapes)
        assert same(loaded, saved)
        assert len(loaded.tables["item"].sharding.device_set) == mesh.size
        states.append(fit(toy, batch_at, OPTIM, steps=STEPS, directory=directory, mesh=mesh))
        losses.append(json.loads((directory / "curve.jsonl").read_text().splitlines()[-1])["loss"])
    np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-5)
    for state in states[1:]:
        for one, other in zip(jax.tree.leaves(states[0]), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _main(root: Path, ways: list[str]) -> None:
    """Ends in each of the ways; the error of one that does not kill is a line of the output."""
    from conftest import Toy, toy_batch

    console.silence_libraries()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for way in ways:
        try:
            train_until_the_end(Toy(jnp.linspace(-1.0, 1.0, 7)), toy_batch, root / way, way)
        except Pr2Error as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
