"""The scripts that start several processes: what each process is told, and how one end becomes the end of all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml  # flax and orbax depend on it

BASH = shutil.which("bash")
CONFIG = ["--config", "configs/kuaisar.py", "--config.pdr.width=8", "--workdir", "work/a b"]
SIMULATED = """\
#!/bin/bash
case "$1" in
    config) echo "config: $*" >&2 ;;
    *)
        echo "$* gpus=${CUDA_VISIBLE_DEVICES-none}" >>told
        index=${*: -1}
        eval "$PR2_BODY"
        ;;
esac
"""


@pytest.fixture
def checkout(tmp_path, repository) -> Path:
    """The scripts over a `pr2` that notes what it was told and then does what PR2_BODY says."""
    shutil.copytree(repository / "launch", tmp_path / "launch")
    ready = tmp_path / "launch" / "environment.sh"
    ready.write_text(ready.read_text().replace("prepare_environment || exit $?", ""))
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "pr2").write_text(SIMULATED)
    (bin_ / "python").symlink_to(shutil.which("python3"))
    (bin_ / "srun").write_text('#!/bin/bash\n[ "$1" = --kill-on-bad-exit=1 ] && shift\nexec "$@"\n')
    (bin_ / "scontrol").write_text('#!/bin/bash\necho "scontrol $*" >>told\n')
    for tool in ("pr2", "srun", "scontrol"):
        (bin_ / tool).chmod(0o755)
    return tmp_path


def _start(checkout: Path, script: str, *arguments: str, body: str = "true", **environment) -> subprocess.Popen:
    settings = {"PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}", "PR2_BODY": body, "PR2_GRACE_S": "1"}
    return subprocess.Popen(
        [BASH, str(checkout / "launch" / script), *arguments],
        env=settings | {"JAX_PLATFORMS": "cpu"} | environment,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(*arguments, **options) -> tuple[int, str, str]:
    process = _start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def _told(checkout: Path) -> list[str]:
    return sorted((checkout / "told").read_text().splitlines(), key=lambda line: line.partition("--process ")[2])


def _until_told(checkout: Path, line: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while not (checkout / "told").exists() or _told(checkout).count(line) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_process_is_told_of_all(checkout):
    status, _, err = _run(checkout, "train.sh", "--processes", "3", "run", *CONFIG, "--input", "--odd")
    assert status == 0
    assert err == f"config: config {' '.join(CONFIG)}\n"
    told = _told(checkout)
    port = re.search(r"127\.0\.0\.1:(\d+)", told[0])[1]
    asked = f"run {' '.join(CONFIG)} --input --odd --coordinator 127.0.0.1:{port} --processes 3"
    assert told == [f"{asked} --process {index} gpus=none" for index in range(3)]


def test_one_process_is_told_of_none(checkout):
    assert _run(checkout, "train.sh", "train", "pdr", *CONFIG, body="exit 5")[0] == 5
    assert _told(checkout) == [f"train pdr {' '.join(CONFIG)} gpus=none"]


def test_gpus_are_shared_out(checkout):
    options = {"JAX_PLATFORMS": "", "CUDA_VISIBLE_DEVICES": "0,2,5,7"}
    assert _run(checkout, "train.sh", "--processes", "2", "run", *CONFIG, **options)[0] == 0
    assert [line.rpartition("=")[2] for line in _told(checkout)] == ["0,2", "5,7"]
    status, _, err = _run(checkout, "train.sh", "--processes", "3", "run", *CONFIG, **options)
    assert status == 2
    assert "launch: error: 4 GPUs do not share out over 3 processes; take a divisor of 4" in err


@pytest.mark.parametrize("arguments", [(), ("--processes",), ("--processes", "0", "run"), ("--processes", "2")])
def test_wrong_use_is_one_clear_line(checkout, arguments):
    status, out, err = _run(checkout, "train.sh", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("launch: error: expected [--processes N] run|train")
    assert not (checkout / "told").exists()


def test_a_failure_ends_the_others_also_one_that_heeds_nothing(checkout):
    """The second fails; the first would wait on, and does not heed TERM, as inside a collective."""
    body = "trap '' TERM; if [ $index = 1 ]; then exit 7; fi; for n in {1..300}; do sleep 0.1; done; echo waited >>told"
    assert _run(checkout, "train.sh", "--processes", "2", "run", *CONFIG, body=body)[0] == 7
    assert "waited" not in _told(checkout)


@pytest.mark.parametrize("script", ["train.sh", "train.slurm"])
def test_term_reaches_every_process_which_may_take_its_time(checkout, script):
    """Each saves for longer than the signal takes, and ends as it likes."""
    body = "trap 'sleep 0.3; echo saved >>told; exit 0' TERM; echo ready >>told; for n in {1..300}; do sleep 0.1; done"
    several = ("--processes", "2") if script == "train.sh" else ()
    process = _start(checkout, script, *several, "run", *CONFIG, body=body, SLURM_JOB_ID="12")
    count = 2 if several else 1
    _until_told(checkout, "ready", count)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert _told(checkout).count("saved") == count
    assert ("scontrol requeue 12" in _told(checkout)) == (script == "train.slurm")


def test_a_second_interrupt_kills(checkout):
    body = "trap 'echo deaf >>told' TERM; echo ready >>told; for n in {1..300}; do sleep 0.1; done"
    process = _start(checkout, "train.sh", "--processes", "2", "run", *CONFIG, body=body)
    _until_told(checkout, "ready", 2)
    process.send_signal(signal.SIGINT)
    _until_told(checkout, "deaf", 2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGKILL


def test_slurm_starts_one_step_and_gives_its_status(checkout):
    status, _, err = _run(checkout, "train.slurm", "run", *CONFIG, body="exit 4")
    assert (status, err) == (4, f"config: config {' '.join(CONFIG)}\n")
    assert _told(checkout) == [f"run {' '.join(CONFIG)} --distributed slurm --wait 600 gpus=none"]


def test_job_sets_agree_with_themselves(repository):
    """Pods, their number and the coordinator are each named more than once; the command is bash."""
    gpu, tpu = (doc for doc in yaml.safe_load_all((repository / "launch/jobset.yaml").read_text()) if doc)
    for document, way in ((gpu, "jobset"), (tpu, "tpu")):
        assert (document["kind"], document["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
        [worker] = document["spec"]["replicatedJobs"]
        job = worker["template"]["spec"]
        assert job["parallelism"] == job["completions"]
        assert job["completionMode"] == "Indexed"
        pod = job["template"]["spec"]
        [container] = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        bash, flags, script = container["command"]
        assert (bash, flags) == ("bash", "-ec")
        assert subprocess.run([BASH, "-nc", script], check=False).returncode == 0
        assert f"--distributed {way} " in script
        assert "pr2 config" in script
    assert gpu["spec"]["coordinator"]["replicatedJob"] == gpu["spec"]["replicatedJobs"][0]["name"]
    job = gpu["spec"]["replicatedJobs"][0]["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert int(variables["PR2_PROCESSES"]["value"]) == job["parallelism"]
    port = container["ports"][0]["containerPort"]
    assert variables["PR2_COORDINATOR"]["value"] == f"$(COORDINATOR_HOST):{port}"
    path = variables["COORDINATOR_HOST"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
