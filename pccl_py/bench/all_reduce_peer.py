"""The process of one peer in `bench all_reduce`: the same tensors, reduced by this library and by others."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import UsageError
from .group import GLOO
from .tensors import Array, fill, holds, stored_type, sum_of, tile
from .timed_peer import Operation, TimedPeer

OURS, OURS_OUT, OURS_SEALED = "ours in place", "ours out of place", "ours encrypted"


class AllReducePeer(TimedPeer):
    """`prepare` a size, `check` each way to reduce it, then time `block`s of operations."""

    def prepare(self, size: int, out: bool, dtype: str = "float32") -> None:
        """Tensors of `size` bytes, and their contents; `out`: also one for the results."""
        count = size // stored_type(dtype).itemsize
        self._array = self._empty(count, dtype)
        self._out = self._empty(count if out else 0, dtype)
        self._out.fill(0)
        self._own, self._sum = tile(self._index, count, dtype), sum_of(range(self._peers), count, dtype)
        wrap = self._gloo is not None or dtype == "bfloat16"
        self._tensor, self._out_tensor = (
            as_torch(array, dtype) if wrap else array for array in (self._array, self._out)
        )

    def check(self, way: str) -> bool:
        self._fill()
        self._operation(way)()
        result = self._out if way == OURS_OUT else self._array
        unchanged = way != OURS_OUT or holds(self._array, self._own)
        return unchanged and holds(result, self._sum)

    def _fill(self) -> None:
        fill(self._array, self._own)

    def _operation(self, way: str) -> Operation:
        if way == GLOO:
            return lambda: self._gloo.all_reduce(self._tensor)
        if way == OURS:
            return lambda: self.comm.all_reduce(self._tensor)
        if way == OURS_SEALED:
            return lambda: self.sealed.all_reduce(self._tensor)
        if way == OURS_OUT:
            return lambda: self.comm.all_reduce(self._tensor, out=self._out_tensor)
        raise UsageError(f"{way!r} is no way to reduce")


def as_torch(array: Array, dtype: str) -> Any:
    """The same memory as a torch tensor."""
    torch = import_module("torch")
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def check_dtype(dtype: str) -> None:
    if dtype == "bfloat16" and find_spec("torch") is None:
        raise UsageError("--dtype bfloat16 needs torch: pip install 'pccl-py[torch]'")
