"""One process on one core: kernels and codec on its own memory, each thing in turns with the others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _core
from ..arguments import OPS
from ..quantization import numbers_of
from ..tensors import DTYPE_CODES
from . import quantized_bound
from .tensors import TILE, Array, fill, numbers, stored, stored_type
from .units import MIB

STREAMING_FROM = 4 * MIB  # larger results are written past the caches
TRIAL_BYTES = 16 * MIB  # so much at least is worked on in one trial
TRIALS = 7
_NUMPY = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
Trial = Callable[[], object]


class KernelsWorker:
    """Speeds are of the bytes of one operand: bytes / second."""

    def instruction_sets(self) -> list[str]:
        return list(_core.instruction_sets())

    def reduce(self, size: int, dtype: str, op: str, levels: list[str], trials: int) -> dict[str, Any]:
        """`speeds` of memcpy, of numpy where it has the dtype, and of each level; `right`: levels whose
        results are numpy's, bit by bit."""
        self._prepare(size, dtype)
        times = max(1, TRIAL_BYTES // size)
        ways: dict[str, Trial] = {"memcpy": _again(lambda: np.copyto(self._out, self._first), times)}
        if dtype != "bfloat16":
            ways["numpy"] = _again(lambda: _NUMPY[op](self._first, self._second, out=self._out), times)
        expected = self._expected(dtype, op)
        right = []
        for level in levels:
            self._out.fill(0)
            self._kernel(level, dtype, op, 1)()
            right += [level] if np.array_equal(self._out[: expected.size], expected) else []
            ways[level] = self._kernel(level, dtype, op, times)
        with np.errstate(all="ignore"):
            return {"speeds": _speeds(ways, size * times, trials), "right": right}

    def code(self, size: int, kind: str, levels: list[str], trials: int) -> dict[str, Any]:
        """By level: `encode`, `decode` and `add` (decode and add to a sum) of float32; `right`: levels whose
        error is within the bound, and whose codes are those of the first."""
        code, block, _, _ = numbers_of(kind)
        count, times = size // 4, max(1, TRIAL_BYTES // size)
        values = np.random.default_rng(1).standard_normal(count, np.float32)
        out, sums = np.empty_like(values), np.zeros_like(values)
        zero = np.zeros(count, np.float32)
        codes = np.empty(len(_core.quantize_encode(code, block, False, 1, zero.data)), np.uint8)
        bound = quantized_bound.bounds(kind, values[None], aligned=True)
        ways: dict[str, Trial] = {}
        right, first = [], b""
        for level in levels:
            shared = (level, code, block)
            _core.encode_into(*shared, False, 1, values.data, codes.data, 1)
            _core.decode_into(*shared, 1, codes.data, out.data, False, 1)
            first = first or codes.tobytes()
            alike = codes.tobytes() == first
            right += [level] if alike and bool((np.abs(out - values) <= bound).all()) else []
            ways[f"encode {level}"] = _call(_core.encode_into, *shared, False, 1, values, codes, times)
            ways[f"decode {level}"] = _call(_core.decode_into, *shared, 1, codes, out, False, times)
            ways[f"add {level}"] = _call(_core.decode_into, *shared, 1, codes, sums, True, times)
        return {"speeds": _speeds(ways, size * times, trials), "right": right, "encoded": codes.size}

    def _prepare(self, size: int, dtype: str) -> None:
        count = size // stored_type(dtype).itemsize
        self._out, self._first, self._second = (np.empty(count, stored_type(dtype)) for _ in range(3))
        fill(self._first, stored(numbers(1, count, dtype), dtype))
        fill(self._second, stored(numbers(2, count, dtype), dtype))

    def _kernel(self, level: str, dtype: str, op: str, times: int) -> Trial:
        streaming = self._out.nbytes >= STREAMING_FROM
        numbered = (level, DTYPE_CODES[dtype], OPS[op])
        return _call(_core.reduce, *numbered, self._out, self._first, self._second, streaming, times)

    def _expected(self, dtype: str, op: str) -> Array:
        """Of the first tile."""
        count = min(self._out.size, TILE)
        if dtype == "bfloat16":
            exact = (numbers(peer, count, dtype).astype(np.float32) for peer in (1, 2))
            return stored(_NUMPY[op](*exact), dtype)
        with np.errstate(all="ignore"):
            return np.asarray(_NUMPY[op](self._first[:count], self._second[:count]))


def _speeds(ways: dict[str, Trial], size: int, trials: int) -> dict[str, float]:
    """Bytes per second: the median of trials that take turns."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for trial in range(trials + 1):  # the first one is not counted
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if trial > 0:
                seconds[way].append(time.perf_counter() - began)
    return {way: size / statistics.median(times) for way, times in seconds.items()}


def _again(what: Trial, times: int) -> Trial:
    def run() -> None:
        for _ in range(times):
            what()

    return run


def _call(function: Callable[..., object], *arguments: Any) -> Trial:
    return lambda: function(*arguments)
