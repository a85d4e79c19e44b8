"""The process of one peer in `bench quantized`: averages of the same random tensors, each kind in turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xxhash

from . import quantized_bound
from .tensors import TILE, Array, fill
from .timed_peer import Operation, TimedPeer
from .units import MIB

PLAIN = "none"
_LAYER = 4096  # elements of about the same size


class QuantizedPeer(TimedPeer):
    """Out of place, so that every operation is like the first. A way is a kind."""

    def prepare(self, size: int) -> None:
        count = size // 4
        self._array, self._out = self._empty(count), self._empty(count)
        self._tiles = np.stack([_random(peer, count) for peer in range(self._peers)])
        self._exact = self._tiles.astype(np.float64).mean(0)
        # Each owner's part, and with it every chunk and block, begins at a multiple of the block.
        self._aligned = size % (self._peers * MIB) == 0
        self._errors: dict[str, dict[str, Any]] = {}
        self._fill()

    def check(self, way: str) -> bool:
        self._out.fill(np.nan)
        self._operation(way)()
        self._errors[way] = errors = self._measured(way)
        return bool(errors["share"] <= 1.0)

    def errors(self, way: str) -> dict[str, Any]:
        """Of the last check: max, rms, the bounds of both, `share`: the largest part of its bound that an
        element's error is; digest of the result."""
        return self._errors[way]

    def _fill(self) -> None:
        fill(self._array, self._tiles[self._index])

    def _operation(self, way: str) -> Operation:
        kind = None if way == PLAIN else way
        return lambda: self.comm.all_reduce(self._array, "avg", out=self._out, quantization=kind)

    def _measured(self, kind: str) -> dict[str, Any]:
        bound = quantized_bound.bounds(kind, self._tiles, self._aligned)
        largest = squares = share = 0.0
        for begin in range(0, self._out.size, self._exact.size):
            part = self._out[begin : begin + self._exact.size]
            error = np.abs(part - self._exact[: part.size])
            largest = max(largest, float(error.max()))
            squares += float(np.square(error).sum())
            ratio = error / np.maximum(bound[: part.size], np.finfo(np.float64).tiny)
            share = max(share, float(np.where(np.isnan(ratio), np.inf, ratio).max()))
        return {
            "max": largest,
            "rms": math.sqrt(squares / self._out.size),
            "bound": float(bound.max()),
            "bound_rms": quantized_bound.rms(kind, bound, self._peers),
            "share": share if math.isfinite(share) else 1e300,
            "digest": xxhash.xxh3_128_hexdigest(self._out.data),
        }


def _random(peer: int, count: int) -> Array:
    """Normally distributed, in layers of different sizes, as updates of a model are. float32[TILE at most]"""
    chance = np.random.default_rng(peer)
    size = min(count, TILE)
    scales = np.repeat(np.random.default_rng(77).lognormal(0, 1, -(-size // _LAYER)), _LAYER)[:size]
    return (chance.standard_normal(size) * scales).astype(np.float32)
