"""Two peers far apart, in real processes, whose stripes die while they exchange: every value is right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .commanded import MASTER, close, line_of
from .emulated import emulator
from .peers import expect
from .test_stripes import KILLER

KILLING = KILLER.replace("min_islands=peers,", "insecure=True, min_islands=peers,")


@contextmanager
def _pair(rounds: int, in_place: int, **settings: float) -> Iterator[list[subprocess.Popen[str]]]:
    with emulator(3, **settings) as net:
        words = net.command(2, sys.executable, "-c", MASTER, net.addresses[2])
        processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True)]
        try:
            address = line_of(processes[0], 60).strip()
            for place in range(2):
                arguments = [address, "2", str(rounds), str(in_place), "auto"]
                words = net.command(place, sys.executable, "-u", "-c", KILLING, *arguments)
                processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            yield processes[1:]
        finally:
            close(processes)


@pytest.mark.deadline(200)
@pytest.mark.parametrize("in_place", [0, 1])
def test_what_was_sent_once_is_sent_again_as_it_was(emulated: None, in_place: int) -> None:
    """In place the sum takes the place of what the other end may need once more: with the stripe went what
    the kernel had already taken.
    """
    with _pair(10, in_place, rtt_ms=40, rate_mbit=200) as processes:
        ends = [expect(process, "end").split() for process in processes]
    for right, attempts, size, mended, _ in ends:
        assert (right, attempts, size, mended) == ("True", "1", "2", "True")
    assert sum(int(killed) for *_, killed in ends) > 0
