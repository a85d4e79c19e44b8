"""An all-reduce whose input is made again instead of kept: same bits as with a copy, whoever dies in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, ErrorFeedback, Master, MismatchError, UsageError
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together
from .trapped import SIGNAL

COUNT, ROUNDS = 300_000, 3  # more than what is kept in any case
SETTINGS: list[tuple[str | None, str]] = [
    (None, "direct"),
    (None, "ring"),
    ("int8", "auto"),
    ("int4", "auto"),
]


def given(place: int, number: int) -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(10 * number + place))


def rounds(
    comm: Communicator, place: Callable[[], int], code: str | None, algorithm: str
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[int], int]:
    """Results, what is held back, attempts of each, and how often the input was asked for."""
    feedback = ErrorFeedback()
    results, attempts, asked = [], [], 0
    for number in range(ROUNDS):
        x = given(place(), number)

        def remake(x: torch.Tensor = x, number: int = number) -> None:
            nonlocal asked
            asked += 1
            x.copy_(given(place(), number))

        options: dict[str, Any] = {"quantization": code, "error_feedback": feedback["x"]} if code else {}
        info = comm.all_reduce(x, "avg", algorithm=algorithm, remake=remake, **options)
        results.append(x)
        attempts.append(info.attempts)
    held = [array for parts in feedback.state_dict().values() for array in parts]
    return results, held, attempts, asked


DIES = """
import torch
from tests.integration.trapped import trap, trap_part
comm = Communicator(address, min_islands=3, config=config, deterministic=True)
say("id", comm.id)
x = torch.zeros(int(sys.argv[2]))
options = dict(quantization=sys.argv[3]) if sys.argv[3] else {}
if sys.argv[4] == "ring":  # all parts but its own pass through it, and it adds to them
    trap(x, ((list(comm.ring).index(comm.id) + 1) % 3 + 0.5) / 3)
else:
    trap_part(comm, x, own=True)
if options:
    feedback = ErrorFeedback()
    options["error_feedback"] = feedback["x"]
comm.all_reduce(x, "avg", algorithm=sys.argv[4], remake=lambda: None, **options)
"""


@pytest.mark.parametrize(("code", "algorithm"), SETTINGS)
def test_killed_inside_leaves_the_bits_of_those_who_live(
    master: Master, spawn: Spawn, code: str | None, algorithm: str
) -> None:
    """As if the one that died had never been there, residuals included."""
    victim = spawn("-c", PEER + DIES, master.address, str(COUNT), code or "", algorithm)
    dead: list[int] = []
    known = threading.Event()

    def watch() -> None:
        dead.append(int(expect(victim, "id")))
        known.set()

    def survive() -> Any:
        with Communicator(master.address, min_islands=3, config=QUICK, deterministic=True) as comm:
            assert known.wait(20)
            alive = [peer for peer in sorted(comm.ring) if peer != dead[0]]
            return alive.index(comm.id), rounds(comm, lambda: alive.index(comm.id), code, algorithm)

    found = dict(in_threads([survive, survive, watch])[:2])
    assert victim.wait(20) == -SIGNAL
    with Master() as other:

        def alone(comm: Communicator, _: int) -> Any:
            place = sorted(comm.ring).index(comm.id)
            return place, rounds(comm, lambda: place, code, algorithm)

        wanted = dict(together(other.address, 2, alone, deterministic=True))
    for place in (0, 1):
        results, held, attempts, asked = found[place]
        assert attempts[0] > 1 and attempts[1:] == [1, 1] and asked == attempts[0] - 1
        for one, two in zip([*results, *held], [*wanted[place][0], *wanted[place][1]], strict=True):
            assert torch.equal(one, two)
        assert wanted[place][3] == 0


def test_all_make_inputs_again_or_none(master: Master) -> None:
    def play(comm: Communicator, index: int) -> str:
        array = np.ones(COUNT, np.float32)
        options: dict[str, Any] = {"remake": lambda: None} if index else {}
        with pytest.raises(MismatchError, match="remake") as caught:
            comm.all_reduce(array, **options)
        return str(caught.value)

    together(master.address, 2, play)


@pytest.mark.parametrize("options", [{"out": np.ones(2)}, {"on_loss": "raise"}, {"async_op": True}])
def test_what_does_not_go_with_it(master: Master, options: dict[str, Any]) -> None:
    with Communicator(master.address) as comm:
        with pytest.raises(UsageError, match="without out, on_loss='raise' and async_op"):
            comm.all_reduce(np.ones(2), remake=lambda: None, **options)
        with pytest.raises(UsageError, match="fills the tensors anew"):
            comm.all_reduce(np.ones(2), remake=3)  # type: ignore[call-overload]


WAITS = """
comm = Communicator(address, min_islands=3, config=config)
say("in")
time.sleep(60)
"""


def test_who_comes_late_hears_that_the_input_is_wanted_again(master: Master, spawn: Spawn) -> None:
    """It had not begun when somebody left."""
    victim = spawn("-c", PEER + WAITS, master.address)
    gone = threading.Event()

    def play(late: bool) -> tuple[float, int]:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            if late:
                assert gone.wait(20)
                while comm.world_size > 2:
                    pass
            array = np.full(COUNT, 1.0 + late)
            info = comm.all_reduce(array, remake=partial(array.fill, 1.0 + late), timeout=30)
            return float(array[-1]), info.attempts

    def kill() -> None:
        expect(victim, "in")
        victim.kill()
        victim.wait(10)
        gone.set()

    found = in_threads([partial(play, False), partial(play, True), kill])[:2]
    assert [value for value, _ in found] == [3.0, 3.0]
