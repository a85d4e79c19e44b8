"""What the README shows is complete: its programs run as they stand, on two peers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pccl_py import Master
from tests.conftest import ROOT, Spawn

MASTER = "127.0.0.1:48148"
README = (ROOT / "README.md").read_text()
PROGRAMS = [
    text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if text.startswith("import ")
]
# On a busy machine the first of two is told whom it waits for: what is compared is what programs print.
QUIET = "import logging; logging.getLogger('pccl_py').setLevel(logging.ERROR)\n"
BITS = "\nimport hashlib; print('bits', hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest())"


def run_two(spawn: Spawn, programs: list[str], address: str) -> list[str]:
    assert all(MASTER in program for program in programs)
    peers = [spawn("-c", QUIET + program.replace(MASTER, address)) for program in programs]
    outputs = [peer.communicate(timeout=50)[0] for peer in peers]
    for peer, output in zip(peers, outputs, strict=True):
        assert peer.returncode == 0, output
    return outputs


def test_there_are_three_programs() -> None:
    assert ["DiLoCo" in program for program in PROGRAMS] == [False, True, False]


def test_five_minutes(spawn: Spawn, master: Master) -> None:
    outputs = run_two(spawn, [PROGRAMS[0]] * 2, master.address)
    assert sorted(outputs) == [f"peer {n} has the mean over peers (1, 2)\n" for n in (1, 2)]


@pytest.mark.parametrize(("steps", "windows"), [((1050, 1050), 11), ((1050, 1199), 12), ((200, 430), 5)])
def test_diloco_ends_with_equal_bits(
    spawn: Spawn, master: Master, steps: tuple[int, int], windows: int
) -> None:
    programs = [PROGRAMS[1].replace("1050", str(count)) + BITS for count in steps]
    one, other = run_two(spawn, programs, master.address)
    assert one == other
    assert re.fullmatch(rf"{windows} [0-9a-f]{{32}}\nbits [0-9a-f]{{64}}\n", one)


def test_data_parallelism_ends_with_equal_bits(spawn: Spawn, master: Master) -> None:
    program = PROGRAMS[2].replace("data = ", "torch.manual_seed(0)\ndata = ") + BITS
    one, other = run_two(spawn, [program] * 2, master.address)
    assert one == other
    assert re.fullmatch(r"200 [0-9a-f]{32}\nbits [0-9a-f]{64}\n", one)


BEFORE = """
import os, sys, time, torch
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
name, folder = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(ord(name[0]))
net, steps = torch.nn.Linear(4, 1), 60
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

class Wrapped(DistributedDataParallel):
    def __init__(self, net):
        if name == "dies":  # while it gets what the others have
            os.kill(os.getpid(), 9)
        super().__init__(net)

DistributedDataParallel = Wrapped
def invite(guest):
    (folder / "part").write_text(elastic.invitation(folder / "secret"))
    (folder / "part").rename(folder / guest)

def loss(model, step):
    if name == "b" and step == 5:
        os.kill(os.getpid(), 9)
    if name == "a" and step in (10, 20) and dist.get_world_size() == 2:
        invite({10: "dies", 20: "late"}[int(step)])
        until = time.monotonic() + 40
        while elastic.communicator().waiting == 0 and time.monotonic() < until:
            time.sleep(0.01)
    return (model(torch.ones(2, 4) * (step % 3)) - 1).square().mean()
"""
AFTER = "\nprint(name, dist.get_rank(), int(step), net.weight.tolist()); dist.barrier()"


@pytest.mark.deadline(120)
def test_ddp_survives_a_death_and_one_of_a_newcomer_that_is_just_coming(spawn: Spawn, tmp_path: Path) -> None:
    (loop,) = [p for p in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if p.startswith("from torch")]
    guest = "\nwhile not (folder / name).exists(): time.sleep(0.01)\n"
    guest += loop.replace('"pccl")', '"pccl", init_method=(folder / name).read_text())', 1)
    founder = loop.replace(
        '"pccl")', f'"pccl", "file://{tmp_path}/store", rank="abc".index(name), world_size=3)', 1
    )
    peers = {
        name: spawn("-c", BEFORE + (founder if len(name) == 1 else guest) + AFTER, name, str(tmp_path))
        for name in ("a", "b", "c", "dies", "late")
    }
    outputs = {name: peer.communicate(timeout=100)[0] for name, peer in peers.items()}
    assert [peer.returncode for peer in peers.values()] == [0, -9, 0, -9, 0], outputs
    ends = [re.search(r"^(\w+) (\d) (\d+) (.*)$", outputs[name], re.M) for name in ("a", "c", "late")]
    assert [(end[2], end[3]) for end in ends] == [("0", "60"), ("1", "60"), ("2", "60")], outputs
    assert len({end[4] for end in ends}) == 1


def test_the_secret_that_it_makes_is_one(spawn: Spawn, tmp_path: Path) -> None:
    (command,) = re.findall(r"^\(umask .*\)", README, re.M)
    source = f"import subprocess; subprocess.run({command!r}, shell=True, check=True)\n"
    source += "from pccl_py.secret import read_secret; print(len(read_secret('run.key', insecure=False)))"
    process = spawn("-W", "error", "-c", source, cwd=tmp_path)
    assert int(process.communicate(timeout=30)[0]) >= 16
