"""What examples/launch/ says to torchrun, SLURM and Kubernetes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import pccl_py
from pccl_py.cli import main

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = ROOT / "examples" / "launch"
KILLED_AT = 40


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | more


def lines_of(path: Path) -> list[dict[str, object]]:
    """Of all ranks, which share an output: two may be in one line."""
    return [json.loads(said) for said in re.findall(r'\{"step"[^}]*\}', path.read_text())]


def descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return children + [each for child in children for each in descendants(child)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def begin(command: list[str | Path], said: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)


def stop(process: subprocess.Popen[bytes]) -> None:
    for pid in [*descendants(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def kill_one_rank(island: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + 90
    while not any(line["step"] == KILLED_AT for line in lines_of(said)):
        assert island.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)
    ranks = [pid for pid in descendants(island.pid) if "-u examples/fsdp_islands.py" in command_of(pid)]
    assert len(ranks) == 2
    os.kill(ranks[0], signal.SIGKILL)


@pytest.mark.nightly
@pytest.mark.deadline(240)
def test_torchrun_starts_an_island_anew_and_the_other_trains_on(tmp_path: Path) -> None:
    said = {name: tmp_path / name for name in "ab"}
    with pccl_py.Master("127.0.0.1:0") as master:
        islands = {
            name: begin(
                ["sh", LAUNCH / "torchrun.sh", master.address, name],
                path,
                environment(OMP_NUM_THREADS="1"),
            )
            for name, path in said.items()
        }
        try:
            kill_one_rank(islands["b"], said["b"])
            assert [island.wait(timeout=150) for island in islands.values()] == [0, 0], said["b"].read_text()
        finally:
            for island in islands.values():
                stop(island)
    found = {name: lines_of(path) for name, path in said.items()}
    assert {line["islands"] for line in found["a"]} >= {2}
    last = {name: sorted(str(line["digest"]) for line in lines[-2:]) for name, lines in found.items()}
    assert last["a"] == last["b"]
    assert len({line["step"] for lines in found.values() for line in lines[-2:]}) == 1


SRUN = """#!/bin/bash
# As srun on one host: so many tasks, or one, each with its number.
tasks=$SLURM_NTASKS
while [[ $1 == --* ]]; do
  case $1 in --ntasks) tasks=$2; shift 2;; --nodes|--nodelist) shift 2;; *) shift;; esac
done
for ((rank = 0; rank < tasks; rank++)); do SLURM_PROCID=$rank "$@" & done
failed=0
for ((rank = 0; rank < tasks; rank++)); do wait -n || failed=1; done
exit $failed
"""


def tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.nightly
@pytest.mark.deadline(240)
def test_slurm_starts_a_killed_peer_anew(tmp_path: Path) -> None:
    """With the command srun alone, in place of a cluster: what the script asks of it is what is tested."""
    tools = tmp_path / "bin"
    tools.mkdir()
    tool(tools / "srun", SRUN)
    tool(tools / "scontrol", "#!/bin/sh\necho 127.0.0.1\n")
    env = environment(SLURM_NTASKS="2", SLURM_JOB_ID="7", SLURM_JOB_NODELIST="here", PCCL_PORT="48321")
    env |= {"PCCL_STATE": str(tmp_path / "state"), "SLURM_SUBMIT_DIR": str(ROOT)}
    env["PATH"] = f"{tools}{os.pathsep}{env['PATH']}"
    small = "--windows 400 --steps 20 --plain --batch 2 --context 32 --width 32".split()
    log = tmp_path / "log"
    job = begin(["bash", LAUNCH / "slurm.sbatch", *small], log, env)
    try:
        kill_one_peer(job, log)
        assert job.wait(timeout=150) == 0, log.read_text()
    finally:
        stop(job)
    assert "ended with 137; again in 2 s" in log.read_text()
    assert stat.S_IMODE((tmp_path / "state" / "secret").stat().st_mode) == 0o600


def kill_one_peer(job: subprocess.Popen[bytes], log: Path) -> None:
    """Once both train."""
    deadline = time.monotonic() + 90
    while " window 3 " not in " ".join(log.read_text().split()):
        assert job.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    script = "python examples/train_gpt.py"
    peers = [pid for pid in descendants(job.pid) if command_of(pid).startswith(script)]
    assert len(peers) == 2
    os.kill(peers[0], signal.SIGKILL)


@pytest.mark.parametrize("name", ["slurm.sbatch", "torchrun.sh"])
def test_scripts_are_shell(name: str) -> None:
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)


def test_kubernetes_starts_what_the_command_line_knows(capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml")
    documents = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents].count("Deployment") == 2
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        spec = document["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        container = spec["containers"][0]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        python, flag, module, *words = container["command"]
        assert (python, flag, module) == ("python", "-m", "pccl_py")
        with pytest.raises(SystemExit):
            main([*words, "--unknown"])
        assert capsys.readouterr().err.endswith("unrecognized arguments: --unknown\n")
        assert document["metadata"]["name"] in ("pccl-master", "pccl-peers")


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="SLURM is not installed")
def test_sbatch_takes_the_script() -> None:
    done = subprocess.run(
        ["sbatch", "--test-only", LAUNCH / "slurm.sbatch"], capture_output=True, text=True, timeout=60
    )
    if "Unable to contact slurm controller" in done.stderr or "resolve" in done.stderr:
        pytest.skip("SLURM is installed, but its controller does not run")
    assert done.returncode == 0, done.stderr
