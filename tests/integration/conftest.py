"""A master for the tests here, on a free port, without a secret; scripts in an emulated network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pccl_py import Master
from stress.net import Emulator, NoEmulator
from stress.net.build import program

from .emulated import Inside
from .peers import QUICK, STEADY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def master(request: pytest.FixtureRequest) -> Iterator[Master]:
    """Patient: the machine may stand still in any test. Where it is about peers that do, it is quick."""
    stops_peers = request.node.get_closest_marker("stops_peers") is not None
    with Master(config=QUICK if stops_peers else STEADY) as running:
        yield running


@pytest.fixture
def emulated() -> None:
    """The emulator is compiled before the test's deadline begins."""
    try:
        program()
    except NoEmulator as error:
        pytest.skip(f"no emulated network here; missing: {error}")


@pytest.fixture
def inside() -> Iterator[Inside]:
    """`inside(net, peer, source, *arguments)`: a Python script in a peer's namespace, its output readable as
    text. Whatever is left at the end is killed. The emulator is compiled before the test's deadline begins.
    """
    try:
        program()
    except NoEmulator as error:
        pytest.skip(f"no emulated network here; missing: {error}")
    processes: list[subprocess.Popen[str]] = []

    def start(net: Emulator, peer: int, source: str, *arguments: object) -> subprocess.Popen[str]:
        words = net.command(peer, sys.executable, "-u", "-c", source, *map(str, arguments))
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
