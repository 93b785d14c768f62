"""The ground that every test stands on: 8 CPU devices, strict shapes, warnings as errors (pyproject), fixed seeds."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from pr2_jax import console
from pr2_jax.config import Config, loader

REPOSITORY = Path(__file__).resolve().parents[1]


def _compilation_cache() -> str:
    """`.cache/jax` of the checkout, kept between runs; a temporary directory where the checkout is read-only."""
    if os.access(REPOSITORY, os.W_OK):
        return str(REPOSITORY / ".cache" / "jax")
    return str(Path(tempfile.gettempdir()) / f"pr2-test-cache-{os.getuid()}")


# Before any array is made, which settles the number of devices and reads the flags. Compiling is most of the suite's
# time: the older emitters of loops take a third less of it, one piece a program is less than many, and without
# optimisations it halves.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", _compilation_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

console.silence_libraries(warnings_too=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file that needs the finished work directory, then those that do not, then the rest of those that do.

    So one worker makes the directory while the other need not wait for it (launch/test.sh keeps this order). The last
    files are short: long ones would leave a worker idle at the end.
    """
    needy = sorted({item.path for item in items if "finished" in item.fixturenames}, reverse=True)
    place = {path: number for number, path in enumerate(needy)}
    items.sort(key=lambda item: (2 * min(place[item.path], 1), place[item.path]) if item.path in place else (1, 0))


@pytest.fixture(autouse=True, scope="module")
def _programs_of_ones_own_are_forgotten(request: pytest.FixtureRequest) -> Iterator[None]:
    """Else a worker ends with gigabytes of them. Those of the finished work directory's models serve many files."""
    yield
    if not any("finished" in item.fixturenames for item in request.session.items if item.path == request.path):
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """For whatever draws from a global generator; ours never do."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture
def free_address() -> str:
    """HOST:PORT where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def together():
    """Runs Python commands beside each other, with two CPU devices each; (status, stdout, stderr) of each."""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": _compilation_cache(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONPATH": str(REPOSITORY),
    }

    def together(*commands: list[str]) -> list[tuple[int, str, str]]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with contextlib.ExitStack() as stack:
            started = []
            for command in commands:
                process = subprocess.Popen([sys.executable, *command], env=os.environ | settings, **pipes)
                started.append(stack.enter_context(process))  # which waits for it on the way out,
                stack.callback(process.kill)  # once it has been killed
            said = [process.communicate(timeout=240) for process in started]
        return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]

    return together


MICRO = """
    data.query_tokens=4 data.caption_tokens=8 mesh.data=2 mesh.model=4
    world.users=100 world.videos=400 world.creators=40 world.days=4 world.topics=4 world.subtopics=2
    world.content_width=8 content.width=16 content.hidden=16
    pdr.width=16 pdr.hidden=16 pdr.heads=2 pdr.history=16 pdr.hard_rank_from=10 pdr.hard_rank_to=50
    qin.width=16 qin.heads=2 qin.experts=2 qin.expert_width=16
    qin.history=16 qin.keep_query=8 qin.keep_video=4 qin.realtime=8
    base.width=16 base.heads=2 base.experts=2 base.expert_width=16
    base.history=16 base.keep_query=8 base.keep_video=4 base.realtime=8
    retrieval.depth=200 retrieval.qrcf.neighbours=40 search.clicked=withhold
    evaluation.bootstrap=50 search.candidates=64 evaluation.probe_sessions=6
"""
STEPS = "{0}.optim.max_steps=8 {0}.optim.checkpoint_every=8 {0}.optim.batch=16"


@pytest.fixture(scope="session")
def micro_arguments() -> list[str]:
    """What makes `pr2 run` end in seconds, on the command line: quickstart's tiny world, smaller still."""
    models = ("content", "preference", "pdr", "qin", "base")
    fields = MICRO.split() + [field for model in models for field in STEPS.format(model).split()]
    fields.append("pdr.optim.checkpoint_every=3")  # which a test kills between two
    config = f"{REPOSITORY / 'configs' / 'quickstart.py'}:tiny"
    return ["--config", config, *(f"{loader.PREFIX}{field}" for field in fields)]


@pytest.fixture(scope="session")
def micro_config(micro_arguments) -> Config:
    return loader.load(micro_arguments[1], micro_arguments[2:])


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`shared(name, make)`: a directory that one worker makes and all read. Copy it before changing anything in it."""

    def shared(name: str, make: Callable[[Path], None]) -> Path:
        place = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:  # a directory of the worker's own, in that of the run
            place = place.parent
        with (place / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if lock.seek(0, os.SEEK_END) == 0:  # who comes second finds it made
                make(place / name)
                lock.write("made")
        return place / name

    return shared


@pytest.fixture(scope="session")
def finished(shared, micro_config) -> Path:
    """A work directory in which every stage has been made."""
    from pr2_jax import pipeline  # not above: few tests need the stages, and importing them takes seconds

    return shared("finished", lambda place: pipeline.run(place, micro_config, None))


@pytest.fixture
def finished_alone(finished) -> Iterator[Path]:
    """It, for commands that lock it: a second worker waits."""
    with finished.with_name("finished.turn").open("a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield finished


@pytest.fixture(scope="module")
def on_one_device() -> Iterator[None]:
    """Stages train on one device, which compiles sooner: for what has nothing to do with a mesh."""
    from pr2_jax.stages import train_content, train_pdr, train_preference, train_qin
    from pr2_jax.training.mesh import single

    with pytest.MonkeyPatch.context() as patch:
        for stage in (train_content, train_preference, train_pdr, train_qin):
            patch.setattr(stage, "configured", lambda mesh: single())
        yield
