"""Error feedback without a run: what it refuses, and what it takes over from operations that have ended."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import ErrorFeedback, UsageError
from pccl_py.tensors import operands
from pccl_py.work import Work


class Ended:
    """An operation, as the core says that it ended, or runs."""

    def __init__(self, code: int = 0, *, fed_back: bool = True) -> None:
        self.over = True
        self.cancelled = False
        self._result = (code, "", [1], 0, 1, 0, 0, 0.0, 0.0, 0.0, [], fed_back)

    def wait(self, seconds: float) -> bool:
        return self.over

    def done(self) -> bool:
        return self.over

    def cancel(self) -> None:
        self.cancelled = True

    def result(self) -> tuple[Any, ...]:
        return self._result


def played(feedback: ErrorFeedback, tensor: Any, operation: Ended, left: float) -> Work:
    """One operation on `tensor`, whose residual becomes `left` everywhere if it counts."""
    slot = feedback["w"]
    ((_, address),) = slot.prepare(tensor, operands(tensor, None))
    (held,) = [array for array in slot.memory if array.__array_interface__["data"][0] == address]
    held[:] = left
    work = Work(operation, "an operation", weighted=False, keep=None)
    slot.posted(operation, work)
    return work


@pytest.mark.parametrize(
    ("operation", "value"), [(Ended(), 3.0), (Ended(code=7), 0.0), (Ended(fed_back=False), 0.0)]
)
def test_only_a_commit_moves_it(operation: Ended, value: float) -> None:
    feedback, tensor = ErrorFeedback(), np.ones(4, np.float32)
    played(feedback, tensor, operation, 3.0)
    assert np.array_equal(feedback.state_dict()["w"][0], np.full(4, value))
    assert np.array_equal(feedback.state_dict()["w"][0], np.full(4, value)), "it moves once"


def test_decay_counts_once_per_commit() -> None:
    feedback, tensor = ErrorFeedback(decay=0.5), np.ones(2)
    played(feedback, tensor, Ended(), 8.0)
    assert feedback.state_dict()["w"][0].tolist() == [4, 4]
    played(feedback, tensor, Ended(code=7), 100.0)
    assert feedback.state_dict()["w"][0].tolist() == [4, 4]


def test_a_dropped_work_is_cancelled() -> None:
    feedback, operation = ErrorFeedback(), Ended()
    operation.over = False
    work = played(feedback, np.ones(2), operation, 0.0)
    gone = weakref.ref(work)
    assert not operation.cancelled
    del work
    assert gone() is None
    assert operation.cancelled


def test_other_tensors_are_refused() -> None:
    feedback = ErrorFeedback()
    slot = feedback["w"]
    assert slot is feedback["w"]
    for tensor in (np.ones(4, np.float32), np.ones(4, np.float16), torch.ones(4, dtype=torch.bfloat16)):
        slot.prepare(tensor, operands(tensor, None))  # each of these has float32 residuals
    for other in (np.ones(5, np.float32), np.ones(4), [np.ones(4, np.float32), np.ones(4, np.float32)]):
        with pytest.raises(UsageError, match="'w' was begun with other tensors than float"):
            slot.prepare(other, operands(other, None))
    feedback.reset("w")
    feedback.reset("unknown")
    five = np.ones(5, np.float32)
    feedback["w"].prepare(five, operands(five, None))


def test_state_keeps_its_kind_and_is_a_copy() -> None:
    feedback = ErrorFeedback()
    one, other = torch.ones(3, dtype=torch.float16), np.ones(2)
    feedback["torch"].prepare(one, operands(one, None))
    feedback["numpy"].prepare(other, operands(other, None))
    state = feedback.state_dict()
    assert isinstance(state["torch"][0], torch.Tensor) and isinstance(state["numpy"][0], np.ndarray)
    again = ErrorFeedback()
    again.load_state_dict(state)
    state["torch"][0].fill_(9)
    state["numpy"][0].fill(9)
    assert again.state_dict()["torch"][0].tolist() == [0, 0, 0]
    assert again.state_dict()["numpy"][0].tolist() == [0, 0]
    plain = np.ones(3, np.float32)
    again["torch"].prepare(plain, operands(plain, None))  # numbers are numbers


@pytest.mark.parametrize("values", [[np.ones(3, np.int32)], [np.ones((2, 2))], np.ones(3), ["text"], 7])
def test_what_is_no_state(values: Any) -> None:
    feedback = ErrorFeedback()
    feedback.load_state_dict({"v": [np.ones(1)]})
    with pytest.raises(UsageError, match=r"'w': pass what state_dict\(\) gave"):
        feedback.load_state_dict({"w": values})
    assert list(feedback) == ["v"], "nothing was replaced"


def test_wrong_arguments() -> None:
    for decay in (-0.1, 1.1, "1", True, float("nan")):
        with pytest.raises(UsageError, match="from 0 to 1"):
            ErrorFeedback(decay)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="its name is a text"):
        ErrorFeedback()[3]  # type: ignore[index]
