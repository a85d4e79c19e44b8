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
BITS = "\nimport hashlib; print('bits', hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest())"


def run_two(spawn: Spawn, programs: list[str], address: str) -> list[str]:
    assert all(MASTER in program for program in programs)
    peers = [spawn("-c", program.replace(MASTER, address)) for program in programs]
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


def test_the_secret_that_it_makes_is_one(spawn: Spawn, tmp_path: Path) -> None:
    (command,) = re.findall(r"^\(umask .*\)", README, re.M)
    source = f"import subprocess; subprocess.run({command!r}, shell=True, check=True)\n"
    source += "from pccl_py.secret import read_secret; print(len(read_secret('run.key', insecure=False)))"
    process = spawn("-W", "error", "-c", source, cwd=tmp_path)
    assert int(process.communicate(timeout=30)[0]) >= 16
