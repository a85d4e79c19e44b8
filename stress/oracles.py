"""What each peer contributes, what the result must be, and what a wrong one looks like.

A contribution is integer-valued noise that depends on the peer, the operation and the position, so that a
result with a contribution that is missing, doubled, stale, shifted or somebody else's differs almost
everywhere. Sums of up to 16 of them are exact in their dtype: results are compared for equality, not within
a tolerance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .memory import Array
from .windows import Op

PEERS_MAX = 16
_M32, _M64 = (1 << 32) - 1, (1 << 64) - 1
# Bits of a contribution: sums of PEERS_MAX of them, also times a weight of up to 8, are exact in the
# accumulator, and plain sums in the dtype.
_BITS = {"float16": 7, "float32": 20, "float64": 32}
_BITS_WEIGHTED = {"float16": 7, "float32": 17, "float64": 32}


class Name(NamedTuple):
    """Which attempt at what: window, slot in it, how often the caller has called it again, tensor of the
    call.
    """

    window: int
    slot: int
    retry: int
    tensor: int


class Kind(NamedTuple):
    """How the values are made and combined."""

    dtype: str
    op: Op
    weighted: bool


def _mix(*values: int) -> int:
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ value) * 0xBF58476D1CE4E5B9 & _M64
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _M64
        state ^= state >> 31
    return state


_index: Array = np.arange(1 << 12, dtype=np.uint32)


def _noise(seed: int, count: int) -> Array:
    """uint32[count]"""
    global _index
    if count > _index.size:
        _index = np.arange(max(count, 2 * _index.size), dtype=np.uint32)
    with np.errstate(over="ignore"):
        x = _index[:count] * np.uint32(seed & _M32 | 1) + np.uint32(seed >> 32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
    return x


def contribution(peer: int, name: Name, kind: Kind, count: int) -> Array:
    """What `peer` puts in: `dtype[count]`."""
    noise: Array = _noise(_mix(peer, *name), count)
    dtype = np.dtype(kind.dtype)
    if dtype.kind in "iu":
        wide = noise.astype(np.uint64)
        if dtype.itemsize == 8:
            wide |= _noise(_mix(peer, *name, 1), count).astype(np.uint64) << np.uint64(32)
        return wide.astype(dtype)
    if kind.op == "prod":
        factors: Array = np.array([-2, -1, 1, 2], dtype)
        return np.take(factors, noise & np.uint32(3))
    bits = (_BITS_WEIGHTED if kind.weighted else _BITS)[kind.dtype]
    values = (noise >> np.uint32(32 - bits)).astype(np.int64) - (1 << bits - 1)
    return values.astype(dtype)


def weight_of(peer: int, name: Name) -> float:
    """1 .. 8, the same for all tensors of the call."""
    return float(_mix(peer, name.window, name.slot, name.retry, 7) % 8 + 1)


def expected(contributors: Sequence[int], name: Name, kind: Kind, count: int) -> Array:
    """The result that exactly these peers make, each once: `dtype[count]`."""
    parts = [contribution(peer, name, kind, count) for peer in contributors]
    if np.dtype(kind.dtype).kind in "iu":
        return _combine_integers(parts, kind)
    weights = [weight_of(peer, name) for peer in contributors] if kind.weighted else [1.0] * len(parts)
    return _combine_floats(parts, kind, weights)


def _combine_integers(parts: list[Array], kind: Kind) -> Array:
    functions = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
    function = functions[kind.op]
    total = parts[0].copy()
    for part in parts[1:]:
        function(total, part, out=total)
    if kind.op != "avg":
        return total
    divisor = np.array(len(parts), total.dtype)
    quotient = total // divisor
    toward_zero: Array = (quotient + ((total % divisor != 0) & (total < 0))).astype(total.dtype)
    return toward_zero


def _combine_floats(parts: list[Array], kind: Kind, weights: list[float]) -> Array:
    accumulator = np.float64 if kind.dtype == "float64" else np.float32
    if kind.op in ("min", "max", "prod"):
        function = {"prod": np.multiply, "min": np.minimum, "max": np.maximum}[kind.op]
        result = parts[0].astype(np.float64)
        for part in parts[1:]:
            function(result, part, out=result)
    else:
        result = np.zeros(parts[0].size)
        for part, weight in zip(parts, weights, strict=True):
            result += part.astype(np.float64) * weight
    result = result.astype(accumulator)
    if kind.op == "avg":
        result = result / accumulator(sum(weights))
    with np.errstate(over="ignore"):
        return result.astype(kind.dtype)


def compare(got: Array, contributors: Sequence[int], name: Name, kind: Kind) -> str | None:
    """None if `got` is right, element by element; else what is wrong with it, for people."""
    want = expected(contributors, name, kind, got.size)
    if np.array_equal(got, want):
        return None
    wrong = np.flatnonzero(got != want)
    first = int(wrong[0])
    text = (
        f"{kind.op} {kind.dtype}[{got.size}]: {wrong.size} elements are wrong, first at {first}, last at "
        f"{int(wrong[-1])}: {got[first]} instead of {want[first]} of peers {list(contributors)}"
    )
    return f"{text}; {explain(got, wrong, contributors, name, kind)}"


def explain(got: Array, wrong: Array, contributors: Sequence[int], name: Name, kind: Kind) -> str:
    """The first guess that fits the wrong elements."""
    at = wrong[:16]
    want = expected(contributors, name, kind, got.size)
    for distance in (1, 2, 3, 4, 8, 16, 32, 64):
        for sign in (-1, 1):
            inside = at[(at + sign * distance >= 0) & (at + sign * distance < got.size)]
            if inside.size > 2 and np.array_equal(got[inside], want[inside + sign * distance]):
                return f"it is shifted by {sign * distance} elements"
    for back in range(1, 4):
        old = expected(contributors, name._replace(window=name.window - back), kind, got.size)
        if np.array_equal(got[at], old[at]):
            return f"it is the result of {back} windows before"
    if name.retry > 0:
        old = expected(contributors, name._replace(retry=name.retry - 1), kind, got.size)
        if np.array_equal(got[at], old[at]):
            return "it is the result of the call before this retry"
    if kind.op == "sum":
        return _multiplicities(got, at, contributors, name, kind)
    return "no explanation"


def _multiplicities(got: Array, at: Array, contributors: Sequence[int], name: Name, kind: Kind) -> str:
    """How often each peer's contribution is in the wrong elements of a sum."""
    peers = sorted(set(contributors) | set(range(max(contributors) - 3, max(contributors) + 3)))
    peers = [peer for peer in peers if peer > 0][-7:]
    wide = np.uint64 if got.dtype.kind in "iu" else np.float64  # integers wrap around
    parts = [contribution(peer, name, kind, got.size)[at].astype(wide) for peer in peers]
    for times in itertools.product(range(4), repeat=len(peers)):
        total: Array = np.zeros(at.size, wide)
        for part, n in zip(parts, times, strict=True):
            total = total + part * wide(n)
        if np.array_equal(total.astype(got.dtype), got[at]):
            found = ", ".join(f"peer {peer} x {n}" for peer, n in zip(peers, times, strict=True) if n)
            return f"the wrong elements hold {found or 'nothing'}"
    return "no whole contributions explain it"
