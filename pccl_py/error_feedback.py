"""What quantization loses in one all-reduce is added to the tensors of the next: `error_feedback=`."""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import UsageError
from .tensors import DTYPE_CODES, Operand, Tensor, describe, is_torch
from .work import Operation, Result, Work

_FLOAT64 = DTYPE_CODES["float64"]


class ErrorFeedback:
    """The residuals of a training loop's quantized all-reduces, by name.

        feedback = ErrorFeedback()
        comm.all_reduce(gradient, "avg", quantization="int4", error_feedback=feedback["gradient"])

    With x the tensor and e its residual (zeros at first), this peer contributes Q(x + e), and keeps
    e = x + e - Q(x + e): 1-bit SGD's error feedback (Seide et al. 2014). What the encoding of the sum loses
    goes into the residual of the peer that encodes it (DoubleSqueeze: Tang et al. 2019, arXiv 1905.05957). So
    over any number of rounds of the same peers and weights, the sum of the results and that of the exact
    results differ by the mean of what is in the residuals now, however coarse the code.

    A residual moves on with the commit of its operation and not otherwise: a repetition among survivors, and
    the next call after an error, begin with the one before. It stays as it is where this peer counts for
    nothing (weight 0, skipped) and where values travel as they are (one peer alone, no full mesh).

    decay   residuals are multiplied by it after each round, 0 to 1: below 1, old errors are forgotten

    A residual costs two float32 (for float64: float64) per element, in the memory of the host. It is this
    peer's own, of no use to others: a peer that joins begins with zeros, one that leaves takes along at most
    one step of its code per element. Not for several threads at once.
    """

    def __init__(self, decay: float = 1.0) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise UsageError(f"decay={decay!r}: it is a number from 0 to 1")
        self._decay = float(decay)
        self._residuals: dict[str, Residual] = {}

    def __getitem__(self, name: str) -> Residual:
        """For `all_reduce(error_feedback=...)`: of one tensor, or one list. New names begin at zero."""
        if not isinstance(name, str):
            raise UsageError(f"error feedback of {name!r}: its name is a text")
        if name not in self._residuals:
            self._residuals[name] = Residual(name, self._decay)
        return self._residuals[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._residuals)

    def __len__(self) -> int:
        return len(self._residuals)

    def reset(self, name: str | None = None) -> None:
        """Forgets one residual, or all: they begin at zero, and may have another shape."""
        for known in [name] if name is not None else list(self._residuals):
            if known in self._residuals:
                self._residuals[known].check_idle()
                del self._residuals[known]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Copies by name, flat, one per tensor; torch tensors where the tensors were, else numpy arrays."""
        return {name: residual.copies() for name, residual in self._residuals.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Replaces all residuals by copies of what state_dict() gave."""
        loaded = {name: Residual(name, self._decay) for name in state}
        for name, values in state.items():
            loaded[name].load(values)
        self.reset()
        self._residuals = loaded


class Residual:
    """Of one name. `_now` is what the next operation adds, `_next` what the one in flight leaves."""

    def __init__(self, name: str, decay: float) -> None:
        self._name = name
        self._decay = decay
        self._now: list[Any] = []
        self._next: list[Any] = []
        self._operation: Operation | None = None
        self._work: weakref.ref[Work] | None = None
        self._lock = threading.Lock()  # of what an operation in flight left: settle() may be any thread's

    def prepare(self, tensors: Tensor | Sequence[Tensor], items: Sequence[Operand]) -> list[tuple[int, int]]:
        """(what is added, what is left) as addresses, per tensor. For all_reduce."""
        self.check_idle()
        given = list(tensors) if isinstance(tensors, list | tuple) else [tensors]
        if not self._now:
            self._now = [_zeros(t, item) for t, item in zip(given, items, strict=True)]
        held = [(array.dtype.itemsize, len(array)) for array in self._now]
        wanted = [(8 if item.code == _FLOAT64 else 4, item.elements) for item in items]
        if held != wanted:
            texts = ", ".join(describe(tensor) for tensor in given[:4])
            raise UsageError(
                f"the error feedback {self._name!r} was begun with other tensors than {texts}: "
                "give each call its name, or reset() this one"
            )
        if len(self._next) != len(self._now):
            self._next = [_like(array) for array in self._now]
        return [(_address(now), _address(left)) for now, left in zip(self._now, self._next, strict=True)]

    @property
    def memory(self) -> object:
        """What must live as long as the operation does."""
        return (*self._now, *self._next)

    def posted(self, operation: Operation, work: Work) -> None:
        """The operation with these addresses runs. Who drops its Work cancels it, as without feedback."""
        self._operation = operation
        self._work = weakref.ref(work, lambda _: None if operation.done() else operation.cancel())

    def check_idle(self) -> None:
        """Takes over what the last operation left. UsageError while it runs."""
        with self._lock:
            if self._operation is None:
                return
            if not self._operation.done():
                raise UsageError(
                    f"the last all_reduce with the error feedback {self._name!r} still runs: wait() for it"
                )
            result = Result(*self._operation.result())
            self._operation = self._work = None
            if result.code == 0 and result.fed_back:
                self._now, self._next = self._next, self._now
                for array in self._now:
                    if self._decay != 1:
                        array *= self._decay

    def copies(self) -> list[Tensor]:
        self.check_idle()
        return [array.clone() if is_torch(array) else array.copy() for array in self._now]

    def length(self) -> float:
        """L2 norm of what the next operation adds."""
        self.check_idle()
        return math.sqrt(sum(_norm(array) ** 2 for array in self._now))

    def load(self, values: Sequence[Tensor]) -> None:
        if not isinstance(values, list | tuple) or not all(_is_residual(value) for value in values):
            raise UsageError(f"the error feedback {self._name!r}: pass what state_dict() gave")
        self._now = [value.detach().cpu().clone() if is_torch(value) else value.copy() for value in values]
        self._next = []


def _zeros(tensor: Tensor, item: Operand) -> Any:
    name = "float64" if item.code == _FLOAT64 else "float32"
    if is_torch(tensor):
        torch = sys.modules["torch"]
        return torch.zeros(item.elements, dtype=getattr(torch, name))
    return np.zeros(item.elements, name)


def _norm(array: Any) -> float:
    return float(sys.modules["torch"].linalg.vector_norm(array) if is_torch(array) else np.linalg.norm(array))


def _like(array: Any) -> Any:
    return sys.modules["torch"].empty_like(array) if is_torch(array) else np.empty_like(array)


def _address(array: Any) -> int:
    return int(array.data_ptr() if is_torch(array) else array.__array_interface__["data"][0])


def _is_residual(value: Tensor) -> bool:
    if not (is_torch(value) or isinstance(value, np.ndarray)):
        return False
    name = str(value.dtype).removeprefix("torch.")
    return name in ("float32", "float64") and value.ndim == 1
