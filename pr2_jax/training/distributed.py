"""Several processes: how they find each other, agree before they train, and wait for process 0.

They share one work directory. All train together; process 0 does everything else (`first`) while the others wait at
barriers of the coordination service. Collectives would give up after minutes, and an evaluation may take an hour.

With one process, the ordinary case, every function here does its work and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from pr2_jax import artifacts, console
from pr2_jax.errors import BadConfig, Pr2Error

T = TypeVar("T")

START_S, AGREE_S = 300, 600
"""How long the processes wait for each other when they start, and between two stages."""
STAGE_S = 24 * 3600
"""How long they wait for process 0. A process that dies is noticed long before, by its missing heartbeat."""
LEAVE_S = 60
"""How long after the first process the last one may end, before it is ended."""

_barriers = itertools.count()  # all processes meet in one order, so that a number names a barrier


@dataclasses.dataclass(frozen=True)
class Group:
    """The processes of a run, and this one's place among them."""

    coordinator: str  # HOST:PORT of process 0
    processes: int
    process: int

    def __post_init__(self) -> None:
        port = self.coordinator.rpartition(":")[2]
        if not re.fullmatch(r".+:\d{1,5}", self.coordinator) or not 0 < int(port) < 2**16:
            raise BadConfig(f"--coordinator {self.coordinator}: expected HOST:PORT of process 0, as in node7:8476")
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise BadConfig(
                f"--process {self.process} of --processes {self.processes}: expected 0 to {max(self.processes - 1, 0)}"
            )


def group(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    found_by: str | None,
    environment: Mapping[str, str],
) -> Group | None:
    """The processes that a command's flags name, or those of `--distributed slurm|jobset`.

    None = this one alone, and also for `tpu`, where JAX asks the machine itself. Never found unasked: a shell inside a
    SLURM allocation looks like one of its tasks. BadConfig where flags or variables are missing or clash.
    """
    flags = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in flags.items() if value is None]
    if found_by is not None and len(missing) < len(flags):
        given = next(name for name, value in flags.items() if value is not None)
        raise BadConfig(f"--distributed {found_by} finds the other processes itself: leave {given} out")
    if 0 < len(missing) < len(flags):
        raise BadConfig(f"{' and '.join(missing)} missing: give {', '.join(flags)} together, or none of them")
    if found_by in (None, "tpu"):
        return None if missing else Group(coordinator, processes, process)
    return {"slurm": _slurm, "jobset": _jobset}[found_by](environment)


def _slurm(environment: Mapping[str, str]) -> Group:
    """One process a task of `srun`; process 0 is on the first node, at a port made from the job's number."""
    nodes = _variable(environment, "SLURM_STEP_NODELIST", "srun")
    job, size, index = (_number(environment, name, "srun") for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID"))
    one = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)[0]  # `node[001-004,7],other` -> `node[001-004,7]`
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", one)
    return Group(f"{host}:{61_440 + job % 4_096}", size, index)


def _jobset(environment: Mapping[str, str]) -> Group:
    """One process a pod of an indexed Job; launch/jobset.yaml sets what Kubernetes does not."""
    by = "launch/jobset.yaml"
    coordinator, processes = _variable(environment, "PR2_COORDINATOR", by), _number(environment, "PR2_PROCESSES", by)
    return Group(coordinator, processes, _number(environment, "JOB_COMPLETION_INDEX", "an Indexed Job"))


def _variable(environment: Mapping[str, str], name: str, set_by: str) -> str:
    value = environment.get(name)
    if not value:
        raise BadConfig(f"--distributed: {name} is not set, which {set_by} does: start pr2 from there")
    return value


def _number(environment: Mapping[str, str], name: str, set_by: str) -> int:
    value = _variable(environment, name, set_by)
    if not (value.isascii() and value.isdigit()):
        raise BadConfig(f"--distributed: {name} = {value!r}, expected a whole number")
    return int(value)


def start(members: Group | None, found_by: str | None = None, wait_s: float = START_S) -> None:
    """Joins the other processes, if any; to be called before anything else of JAX.

    Where they do not come within `wait_s` the process ends with one line and exit status 2: JAX would abort it.
    """
    if found_by != "tpu" and (members is None or members.processes == 1):
        return
    settings: dict[str, Any] = {
        "cluster_detection_method": "gketpu" if "TPU_WORKER_HOSTNAMES" in os.environ else "gcetpu"
    }
    if members is not None:
        host, _, port = members.coordinator.rpartition(":")
        settings = {
            "coordinator_address": members.coordinator,
            "num_processes": members.processes,
            "process_id": members.process,
            "cluster_detection_method": "deactivate",
        }
        if host in ("localhost", "127.0.0.1"):  # the service must not listen to the whole network
            settings["coordinator_bind_address"] = members.coordinator
        if members.process == 0:
            _refuse_taken(int(port))
    console.keep_stdout_clean()
    timer = threading.Timer(wait_s, _give_up, (members, wait_s))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **settings, initialization_timeout=int(wait_s) + LEAVE_S, shutdown_timeout_seconds=LEAVE_S
        )
    except ValueError as error:
        raise BadConfig(f"--distributed {found_by}: this machine does not tell of other processes ({error})") from None
    finally:
        timer.cancel()
    if not is_first():
        console.keep_quiet()


def _refuse_taken(port: int) -> None:
    """BadConfig where another program listens at the port: JAX's service would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise BadConfig(f"--coordinator: port {port} of this host cannot be used ({error.strerror})") from None


def _end(message: str) -> NoReturn:
    """Ends the process with one line, from any thread: the main one may be held in C++, which would abort."""
    print(f"pr2: error: {message}", file=sys.stderr, flush=True)
    os._exit(2)


def _give_up(members: Group | None, wait_s: float) -> None:
    if members is None:
        message = "the other processes of this TPU slice did not come"
    elif members.process == 0:
        message = f"not all {members.processes} processes came to {members.coordinator}"
    elif _answers(members.coordinator):
        message = f"process 0 is at {members.coordinator}, but not all {members.processes} processes came"
    else:
        message = f"process {members.process} finds no process 0 at {members.coordinator}"
    _end(
        f"{message} within {wait_s:g} s: see whether each was started, with the same --coordinator and --processes, "
        "and whether hosts can reach each other"
    )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Ends this process with one line where another one has gone: whatever waits for it would never return."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if alone() or not re.search(r"gloo|nccl|connection|coordination|heartbeat|preempt", str(error), re.IGNORECASE):
            raise
        first_line = str(error).splitlines()[0][:160]
        _end(f"another process has gone ({first_line}): see its log; the same command carries on")


def alone() -> bool:
    """Whether this is the only process. Asks no device."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
    """Whether this is process 0, which alone logs, reports and puts directories in place."""
    return alone() or jax.process_index() == 0


def first(do: Callable[[], T]) -> T:
    """Calls `do` on process 0 and returns its result, fit for JSON, on every process. All processes have to come."""
    if alone():
        return do()
    mine, everyone = _outcomes(do if is_first() else lambda: None, STAGE_S)
    return mine if is_first() else everyone[0]


def agree(facts: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The result of `facts`, equal on every process; BadConfig, naming both sides, where one differs."""
    if alone():
        return facts()
    mine, everyone = _outcomes(facts, AGREE_S)
    for process, theirs in enumerate(everyone):
        if changes := artifacts.differences(everyone[0], theirs):
            path, here, there = changes[0]
            raise BadConfig(
                f"{path} is {json.dumps(here)} on process 0 and {json.dumps(there)} on process {process}: start all "
                "processes with the same version, command and work directory"
            )
    return mine


def _outcomes(do: Callable[[], T], timeout_s: float) -> tuple[T, list[Any]]:
    """The result of `do` here, and those of all processes. An error on one process is raised on all of them."""
    mine, failure, message = None, None, None
    try:
        mine = do()
    except BaseException as error:  # raised again once the others know
        failure = error
        message = str(error) if isinstance(error, Pr2Error) else f"{type(error).__name__}: {error}"
    everyone = _gathered([mine, message], timeout_s)
    if failure is not None:
        raise failure
    for process, (_, error) in enumerate(everyone):
        if error is not None:
            raise Pr2Error(f"process {process}: {error}")
    return mine, [theirs for theirs, _ in everyone]


def _gathered(value: Any, timeout_s: float) -> list[Any]:
    """The values of all processes. Pr2Error where one does not come in time."""
    _meet(timeout_s)
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(text), np.int32))
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)  # few sizes, so that few programs are compiled
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _meet(timeout_s: float) -> None:
    """Returns once every process is here. For the main thread only, which meets in one order everywhere."""
    try:
        multihost.get_barrier_sync_fn()(key=f"pr2-{next(_barriers)}", timeout_ms=int(timeout_s * 1000))
    except jax.errors.JaxRuntimeError as error:
        late = re.findall(r"^\s*(?:\S*task:)?(\d+)\s*$", str(error).partition("task names:")[2], re.MULTILINE)
        who = f"process {', '.join(late)}" if late else "another process"
        raise Pr2Error(f"{who} did not come within {timeout_s:g} s to where the others wait: see its log") from error
