"""Calls that do not fit together: every peer is told, and the next one works."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, MismatchError, OrderError, QuantConfig, UsageError

from .peers import together

MISMATCHES: list[tuple[Any, Any, dict[str, Any], dict[str, Any]]] = [
    (np.ones(1000, np.float32), np.ones(2000, np.float32), {}, {}),
    (np.ones(8, np.float32), np.ones(8, np.int32), {}, {}),
    (np.ones(8), np.ones(8), {"op": "sum"}, {"op": "max"}),
    (np.ones(8), [np.ones(4), np.ones(4)], {}, {}),
    (np.ones(8), np.ones(8), {"op": "avg", "weight": 1.0}, {"op": "avg"}),
    (np.ones(300_000), np.ones(300_001), {}, {}),
    (np.ones(8), np.ones(8), {"on_loss": "raise"}, {}),
]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("int8", None, {"int8 in blocks of 256", "none"}),
        (QuantConfig("int8", 64), "int8", {"int8 in blocks of 64", "int8 in blocks of 256"}),
        (
            QuantConfig("int8", non_finite="skip"),
            "int8",
            {"int8 in blocks of 256, non_finite=skip", "int8 in blocks of 256"},
        ),
    ],
)
def test_other_quantization_is_named(master: Master, first: Any, second: Any, names: set[str]) -> None:
    """Not what follows from it: other plans and chunks."""

    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(MismatchError) as caught:
            comm.all_reduce(
                np.ones(5000, np.float32), "avg", quantization=second if comm.rank else first, timeout=20
            )
        return str(caught.value)

    for text in together(master.address, 2, play):
        assert "plans" not in text
        assert set(text.split("; the quantization is ")[1].split(", and ")) == names


@pytest.mark.parametrize(("one", "other", "first", "second"), MISMATCHES)
def test_a_mismatch_reaches_everybody(
    master: Master, one: Any, other: Any, first: dict[str, Any], second: dict[str, Any]
) -> None:
    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(MismatchError) as caught:
            comm.all_reduce(other if comm.rank == 1 else one, **(second if comm.rank == 1 else first))
        comm.all_reduce(np.ones(3))  # and the next one works
        return str(caught.value)

    for text in together(master.address, 3, play):
        assert "peer" in text, text


def test_calls_that_can_never_meet(master: Master) -> None:
    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(OrderError) as caught:
            if comm.rank:
                comm.all_reduce(np.ones(3))
            else:
                comm.update_topology()
        comm.all_reduce(np.ones(3), tag=1)
        return str(caught.value)

    for text in together(master.address, 2, play):
        assert "all_reduce" in text and "update_topology" in text


def test_update_topology_with_an_operation_in_flight(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            work = comm.all_reduce(np.ones(3), async_op=True)
            with pytest.raises(UsageError, match="in flight"):
                comm.update_topology()
            comm.barrier(tag=7)
            work.wait()
        else:
            comm.barrier(tag=7)
            comm.all_reduce(np.ones(3))

    together(master.address, 2, play)
