"""Parts of a step count together or are repeated together, whoever dies between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import OpInfo
from pccl_py.errors import Cancelled, OperationTimeout
from pccl_py.parallel.agreement import parts_to_repeat, scale_of
from pccl_py.parallel.step_reduction import StepReduction


class ScriptedWork:
    def __init__(self, comm: ScriptedComm, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        self._comm, self._inputs, self._outputs = comm, inputs, outputs
        self.cancelled = False

    def wait(self, timeout: float | None = None) -> OpInfo:
        outcome = self._comm.outcomes.pop(0) if self._comm.outcomes else self._comm.present
        if isinstance(outcome, Exception):
            raise outcome
        self._comm.present = min(outcome, self._comm.present, key=len)  # nobody comes within a step
        for source, target in zip(self._inputs, self._outputs, strict=True):
            torch.mul(source, len(outcome), out=target)  # every peer gives the same
        return OpInfo(tuple(outcome), 0, 0, 0.0, 1, len(outcome), None)

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedComm:
    """Each commit has the contributors that come next in `outcomes`, or raises."""

    def __init__(self, outcomes: list[Any]) -> None:
        self.outcomes = outcomes
        self.present = list(range(100))
        self.works: list[ScriptedWork] = []
        self.tags: list[int] = []

    def all_reduce(self, tensors: Any, op: str, *, out: Any, tag: int, **options: Any) -> ScriptedWork:
        assert (op, options) == ("sum", {"scope": "run", "on_loss": "retry", "async_op": True})
        self.works.append(ScriptedWork(self, tensors, out))
        self.tags.append(tag)
        return self.works[-1]


def reduce(comm: ScriptedComm, parts: int) -> tuple[OpInfo, list[float]]:
    reduction = StepReduction(comm, 100)  # type: ignore[arg-type]
    outputs = [torch.zeros(1) for _ in range(parts)]
    for index in range(parts):
        reduction.post(index, [torch.full((1,), float(index + 1))], [outputs[index]])
    info = reduction.finish()
    assert not any(reduction.has(index) for index in range(parts))
    return info, [float(output) for output in outputs]


@given(parts=st.integers(1, 6), peers=st.integers(1, 6), data=st.data())
@settings(max_examples=200, deadline=None)
def test_all_parts_end_with_the_same_contributors(parts: int, peers: int, data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(1, peers), min_size=parts, max_size=parts + 6))
    head = data.draw(st.permutations(sorted(sizes, reverse=True)[:parts]))  # commits come in any order
    tail = sorted((min(size, min(head)) for size in sizes[parts:]), reverse=True)
    comm = ScriptedComm([list(range(size)) for size in [*head, *tail]])
    info, outputs = reduce(comm, parts)
    assert outputs == [(index + 1) * len(info.contributors) for index in range(parts)]
    assert len(info.contributors) <= min(head)


def test_what_all_were_in_is_not_repeated() -> None:
    comm = ScriptedComm([[0, 1]] * 3)
    assert reduce(comm, 3)[1] == [2, 4, 6]
    assert comm.tags == [100, 101, 102]


def test_only_what_a_dead_peer_was_in_is_repeated() -> None:
    comm = ScriptedComm([[0, 1, 2], [0, 1], [0, 1, 2], [0, 1]])
    assert reduce(comm, 3)[1] == [2, 4, 6]
    assert len(comm.works) == 4 and comm.tags[-1] == 100


def test_a_part_that_somebody_interrupted_is_posted_again() -> None:
    comm = ScriptedComm([Cancelled("by peer 1"), [0, 1], [0, 1]])
    assert reduce(comm, 2)[1] == [2, 4]
    assert comm.tags == [100, 101, 100]


def test_an_error_leaves_nothing_in_flight() -> None:
    comm = ScriptedComm([OperationTimeout("too long")])
    reduction = StepReduction(comm, 0)  # type: ignore[arg-type]
    for index in range(2):
        reduction.post(index, [torch.ones(1)], [torch.zeros(1)])
    with pytest.raises(OperationTimeout):
        reduction.finish()
    assert [work.cancelled for work in comm.works] == [True, True]
    assert not reduction.has(0) and not reduction.has(1)


def test_an_interrupted_wait_goes_on() -> None:
    comm = ScriptedComm([[0, 1], Interrupt(), [0, 1]])
    reduction = StepReduction(comm, 0)  # type: ignore[arg-type]
    outputs = [torch.zeros(1) for _ in range(2)]
    for index in range(2):
        reduction.post(index, [torch.ones(1)], [outputs[index]])
    with pytest.raises(Interrupt):
        reduction.finish()
    assert reduction.has(0) and reduction.has(1)
    assert reduction.finish().contributors == (0, 1)
    assert len(comm.works) == 2


class Interrupt(Exception):
    """As KeyboardInterrupt: none of the package's errors."""


def test_agreement() -> None:
    assert parts_to_repeat([]) == []
    assert parts_to_repeat([(1, 2), (2, 1)]) == []
    assert parts_to_repeat([(1, 2, 3), (1, 3), (1, 2, 3)]) == [0, 2]
    assert scale_of(8, 8) == 1 and scale_of(4, 8) == 2 and scale_of(0, 8) is None
