"""Several processes: how they are named, and that two of them train as one process does and refuse what differs."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

from pr2_jax.errors import BadConfig
from pr2_jax.training import distributed
from pr2_jax.training import mesh as meshes
from pr2_jax.training.checkpoint import Checkpoints
from pr2_jax.training.loop import fit, init_state, make_step

SCRIPT = Path(__file__).with_name("process_of_two.py")
STEPS, SAVED_AT = 6, 3


def test_two_processes_train_as_one(together, free_address, toy, optim, batch_at, tmp_path):
    """Losses of each step on two meshes, tables, what is read back, and what each is told when they differ."""
    directory = tmp_path / "run"
    done = together(*([str(SCRIPT), free_address, str(index), str(directory)] for index in (0, 1)))
    assert [status for status, _, _ in done] == [0, 0], done[0][2] + done[1][2]
    zero, one = (json.loads(out) for _, out, _ in done)  # and nothing else on stdout: Gloo would write there
    assert zero["devices"] == one["devices"] == [4, 2]
    assert [zero["rows"], one["rows"]] == [[[0, 1], [0, 1, 2, 3]], [[2, 3], [0, 1, 2, 3]]]
    alone = _losses(toy, optim, batch_at)
    for found in (zero, one):
        for losses in found["losses"]:
            np.testing.assert_allclose(losses, alone, rtol=1e-5)
        assert found["first"] == {"told": 7}
        assert found["one_device"]
    assert one["read"] is True
    there = "start all processes with the same version, command and work directory"
    both = [f"config.pdr.width is 16 on process 0 and 32 on process 1: {there}", "process 1: the log is gone"]
    assert zero["refusals"] == [*both, "the log is gone"]
    assert one["refusals"] == ["the log is gone" if said == both[1] else said for said in both] + [
        "process 0: the log is gone"
    ]
    _carries_on_alone(directory, zero, toy, optim, batch_at, tmp_path)


def _losses(toy, optim, batch_at) -> list[float]:
    mesh = meshes.make_mesh(4, 1, jax.devices()[:4])
    state, step = init_state(toy, optim, STEPS, mesh), make_step(toy, optim, STEPS, mesh)
    found = []
    for number in range(STEPS):
        state, metrics = step(state, toy.frozen, meshes.place(mesh, toy.schema, batch_at(number)))
        found.append(float(metrics["loss"]))
    return found


def _carries_on_alone(directory, zero, toy, optim, batch_at, tmp_path):
    """What two processes saved, one process reads, and ends where it would have alone."""
    assert [json.loads(line)["step"] for line in (directory / "curve.jsonl").read_text().splitlines()] == [SAVED_AT]
    (tmp_path / "alone").mkdir()
    part = fit(toy, batch_at, optim, steps=STEPS, until=SAVED_AT, directory=tmp_path / "alone")
    np.testing.assert_allclose(zero["item"], part.tables["item"], rtol=1e-5, atol=1e-7)
    checkpoints = Checkpoints(directory)
    assert checkpoints.steps[-1] == SAVED_AT
    checkpoints.close()
    whole = fit(toy, batch_at, optim, steps=STEPS, directory=tmp_path / "alone")
    resumed = fit(toy, batch_at, optim, steps=STEPS, directory=directory)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


FLAGS = ("node7:8476", 4, 3)
SLURM = {"SLURM_JOB_ID": "5000", "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_NODELIST": "gpu[007-010,12],x3"}
JOBSET = {"PR2_COORDINATOR": "train-worker-0-0.train:8476", "PR2_PROCESSES": "4", "JOB_COMPLETION_INDEX": "2"}


def test_processes_by_flags():
    assert distributed.group(*FLAGS, None, {}) == distributed.Group("node7:8476", 4, 3)


def test_nothing_is_found_unasked():
    """A shell inside an allocation has all the variables of a task."""
    assert distributed.group(None, None, None, None, SLURM | JOBSET) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[007-010,12],x3", "gpu007"),
        ("gpu7", "gpu7"),
        ("a,b", "a"),
        ("r[1-2]n[03,5]", "r1n03"),
        ("n-1[2]-ib,m", "n-12-ib"),
    ],
)
def test_slurm(nodes, first):
    found = distributed.group(None, None, None, "slurm", SLURM | {"SLURM_STEP_NODELIST": nodes})
    assert found == distributed.Group(f"{first}:{61_440 + 5_000 - 4_096}", 8, 5)


def test_jobset():
    found = distributed.group(None, None, None, "jobset", JOBSET)
    assert found == distributed.Group("train-worker-0-0.train:8476", 4, 2)


@pytest.mark.parametrize(
    ("asked", "environment", "said"),
    [
        (("node7:8476", None, None, None), {}, "--processes and --process missing: give --coordinator, --processes, "),
        ((None, 2, 0, None), {}, "--coordinator missing"),
        (("node7", 2, 0, None), {}, "--coordinator node7: expected HOST:PORT"),
        (("node7:", 2, 0, None), {}, "--coordinator node7:: expected HOST:PORT"),
        ((":8476", 2, 0, None), {}, "--coordinator :8476: expected HOST:PORT"),
        (("node7:70000", 2, 0, None), {}, "--coordinator node7:70000: expected HOST:PORT"),
        (("node7:8476", 2, 2, None), {}, "--process 2 of --processes 2: expected 0 to 1"),
        (("node7:8476", 2, -1, None), {}, "--process -1 of --processes 2: expected 0 to 1"),
        (("node7:8476", None, None, "tpu"), {}, "--distributed tpu finds the other processes itself: leave --coord"),
        ((None, None, None, "slurm"), {}, "SLURM_STEP_NODELIST is not set, which srun does"),
        ((None, None, None, "slurm"), SLURM | {"SLURM_PROCID": ""}, "SLURM_PROCID is not set"),
        ((None, None, None, "jobset"), JOBSET | {"PR2_PROCESSES": "four"}, "PR2_PROCESSES = 'four', expected a whole"),
    ],
)
def test_half_of_the_flags_and_wrong_ones_are_refused(asked, environment, said):
    with pytest.raises(BadConfig) as refused:
        distributed.group(*asked, environment)
    assert said in str(refused.value)


def test_one_process_is_none_at_all():
    distributed.start(distributed.Group("127.0.0.1:1", 1, 0))
    assert distributed.alone()
    assert distributed.is_first()
    assert distributed.first(lambda: object) is object
    assert distributed.agree(lambda: {"a": 1}) == {"a": 1}


def test_a_port_in_use_is_refused_before_jax_would_crash():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadConfig, match=rf"port {port} of this host cannot be used \(Address already in use\)"):
            distributed.start(distributed.Group(f"127.0.0.1:{port}", 2, 0))


@pytest.mark.parametrize("index", [0, 1])
def test_others_that_do_not_come_are_one_line(together, free_address, index):
    """One waits where nobody is, the other where nobody comes."""
    address = free_address
    code = f"from pr2_jax.training import distributed as d; d.start(d.Group('{address}', 2, {index}), wait_s=1)"
    [(status, out, err)] = together(["-c", code])
    assert (status, out) == (2, "")
    who = f"not all 2 processes came to {address}" if index == 0 else f"process 1 finds no process 0 at {address}"
    assert err.splitlines() == [
        f"pr2: error: {who} within 1 s: see whether each was started, with the same --coordinator and --processes, "
        "and whether hosts can reach each other"
    ]


MEETING = """
import os, signal, sys
import numpy as np
from jax.experimental import multihost_utils
from pr2_jax.training import distributed as d
index = int(sys.argv[2])
d.start(d.Group(sys.argv[1], 2, index))
with d.company():
    for step in range(100):
        multihost_utils.process_allgather(np.array(step))
        if (step, index) == (3, 1):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_whose_peer_is_killed_ends_with_one_line(together, free_address):
    """At once, not after the minutes that JAX gives a lost process; nothing was printed by Gloo or by an abort."""
    (status, out, err), killed = together(*(["-c", MEETING, free_address, str(index)] for index in (0, 1)))
    assert killed[0] == -signal.SIGKILL
    assert (status, out) == (2, "")
    assert re.fullmatch(
        r"pr2: error: another process has gone \(.+\): see its log; the same command carries on\n", err
    ), err
