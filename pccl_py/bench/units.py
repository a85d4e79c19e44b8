"""Sizes and times as people write and read them, and the statistics of a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_SUFFIXES = {"": 1, "K": KIB, "M": MIB, "G": GIB}


def parse_size(text: str) -> int:
    """`"64M"` -> 67108864. K, M and G are powers of 1024."""
    plain = text.strip().upper().removesuffix("B").removesuffix("I")
    number = plain.rstrip("KMG")
    suffix = plain[len(number) :]
    if not number.isdecimal() or suffix not in _SUFFIXES or int(number) == 0:
        raise UsageError(f"{text!r} is no size: write 1024, 1K, 64M or 1G")
    return int(number) * _SUFFIXES[suffix]


def parse_tensor(text: str) -> int:
    """The bytes of a float32 tensor."""
    size = parse_size(text)
    if size % 4:
        raise UsageError(f"{text!r}: sizes are multiples of 4 bytes, of float32 elements")
    return size


def parse_tensors(text: str) -> list[int]:
    return [parse_tensor(part) for part in text.split(",")]


def bytes_text(size: int) -> str:
    for suffix in ("G", "M", "K"):
        if size % _SUFFIXES[suffix] == 0:
            return f"{size // _SUFFIXES[suffix]} {suffix}iB"
    return f"{size} B"


def seconds_text(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def value_text(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "s":
        return seconds_text(value)
    if unit == "B":
        return f"{value / MIB:.1f} MiB"
    return f"{value:g} {unit}".strip()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
